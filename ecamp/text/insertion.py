"""Insertion of distilled text into reports while training (arXiv 2312.13316, section 3.1).

With a given probability the distilled text of a report is inserted, as one block, at a sentence
boundary drawn uniformly; otherwise the report is left unchanged. Everything is encoded once; a
step only gathers (`ecamp.ops.insert_text`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from ecamp.ops.insert_text import TextPool, insert_text
from ecamp.ops.mask_tokens import threshold
from ecamp.text.sentences import split_sentences
from ecamp.text.tokenizer import token_id


class DistilledInserter:
    """Reports with their distilled texts, encoded once and assembled anew each step.

    Args:
        tokenizer: Must have the token [CLS].
        reports: Report texts; the position in the sequence is the sample id.
        distilled: One text per report; empty where there is none.
        max_length: Maximum number of tokens of a text, [CLS] included; the rest is cut.
        probability: Probability of inserting a distilled text that is not empty.

    Raises:
        ValueError: The numbers of texts differ, or a length or probability is out of range.
        DataError: The tokenizer has no [CLS].
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        reports: Sequence[str],
        distilled: Sequence[str],
        max_length: int,
        probability: float = 0.8,
    ) -> None:
        if len(reports) != len(distilled):
            raise ValueError(
                f"DistilledInserter: {len(reports)} reports, but {len(distilled)} distilled texts"
            )
        if max_length < 1 or not 0 <= probability <= 1:
            raise ValueError(
                "DistilledInserter: max_length must be at least 1 and probability in 0..1, "
                f"got {max_length} and {probability}"
            )
        self.max_length, self.probability = max_length, probability
        self._cls = token_id(tokenizer, "[CLS]")
        max_tokens = max_length - 1
        encodings = tokenizer.encode_batch(list(reports), add_special_tokens=False)
        blocks = tokenizer.encode_batch(list(distilled), add_special_tokens=False)
        edges = [
            _sentence_edges(text, encoding, max_tokens)
            for text, encoding in zip(reports, encodings, strict=True)
        ]
        report_ids = [encoding.ids[:max_tokens] for encoding in encodings]
        block_ids = [encoding.ids[:max_tokens] for encoding in blocks]
        texts = [*report_ids, *block_ids]
        starts, lengths = _starts(texts), _lengths(texts)
        n = len(report_ids)
        self.pool = TextPool(
            torch.from_numpy(np.fromiter((t for part in texts for t in part), np.int32)),
            starts[:n], lengths[:n], starts[n:-1], lengths[n:],
            torch.from_numpy(np.fromiter((e for part in edges for e in part), np.int64)),
            _starts(edges)[:-1], _lengths(edges),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.pool.report_length)

    def assemble(self, index: Tensor, step: int, seed: int) -> tuple[Tensor, Tensor]:
        """Assemble the texts of one step.

        Args:
            index: int64 (batch,), sample ids.
            step: Training step; not negative.
            seed: Seed of the run; not negative.

        Returns:
            ids int64 (sum of lengths,), `[CLS] tokens ...` one text after another, without padding;
            lengths int64 (batch,), at most `max_length`.

        Raises:
            ValueError, RuntimeError: A sample id lies outside the reports.
        """
        limit = threshold(self.probability)
        return insert_text(index, self.pool, step, seed, limit, self.max_length, self._cls)


def _sentence_edges(text: str, encoding: Encoding, max_tokens: int) -> list[int]:
    """Count the tokens before each sentence boundary 0 .. n, at most `max_tokens`.

    The whole text is encoded and its encoding cut by offsets: encoded sentence by sentence, the
    tokens could differ from those of the whole text.
    """
    ends = np.maximum.accumulate(np.array([end for _, end in encoding.offsets], np.int64))
    starts = [start for start, _ in split_sentences(text)]
    edges = np.searchsorted(ends, np.array(starts, np.int64), side="right")
    if len(edges):
        edges[0] = 0
    return [*np.minimum(edges, max_tokens).tolist(), min(len(ends), max_tokens)]


def _lengths(parts: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([len(part) for part in parts], dtype=torch.int64)


def _starts(parts: Sequence[Sequence[int]]) -> Tensor:
    """Return the start of each part when all are joined, and the end of the last one."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), _lengths(parts).cumsum(0)])
