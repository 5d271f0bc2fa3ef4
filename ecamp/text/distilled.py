"""Insertion of distilled text into reports while training (METHOD section 1).

With a probability the distilled text of a report is put, as one block, at a sentence boundary drawn
uniformly; otherwise the report stays as it is. Everything is encoded once; a step only gathers.

Random numbers. Philox4x32-10 with counter (0, sample id, step, OP) and the seed as key: word 0
decides the insertion, word 1 the boundary. So a text depends on (seed, step, sample id) alone, not on
the batch or its order; OP keeps the draws apart from those of the masking.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Encoding, Tokenizer

from ecamp.ops.mask_tokens import threshold
from ecamp.ops.philox import philox
from ecamp.text.sentences import split_sentences
from ecamp.text.tokenizer import token_id

OP = 2  # this draw's place in the counter; mask_tokens has 1


class DistilledInserter:
    """Reports with their distilled texts, encoded once and put together anew each step.

    Args:
        tokenizer: Needs [PAD] and [CLS].
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
        # One pool of tokens: all reports, all distilled texts, and a [PAD] at the end.
        tokens = [*report, *block, [token_id(tokenizer, "[PAD]")]]
        self._pool = np.fromiter((t for part in tokens for t in part), np.int64)
        starts = _starts(tokens)
        self._report_start, self._block_start = starts[: len(report)], starts[len(report) : -2]
        self._report_length, self._block_length = _lengths(report), _lengths(block)
        self._blocks = any(block)
        self._edges = np.fromiter((e for part in edges for e in part), np.int64)
        self._edge_start, self._edge_count = _starts(edges)[:-1], _lengths(edges)

    def __len__(self) -> int:
        return len(self._report_length)

    def assemble(
        self, index: np.ndarray, step: int, seed: int, cut: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The texts of one step.

        Args:
            index: int64 (batch,), sample ids.
            step, seed: Non-negative.
            cut: Leave out columns that hold padding only, but for one.

        Returns:
            ids int64 (batch, max_length or fewer), `[CLS] tokens...` and padding; lengths int64
            (batch,).

        Raises:
            ValueError: An index lies outside the reports.
        """
        index = np.asarray(index, np.int64)
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise ValueError(f"DistilledInserter: an index lies outside 0..{len(self) - 1}")
        total = self._report_length[index]
        start = self._report_start[index][:, None]
        if self._blocks:
            edge, length = self._draw(index, step, seed)
            total = total + length
        lengths = 1 + np.minimum(total, self.max_length - 1)
        width = self.max_length
        if cut:
            width = min(width, int(lengths.max(initial=1)) + 1)
        at = np.arange(width - 1)
        source = start + at
        if self._blocks:
            # Before the edge the report, then the block, then the rest of the report.
            edge_, length_ = edge[:, None], length[:, None]
            inside = (at >= edge_) & (at < edge_ + length_)
            source -= np.where(at < edge_, 0, length_)
            source = np.where(inside, self._block_start[index][:, None] + (at - edge_), source)
        source[at >= total[:, None]] = len(self._pool) - 1  # padding
        ids = np.empty((len(index), width), np.int64)
        ids[:, 0] = self._cls
        ids[:, 1:] = self._pool[source]
        return ids, lengths

    def _draw(self, index: np.ndarray, step: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each block goes, and how long it is (0 where none is inserted); both (batch,)."""
        counter = np.zeros((len(index), 4), np.uint32)
        counter[:, 1] = (index & 0xFFFFFFFF).astype(np.uint32)
        counter[:, 2] = step & 0xFFFFFFFF
        counter[:, 3] = OP
        draws = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).astype(np.uint64)
        inserted = draws[:, 0] < threshold(self.probability)
        count = self._edge_count[index].astype(np.uint64)
        which = ((draws[:, 1] * count) >> np.uint64(32)).astype(np.int64)
        edge = self._edges[self._edge_start[index] + which]
        return edge, np.where(inserted, self._block_length[index], 0)


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


def _lengths(parts: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter((len(part) for part in parts), np.int64)


def _starts(parts: Sequence[Sequence[int]]) -> np.ndarray:
    """Where each part starts when all are joined, and where the last ends."""
    return np.concatenate([[0], np.cumsum(_lengths(parts))]).astype(np.int64)
