"""Insertion of distilled text: against `encode_reports`, a plain-Python oracle, and statistics."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ecamp.text.insertion import DistilledInserter
from ecamp.text.sentences import split_sentences
from ecamp.text.tokenizer import encode_reports, train_tokenizer
from tests.ops.checks import philox_plain

REPORTS = [
    "FINDINGS: There is a small left pneumothorax. No pleural effusion.",
    "IMPRESSION: 1. Moderate cardiomegaly 2. no evidence of consolidation of 2.5 cm.",
    "The lungs are clear.The heart is normal. No acute abnormality. Old rib fractures.",
    "Seen by Dr. Smith. Stable\n\nno change",
    "",
]
DISTILLED = [
    "There is pneumothorax. There is no effusion.",
    "There is cardiomegaly. There is no consolidation.",
    "There is no abnormality.",
    "",
    "There is no report.",
]
TOKENIZER = train_tokenizer(REPORTS + DISTILLED, 400)


def assemble(
    inserter: DistilledInserter, index: np.ndarray, step: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the texts of a step as `encode_reports` returns texts: padded, with lengths."""
    ids, lengths = inserter.assemble(torch.from_numpy(index), step, seed)
    assert ids.dtype == lengths.dtype == torch.int64
    real = np.arange(inserter.max_length) < lengths.numpy()[:, None]
    out = np.zeros(real.shape, np.int64)
    out[real] = ids.numpy()
    return out, lengths.numpy()


def oracle(report: str, block: str, sample: int, step: int, seed: int, p: float) -> str:
    """Insert the block between two sentences, on characters."""
    u = philox_plain([0, sample, step % 2**32, 2], [seed % 2**32, seed >> 32])
    spans = split_sentences(report)
    parts = [report[a:b] for a, b in spans]
    if not block or u[0] >= round(p * 2**32):
        return report
    parts.insert(u[1] * (len(parts) + 1) >> 32, block)
    return " ".join(parts)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, len(REPORTS) - 1), max_size=6),
    st.integers(0, 2**32 + 5), st.integers(0, 2**63 - 1),
    st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.integers(1, 40),
)  # fmt: skip
def test_equals_the_text_put_together_by_hand(
    index: list[int], step: int, seed: int, p: float, length: int
) -> None:
    inserter = DistilledInserter(TOKENIZER, REPORTS, DISTILLED, length, p)
    texts = [oracle(REPORTS[i], DISTILLED[i], i, step, seed, p) for i in index]
    want_ids, want_lengths = encode_reports(TOKENIZER, texts, length)
    ids, lengths = assemble(inserter, np.array(index, np.int64), step, seed)
    assert ids.tolist() == want_ids.tolist()
    assert lengths.tolist() == want_lengths.tolist()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.integers(1, 24))
def test_without_distilled_text_it_is_encode_reports(texts: list[str], length: int) -> None:
    inserter = DistilledInserter(TOKENIZER, texts, [""] * len(texts), length, 1.0)
    ids, lengths = assemble(inserter, np.arange(len(texts)), 3, 7)
    want_ids, want_lengths = encode_reports(TOKENIZER, texts, length)
    assert np.array_equal(ids, want_ids)
    assert np.array_equal(lengths, want_lengths)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text(max_size=30), st.integers(0, 99))
def test_only_a_block_is_added_and_no_word_is_cut(report: str, block: str, step: int) -> None:
    inserter = DistilledInserter(TOKENIZER, [report], [block], 256, 1.0)
    ids, lengths = assemble(inserter, np.zeros(1, np.int64), step, 0)
    got = ids[0, 1 : lengths[0]].tolist()
    encode = TOKENIZER.encode
    whole = encode(report, add_special_tokens=False)
    added = encode(block, add_special_tokens=False).ids
    cuts = [
        cut for cut in range(len(whole.ids) + 1)
        if got == whole.ids[:cut] + added + whole.ids[cut:]
    ]  # fmt: skip
    words = whole.word_ids
    assert [c for c in cuts if c in (0, len(words)) or words[c - 1] != words[c]]


def test_rate_and_boundary_are_those_asked_for() -> None:
    p, steps, sample = 0.8, 4000, 2
    inserter = DistilledInserter(TOKENIZER, REPORTS, DISTILLED, 96, p)
    report, block = REPORTS[sample], DISTILLED[sample]
    parts = [report[a:b] for a, b in split_sentences(report)]
    texts = [" ".join([*parts[:i], block, *parts[i:]]) for i in range(len(parts) + 1)]
    names = {ids.tobytes(): k for k, ids in enumerate(encode_reports(TOKENIZER, texts, 96)[0])}
    names[encode_reports(TOKENIZER, [report], 96)[0][0].tobytes()] = -1
    assert len(names) == 6
    # Over steps and over samples alike: many copies of one report, or one report many times.
    many = DistilledInserter(TOKENIZER, [report] * steps, [block] * steps, 96, p)
    over_samples = assemble(many, np.arange(steps), 0, 11)[0]
    over_steps = [assemble(inserter, np.array([sample]), step, 11)[0][0] for step in range(steps)]
    for rows in (over_samples, over_steps):
        where = np.array([names[row.tobytes()] for row in rows])
        count = np.bincount(where[where >= 0], minlength=5)
        assert abs(count.sum() / steps - p) < 4.5 * (p * (1 - p) / steps) ** 0.5
        error = (0.2 * 0.8 / count.sum()) ** 0.5
        assert np.abs(count / count.sum() - 0.2).max() < 4.5 * error


def test_a_text_does_not_depend_on_the_batch() -> None:
    inserter = DistilledInserter(TOKENIZER, REPORTS, DISTILLED, 40)
    ids, lengths = assemble(inserter, np.arange(len(REPORTS)), 5, 3)
    order = np.array([3, 1, 4, 0, 2, 2])
    again, again_lengths = assemble(inserter, order, 5, 3)
    assert np.array_equal(again, ids[order])
    assert np.array_equal(again_lengths, lengths[order])
    for i in range(len(REPORTS)):
        assert np.array_equal(assemble(inserter, np.array([i]), 5, 3)[0][0], ids[i])
    assert not np.array_equal(assemble(inserter, np.arange(len(REPORTS)), 6, 3)[0], ids)
    assert assemble(inserter, np.zeros(0, np.int64), 0, 0)[0].shape == (0, 40)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="5 reports, but 1 distilled"):
        DistilledInserter(TOKENIZER, REPORTS, [""], 40)
    with pytest.raises(ValueError, match="probability"):
        DistilledInserter(TOKENIZER, REPORTS, DISTILLED, 40, 1.5)
    inserter = DistilledInserter(TOKENIZER, REPORTS, DISTILLED, 40)
    for index in (-1, len(REPORTS)):
        with pytest.raises((ValueError, RuntimeError), match=r"outside 0\.\.4"):
            assemble(inserter, np.array([index]), 0, 0)


@pytest.fixture(scope="module")
def real_reports(shared_data: Path) -> list[str]:
    with (shared_data / "iu_reports" / "reports.csv").open(encoding="utf-8", newline="") as file:
        return [f"{row['findings']} {row['impression']}" for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.real
def test_real_reports_with_the_published_vocabulary(
    shared_data: Path, real_reports: list[str]
) -> None:
    tokenizer = Tokenizer.from_file(str(shared_data / "tokenizer" / "mimic_wordpiece.json"))
    want = encode_reports(tokenizer, real_reports, 256)
    index = np.arange(len(real_reports))
    without = DistilledInserter(tokenizer, real_reports, [""] * len(index), 256, 1.0)
    got = assemble(without, index, 0, 0)
    assert np.array_equal(got[0], want[0])
    assert np.array_equal(got[1], want[1])
    # Joined by sentences or as a whole: the tokens are the same, so boundaries cut none.
    block = "there is no effusion."
    inserter = DistilledInserter(tokenizer, real_reports, [block] * len(index), 256, 0.8)
    texts = [oracle(text, block, i, 1, 2, 0.8) for i, text in enumerate(real_reports)]
    joined = encode_reports(tokenizer, texts, 256)
    got = assemble(inserter, index, 1, 2)
    assert np.array_equal(got[0], joined[0])
    assert np.array_equal(got[1], joined[1])
