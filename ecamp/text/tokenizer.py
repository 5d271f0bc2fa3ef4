"""WordPiece tokenizers: train on reports, load any tokenizers JSON, encode to padded ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[MASK]", "[SEP]")


def train_tokenizer(reports: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a lower-case WordPiece vocabulary; the same reports give the same vocabulary.

    Args:
        vocab_size: Upper bound; small corpora give fewer pieces.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        show_progress=False,
        continuing_subword_prefix="##",
    )
    # Sorted, because the trainer breaks ties between pairs by the order it met them.
    tokenizer.train_from_iterator(sorted(set(reports)), trainer)
    return tokenizer


def encode_reports(
    tokenizer: Tokenizer, reports: Sequence[str], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encode to `[CLS] tokens...`, no [SEP], cut and padded to `max_length`.

    Returns:
        ids int64 (n, max_length); lengths int64 (n,), at least 1.
    """
    pad, cls = tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[CLS]")
    ids = np.full((len(reports), max_length), pad, np.int64)
    lengths = np.ones(len(reports), np.int64)
    ids[:, 0] = cls
    for row, encoding in enumerate(tokenizer.encode_batch(list(reports), add_special_tokens=False)):
        tokens = encoding.ids[: max_length - 1]
        ids[row, 1 : 1 + len(tokens)] = tokens
        lengths[row] = 1 + len(tokens)
    return ids, lengths
