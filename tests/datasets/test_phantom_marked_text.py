"""Content of phantom reports: words unchanged by the marks, truth that fits findings and lexicon."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from ecamp.api.distiller import POLARITIES, Statement
from ecamp.datasets.phantom.heldout import KINDS, held_out_report
from ecamp.datasets.phantom.marked_text import parse_marked_report, set_polarity
from ecamp.datasets.phantom.study import ENTITY, Description, describe_study, oracle_text
from ecamp.text.lexicon import Lexicon

# Changes whenever a word of a report changes: then GENERATOR_VERSION must change too.
REPORTS = "85e323fbf93b54a4"
LEXICON = Lexicon.load("chest").entities
# Named in words that are no form of the lexicon.
OTHERS = {("cardiomegaly", word) for word in ("heart", "heart size", "cardiac silhouette")} | {
    ("abnormality", "acute findings"),
    ("abnormality", "acute cardiopulmonary process"),
    ("opacity", "density"),
    ("aerate", "expanded"),
}


def test_reports_are_those_of_this_version() -> None:
    total = hashlib.sha256()
    for seed in (0, 1):
        for index in range(1000):
            total.update(describe_study(seed, index).report.encode() + b"\n")
    assert total.hexdigest()[:16] == REPORTS


@pytest.fixture(scope="module")
def studies() -> list[Description]:
    return [describe_study(3, index) for index in range(1500)]


@pytest.fixture(scope="module")
def held_out() -> list[tuple[str, tuple[Statement, ...]]]:
    return [held_out_report(3, index) for index in range(1500)]


def _check_spans(text: str, statements: tuple[Statement, ...]) -> None:
    assert "[" not in text
    assert "|" not in text
    index = 0
    for said in statements:
        words = text[said.start : said.end].lower()
        assert words in LEXICON[said.entity] or (said.entity, words) in OTHERS, (said, words)
        assert said.polarity in POLARITIES
        assert said.start >= index
        index = said.start


def test_spans_name_their_entities(
    studies: list[Description], held_out: list[tuple[str, tuple[Statement, ...]]]
) -> None:
    for study in studies:
        _check_spans(study.report, study.statements)
    for text, statements in held_out:
        _check_spans(text, statements)


# Finding -> entities whose names its sentences use.
USED = {
    "nodule": {"nodule", "opacity"},
    "consolidation": {"consolidation", "infiltrate"},
    "oedema": {"edema", "congestion", "opacity"},
}


def test_statements_fit_the_findings(studies: list[Description]) -> None:
    """Findings are stated as present or possible, others are not, and only absent ones are denied."""
    for study in studies:
        there = {f.name for f in study.findings}
        stated = {f.name for f in study.findings if f.stated}
        denied = {s.entity for s in study.statements if s.polarity == "absent"}
        said = {s.entity for s in study.statements if s.polarity != "absent"}
        assert all(USED.get(name, {ENTITY[name]}) & said for name in stated)
        assert said <= {entity for name in stated for entity in USED.get(name, {ENTITY[name]})}
        assert not denied & {ENTITY[name] for name in there}


def test_every_polarity_is_common(held_out: list[tuple[str, tuple[Statement, ...]]]) -> None:
    in_studies = [describe_study(4, index).statements for index in range(600)]
    for told_ in ([statements for _, statements in held_out], in_studies):
        seen = Counter(said.polarity for statements in told_ for said in statements)
        assert min(seen[p] for p in POLARITIES) >= 25
    assert sum(map(len, KINDS)) >= 100


def test_held_out_reports_vary_and_depend_on_seed_and_index_alone() -> None:
    texts = [held_out_report(0, index)[0] for index in range(300)]
    assert len(set(texts)) == 300
    assert texts[7] == held_out_report(0, 7)[0]
    assert texts[7] != held_out_report(1, 7)[0]


def test_marks_are_read() -> None:
    text, statements = parse_marked_report(
        [("A: ", "No [-x|y,z]."), ("", set_polarity("Is [q] [r s|t].", "?"))], " "
    )
    assert text == "A: No x. Is q r s."
    assert [(s.entity, s.polarity, text[s.start : s.end], s.section) for s in statements] == [
        ("y", "absent", "x", "a"), ("z", "absent", "x", "a"),
        ("q", "possible", "q", ""), ("t", "possible", "r s", ""),
    ]  # fmt: skip


def test_the_oracle_describes_the_film(studies: list[Description]) -> None:
    study = next(s for s in studies if s.labels == (0, 0, 0, 0, 0, 1, 0, 1))
    assert oracle_text(study) == (
        "There is no nodule. There is no mass. There is no consolidation. There is no effusion. "
        "There is no pneumothorax. There is cardiomegaly. There is no atelectasis. There is edema."
    )
