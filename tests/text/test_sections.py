"""Sections of reports, by hand-made cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.text.sections import split_sections, told


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
        ("", ""),
    ],
)
def test_what_is_told(report: str, text: str):
    assert told(report) == text


@given(st.text())
def test_any_text_is_survived(report: str):
    assert isinstance(told(report), str)
