"""Report text: lexicon, tokenizer, masking policy."""
