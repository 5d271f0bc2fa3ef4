"""Sections of reports, by hand-made cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.text.sections import findings_text, section_spans, split_sections


def test_sections_in_order_with_folded_space():
    report = "FINAL REPORT\n EXAMINATION:  CHEST\n FINDINGS: \n Clear.\n  No effusion.\nIMPRESSION: Normal."
    assert list(split_sections(report).items()) == [
        ("", "FINAL REPORT"), ("examination", "CHEST"), ("findings", "Clear. No effusion."),
        ("impression", "Normal."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ("FINDINGS: A.\nIMPRESSION: B.", "A. B."),
        ("INDICATION: cough\nIMPRESSION: B.", "B."),
        ("FINDINGS AND IMPRESSION: AB.", "AB."),
        ("CONCLUSION: C.", "C."),
        ("Lungs are clear.", "Lungs are clear."),
        ("INDICATION: cough", "cough"),
        ("Findings at 10:30: heart normal.", "Findings at 10:30: heart normal."),
        ("INDICATION: Cough. FINDINGS: A. IMPRESSION: B.", "A. B."),
        ("HISTORY: a. FINDINGS/IMPRESSION: AB. COMPARISON: c.", "AB."),
        ("EXAM: CT CLINICAL HISTORY: b TECHNIQUE: c FINDINGS : A.", "A."),
        ("MYFINDINGS-IMPRESSION: x\nzIMPRESSION: y", "x zIMPRESSION: y"),
        ("See the IMPRESSION below. Heart: normal.", "See the IMPRESSION below. Heart: normal."),
        ("", ""),
    ],
)
def test_findings_and_impression_are_read(report: str, text: str):
    assert findings_text(report) == text


def test_headings_in_one_line_have_spans_of_their_words():
    report = "INDICATION: Cough.  FINDINGS: No effusion. IMPRESSION:\tNormal. "
    assert [(name, report[a:b]) for name, a, b in section_spans(report)] == [
        ("indication", "Cough."), ("findings", "No effusion."), ("impression", "Normal."),
    ]  # fmt: skip


@pytest.mark.timeout(600)
def test_colons_do_not_make_it_slow():
    """Ends in a second; a pattern whose time grows with the square takes most of an hour."""
    assert section_spans("A:" * 1_000_000 + "FINDINGS: x")[-1][0] == "findings"


WORDS = st.sampled_from(
    ["FINDINGS", "IMPRESSION", "HISTORY", "A", ":", ": ", "\n", " ", "x", "AND"]
)


@given(st.one_of(st.text(), st.lists(WORDS).map("".join)))
def test_any_text_is_cut_into_spans_in_order(report: str):
    spans = section_spans(report)
    assert isinstance(findings_text(report), str)
    edges = [edge for _, start, end in spans for edge in (start, end)]
    assert edges == sorted(edges)
    assert all(0 <= start < end <= len(report) for _, start, end in spans)
    assert all(report[start:end].strip() == report[start:end] for _, start, end in spans)
