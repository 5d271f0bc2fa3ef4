"""WordPiece tokenizers: training on reports, loading of tokenizer.json files, encoding to ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ecamp.errors import DataError, MissingError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[MASK]", "[SEP]")
REQUIRED = ("[PAD]", "[UNK]", "[CLS]", "[MASK]")  # by encoding and masking; [SEP] is never used

# Marks the start of a word while pieces are learnt; WordPiece marks continuations ("##") instead.
_START = "\u2581"


def train_tokenizer(reports: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a lower-case WordPiece vocabulary; the same reports give the same bytes anywhere.

    The merges come from the BPE trainer, which breaks ties by piece number. The library's
    WordPiece trainer numbers pieces in the order of a randomly seeded hash map, so that every
    process gets a different vocabulary.

    Args:
        reports: Texts; their order and repetitions do not matter.
        vocab_size: Upper bound, except that all single characters are always included; small
            corpora give fewer pieces.

    Returns:
        A tokenizer with the tokens `SPECIALS`.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    words = pre_tokenizers.BertPreTokenizer()
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizer
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.Metaspace(replacement=_START, prepend_scheme="always")]
    )
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False)
    bpe.train_from_iterator(sorted(set(reports)), trainer)
    learnt = sorted(bpe.get_vocab().items(), key=lambda item: item[1])
    letters = [piece for piece, _ in learnt if len(piece) == 1 and piece != _START]
    pieces = [*SPECIALS, *letters, *("##" + letter for letter in letters)]
    pieces += [_word_piece(piece) for piece, _ in learnt if len(piece) > 1]
    pieces = list(dict.fromkeys(pieces))
    pieces = pieces[: max(vocab_size, len(SPECIALS) + 2 * len(letters))]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _word_piece(piece: str) -> str:
    return piece[1:] if piece.startswith(_START) else "##" + piece


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json of the `tokenizers` library, made here or elsewhere.

    Truncation and padding stored in the file are switched off.

    Raises:
        MissingError: There is no such file.
        DataError: The file is damaged, or lacks a token that masking needs; names it.
    """
    if not path.is_file():
        raise MissingError(
            f"{path}: no such tokenizer file.",
            "Train one: ecamp text train-tokenizer REPORTS -o FILE",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DataError(
            f"{path}: not a tokenizer: {error}.",
            "It must be a tokenizer.json of the library `tokenizers`.",
        ) from error
    missing = [token for token in REQUIRED if tokenizer.token_to_id(token) is None]
    if missing:
        raise DataError(
            f"{path}: the tokenizer lacks {', '.join(missing)}.",
            "Masking needs them; train one: ecamp text train-tokenizer REPORTS -o FILE",
        )
    # The caller decides on lengths; a rule stored in the file would cut or pad texts first.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Look up the id of a token.

    Raises:
        DataError: The tokenizer lacks it.
    """
    index = tokenizer.token_to_id(token)
    if index is None:
        raise DataError(f"The tokenizer has no {token} token.", "Train or choose another one.")
    return int(index)


def encode_reports(
    tokenizer: Tokenizer, reports: Sequence[str], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encode reports to `[CLS] tokens...` without [SEP], cut and padded to `max_length` tokens.

    Returns:
        ids int64 (n, max_length); lengths int64 (n,), at least 1.
    """
    pad, cls = token_id(tokenizer, "[PAD]"), token_id(tokenizer, "[CLS]")
    ids = np.full((len(reports), max_length), pad, np.int64)
    lengths = np.ones(len(reports), np.int64)
    ids[:, 0] = cls
    for row, encoding in enumerate(tokenizer.encode_batch(list(reports), add_special_tokens=False)):
        tokens = encoding.ids[: max_length - 1]
        ids[row, 1 : 1 + len(tokens)] = tokens
        lengths[row] = 1 + len(tokens)
    return ids, lengths
