"""Sentence spans: hand-made cases, invariants over any text, sanity over real reports."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.text.sentences import split_sentences

# "|" marks where a sentence ends; the text is the same without it.
CASES = [
    # plain
    "The heart is normal.| The lungs are clear.",
    "no effusion.| no pneumothorax.| heart size normal.",
    "No effusion",
    "  Clear lungs. | No effusion.  ",
    "Normal chest!| No change.",
    "Is there free air?| None seen.",
    "Typing slip at the end..| Next sentence.",
    "The bones .| No fracture.",
    # decimals and numbers
    "A 2.5 cm nodule.| No mass.",
    "Size is 1.2 x 3.4 cm.| Stable.",
    "Measures .5 cm.| Unchanged.",
    "Level of T12.| No fracture.",
    "Fracture of rib 4.| No pneumothorax.",
    "Compared with 2019.| No change.",
    "Grew by 0.5 to 1.5 mm.| Biopsy advised.",
    # abbreviations
    "Seen by Dr. Smith.| No change.",
    "Discussed with Drs. Lee and Park.| Done.",
    "Mrs. Jones was told.| She agreed.",
    "Atelectasis vs. pneumonia.| Follow up.",
    "A nodule of approx. 3 cm.| No mass.",
    "Devices, e.g. a catheter.| No others.",
    "Unchanged, i.e. stable.| No effusion.",
    "Lines (e.g. PICC) are unchanged.| Heart normal.",
    "Image No. 3 shows a mass.| No effusion.",
    "Is there a mass?| No.| Clear lungs.",
    "See Fig. 2 for the nodule.| No mass.",
    "On Jan. 5 it was smaller.| Now larger.",
    "Told at 5 p.m. by phone.| Read back.",
    "Told at 5 p.m.| The ward knows.",
    "Lines, tubes, etc. are in place.| Clear lungs.",
    "Lines, tubes, etc.| Clear lungs.",
    "Nodule of 3 mm. in the apex.| No mass.",
    "Nodule of 3 mm.| No mass.",
    "Opacity in the rt. base.| Heart normal.",
    "Given i.v. contrast.| No reaction.",
    # initials and names that end in a letter
    "Reviewed by J. Smith.| Agreed.",
    "Dr. A. B. Jones agrees.| Final.",
    "John F. Kennedy hospital.| Chest film.",
    "Aortic dissection type B.| No effusion.",
    "History of hepatitis C.| Lungs clear.",
    "Low in vitamin D.| Bones thin.",
    # lists
    "1. Heart normal.| 2. Lungs clear.",
    "1. Heart normal| 2. Lungs clear| 3. No effusion",
    "1) Heart normal| 2) Lungs clear",
    "IMPRESSION: 1. Cardiomegaly| 2. No effusion",
    "Clear lungs.| 1. No acute disease.| 2. Old granuloma.",
    "1.Severe emphysema.| 2.No mass.",
    "1. Nodule in segment 2.| No effusion.",
    "1. Fracture of rib 2.| Old.",
    "10. Heart enlarged.| 11. Lungs clear.",
    "- Heart normal\n|- Lungs clear",
    "* 1. Heart normal",
    # headings
    "FINDINGS: The heart is normal.| IMPRESSION: Normal.",
    "FINDINGS: Heart normal| IMPRESSION: Clear",
    "FINDINGS:\nThe heart is normal.\n\n|IMPRESSION:\n\nNormal.",
    "Findings: The heart is normal.| Impression: Normal.",
    "FINDINGS:| IMPRESSION: none",
    "TYPE OF EXAM: chest film.| FINAL REPORT: normal",
    "Known HIV: stable.| No mass.",
    "1. FINDINGS: Heart normal",
    # lines
    "The heart is\nnormal in size.| No mass.",
    "The lungs are clear\n|Heart size is normal",
    "The lungs are clear\n\n|no effusion",
    "The lungs are clear\r\n\r\n|no effusion",
    "The lungs are clear\r\n|Heart size is normal",
    "Compared with the\nJanuary film.| No change.",
    "Clear lungs,\nHeart normal.",
    "Impression:\n1. Heart normal\n|2. Lungs clear",
    # de-identification marks
    "There are no XXXX of effusion.| XXXX and lateral views.",
    "Seen on XXXX.| XXXX opacity.",
    "Dr. XXXX was told at XXXX p.m. XXXX/XXXX.| Read back.",
    "Clear lungs XXXX: normal.",
    "The study of XXXX.|In the interval it grew.",
    # no space, ellipsis, question mark
    "No effusion.|The heart is normal.",
    "Clear of the SVC.|The heart is normal.",
    "Size 2 cm.|No mass.",
    "Not seen by dr.Smith.| Done.",
    "Opacity... may be scar.| No mass.",
    "Opacity...| No mass.",
    "Opacity\u2026 may be scar.",
    "Opacity\u2026| No mass.",
    "Opacity ? pneumonia.| No mass.",
    "? Pneumonia in the base.| No mass.",
    "Was it new?!| Yes.",
    # quotes and brackets
    'He said "no pain."| No mass.',
    "Old (see above.)| No mass.",
    "Stable (unchanged).| No mass.",
    "Stable.| (No mass.)",
    # nothing, or nearly
    "",
    " \n\t",
    ".",
    "...",
    "1.",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_hand_made_cases(case: str) -> None:
    text = case.replace("|", "")
    want = [part.strip() for part in case.split("|")] if text.strip() else []
    assert [text[a:b] for a, b in split_sentences(text)] == want


def test_there_are_enough_cases() -> None:
    assert len(set(CASES)) >= 60


# Text made of what the rules examine, in addition to any unicode.
PIECES = st.sampled_from(
    ["Heart", "lungs", "no", "No", "dr", "vs", "e.g", "p.m", "etc", "cm", "XXXX", "FINDINGS", "J",
     "type", "rib", "1", "2", "12", "2.5", ".", "..", "...", "\u2026", "?", "!", ":", ")", "(", '"',
     " ", "  ", "\n", "\n\n", "\r\n", "\t", "-", ",", "\u2028", "\u00c9"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=30).map("".join))


@settings(max_examples=600, deadline=None)
@given(TEXTS)
def test_spans_are_in_order_and_hold_every_character(text: str) -> None:
    spans = split_sentences(text)
    end = 0
    for start, stop in spans:
        assert end <= start < stop <= len(text)
        assert not text[end:start].strip()
        assert text[start:stop] == text[start:stop].strip()
        end = stop
    assert not text[end:].strip()


@settings(max_examples=600, deadline=None)
@given(TEXTS)
def test_a_sentence_is_one_sentence(text: str) -> None:
    for start, stop in split_sentences(text):
        assert split_sentences(text[start:stop]) == [(0, stop - start)]


@pytest.mark.slow
def test_long_texts_stay_linear_in_matches() -> None:
    # Would take minutes if a rule looked back to the start of the text each time.
    for unit in (" a\n", " a:", " 1)", "\n", " " * 8, "A ", "e.g. ", ". ", ".", ")", '."'):
        text = "x" + unit * (300_000 // len(unit))
        spans = split_sentences(text)
        assert "".join(text[a:b] for a, b in spans).replace(" ", "").replace("\n", "") == "".join(
            text.split()
        )


def test_real_reports(shared_data: Path) -> None:
    with (shared_data / "iu_reports" / "reports.csv").open(encoding="utf-8", newline="") as file:
        reports = [f"{row['findings']} {row['impression']}" for row in csv.DictReader(file)]
    sentences = [report[a:b] for report in reports for a, b in split_sentences(report)]
    # The published rule cuts at every "."; ours must not cut within decimals or after titles, and
    # must leave few sentences with a full stop inside.
    assert not [s for s in sentences if re.match(r"\d+ ?(cm|mm)\b", s) and len(s) < 8]
    assert not [s for s in sentences if re.search(r"\b(Dr|vs|approx|e\.g)\.$", s)]
    assert not [s for s in sentences if re.fullmatch(r"\d{1,2}[.)]", s)]
    inside = [s for s in sentences if re.search(r"(?<=[a-z]{3})\. +[A-Z][a-z]", s)]
    assert len(inside) < 0.001 * len(sentences), inside
    assert 5 < len(sentences) / len(reports) < 7
