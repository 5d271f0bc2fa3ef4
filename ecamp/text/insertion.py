"""Insertion of distilled text into reports while training (arXiv 2312.13316, section 3.2).

With a probability the distilled text of a report is put, as one block, at a sentence boundary drawn
uniformly; otherwise the report stays as it is. Everything is encoded once; a step only gathers
(`ecamp.ops.insert_text`).
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
    """Reports with their distilled texts, encoded once and put together anew each step.

    Args:
        tokenizer: Needs [CLS].
        reports: Report texts; position in the sequence = sample id.
        distilled: One text a report; empty where there is none.
        max_length: Tokens of a text with [CLS]; the rest is cut.
        probability: Chance of the insertion where there is a distilled text.

    Raises:
        ValueError: Numbers of texts differ; a probability or length makes no sense.
        DataError: A token is missing.
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
        room = max_length - 1
        whole = tokenizer.encode_batch(list(reports), add_special_tokens=False)
        blocks = tokenizer.encode_batch(list(distilled), add_special_tokens=False)
        edges = [
            _sentence_edges(text, encoding, room)
            for text, encoding in zip(reports, whole, strict=True)
        ]
        report = [encoding.ids[:room] for encoding in whole]
        block = [encoding.ids[:room] for encoding in blocks]
        texts = [*report, *block]
        starts, lengths = _starts(texts), _lengths(texts)
        n = len(report)
        self.pool = TextPool(
            torch.from_numpy(np.fromiter((t for part in texts for t in part), np.int32)),
            starts[:n], lengths[:n], starts[n:-1], lengths[n:],
            torch.from_numpy(np.fromiter((e for part in edges for e in part), np.int64)),
            _starts(edges)[:-1], _lengths(edges),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.pool.report_length)

    def assemble(self, index: Tensor, step: int, seed: int) -> tuple[Tensor, Tensor]:
        """The texts of one step.

        Args:
            index: int64 (batch,), sample ids.
            step, seed: Non-negative.

        Returns:
            ids int64 (sum of lengths,), `[CLS] tokens ...` one text after another, without padding;
            lengths int64 (batch,), at most `max_length`.

        Raises:
            ValueError, RuntimeError: An index lies outside the reports.
        """
        limit = threshold(self.probability)
        return insert_text(index, self.pool, step, seed, limit, self.max_length, self._cls)


def _sentence_edges(text: str, encoding: Encoding, room: int) -> list[int]:
    """Tokens before each sentence boundary 0 .. n, at most `room`.

    The whole text is encoded and its encoding cut by offsets: encoded sentence by sentence, a
    tokenizer could give other tokens than for the text.
    """
    ends = np.maximum.accumulate(np.array([end for _, end in encoding.offsets], np.int64))
    starts = [start for start, _ in split_sentences(text)]
    edges = np.searchsorted(ends, np.array(starts, np.int64), side="right")
    if len(edges):
        edges[0] = 0
    return [*np.minimum(edges, room).tolist(), min(len(ends), room)]


def _lengths(parts: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([len(part) for part in parts], dtype=torch.int64)


def _starts(parts: Sequence[Sequence[int]]) -> Tensor:
    """Where each part starts when all are joined, and where the last ends."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), _lengths(parts).cumsum(0)])
