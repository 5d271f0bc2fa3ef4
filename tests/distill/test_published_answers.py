"""The authors' answers, in both layouts, parsed and placed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecamp.api.distiller import Distilled
from ecamp.distill.published_answers import PublishedAnswers
from ecamp.distill.sources import as_report
from ecamp.errors import DataError, MissingError
from ecamp.testing.contract import check_plugin

REPORT = "FINDINGS: Small left pleural effusion. No nodules. Heart is enlarged."


def _distil(path: Path, identifier: str = "5001", text: str = REPORT) -> Distilled:
    distiller = PublishedAnswers(PublishedAnswers.Config(path=str(path)))
    (result,) = distiller.distill([as_report(identifier, text)])
    return result


def _answer(tmp_path: Path, answer: str, text: str = REPORT) -> Distilled:
    path = tmp_path / "distilled.json"
    path.write_text(json.dumps({"s5001": answer}))
    return _distil(path, text=text)


def test_template_sentences_become_statements_at_their_words(tmp_path: Path) -> None:
    told = _answer(tmp_path, "There is no nodule. There is effusion. There may be cardiomegaly.")
    said = [(s.entity, s.polarity, REPORT[s.start : s.end], s.section) for s in told.statements]
    assert said == [
        ("effusion", "present", "pleural effusion", "findings"),
        ("nodule", "absent", "nodules", "findings"),
        ("cardiomegaly", "possible", "Heart is enlarged", "findings"),
    ]
    assert told.text == "There is effusion. There is no nodule. There may be cardiomegaly."
    assert not told.dropped


@pytest.mark.parametrize(
    ("answer", "said", "dropped"),
    [
        ("there IS no COPD", {("copd", "absent")}, {}),
        ("There are no effusions.", {("effusion", "absent")}, {}),
        ("There is no effusion or mild edema.", {("effusion", "absent"), ("edema", "absent")}, {}),
        ("There is a small pleural effusion.", {("effusion", "present")}, {}),
        ("There is no zebra. Effusion.", set(), {"no entity of the lexicon": 1,
                                                 "no template sentence": 1}),
        ("", set(), {}),
        ("There is", set(), {"no template sentence": 1}),
    ],
)  # fmt: skip
def test_other_answers_of_the_model_are_read_or_dropped(
    tmp_path: Path, answer, said, dropped
) -> None:
    told = _answer(tmp_path, answer)
    assert {(s.entity, s.polarity) for s in told.statements} == said
    assert told.dropped == dropped


def test_an_entity_under_other_words_has_an_empty_span(tmp_path: Path) -> None:
    told = _answer(tmp_path, "There is no sarcoidosis.", "Clear.")
    (statement,) = told.statements
    assert (statement.start, statement.end, statement.section) == (0, 0, "")


def test_the_authors_table_is_read_by_study(tmp_path: Path) -> None:
    path = tmp_path / "entity-llm.csv"
    path.write_text(
        "img_path,report,llm_output\n"
        "files/p10/p10000032/s5001/a.jpg,x,There is edema.\n"
        "files/p10/p10000032/s5001/b.jpg,x,There is edema.\n"
        "files/p10/p10000032/s5002/c.jpg,x,There is no edema.\n"
    )
    assert _distil(path).text == "There is edema."
    assert _distil(path, "s5002").text == "There is no edema."
    assert _distil(path, "5003").error == "no published answer"


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("no.json", None, MissingError, "no such file"),
        ("a.json", "[]", DataError, "maps study ids"),
        ("a.json", "{", DataError, "cannot be read"),
        ("a.csv", "img_path,text\n", DataError, "no column 'llm_output'"),
        ("a.csv", "img_path,llm_output\nx.jpg,y\n", DataError, "line 2: no study"),
    ],
)
def test_what_is_not_a_published_file_is_named(tmp_path: Path, name, data, error, message) -> None:
    if data is not None:
        (tmp_path / name).write_text(data)
    with pytest.raises(error, match=message):
        _distil(tmp_path / name)


def test_identity_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    distiller = PublishedAnswers(PublishedAnswers.Config(path=str(path)))
    before = distiller.identity_fields()
    moved = tmp_path / "b.json"
    moved.write_text("{}")
    assert PublishedAnswers(PublishedAnswers.Config(path=str(moved))).identity_fields() == before
    path.write_text('{"s1": ""}')
    assert distiller.identity_fields() != before


def test_contract(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    answers = {"0": "There is effusion. There is no pneumothorax.", "1": "There may be mass."}
    path.write_text(json.dumps(answers))
    check_plugin("ecamp.distillers", f"published?path={path}")
