"""Scores by hand and against scikit-learn; the gold set of the IU reports; the weak truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

from ecamp.api.distiller import POLARITIES
from ecamp.distill.evaluate import (
    agreement,
    cohen_kappa,
    commonest,
    disagreements,
    evaluate,
    score,
)
from ecamp.distill.gold import place_gold, read_gold, sentence_digest
from ecamp.distill.sources import as_report, stream_reports
from ecamp.distill.weak_labels import load_mapping, read_terms, weak_recall
from ecamp.errors import DataError, MissingError
from ecamp.text.lexicon import Lexicon

GOLD = Path(__file__).parent / "gold" / "iu_sentences.jsonl"
REPORTS = {
    "a": "FINDINGS: There is an effusion. No nodule. IMPRESSION: No effusion.",
    "b": "There may be pneumonia. No nodule, and no pneumonia.",
}


def _label(text: str, sentence: str, base: int, *labels: tuple[str, str]) -> dict:
    start = text.index(sentence)
    return {
        "start": start - base, "end": start - base + len(sentence),
        "sha256": sentence_digest(sentence),
        "labels": [
            {"entity": entity, "polarity": polarity, "start": start - base,
             "end": start - base + len(sentence)}
            for entity, polarity in labels
        ],
    }  # fmt: skip


def _gold_rows() -> list[dict]:
    base = len("FINDINGS: ")
    return [
        {"id": "a", "section": "findings",
         **_label(REPORTS["a"], "There is an effusion.", base, ("effusion", "present"))},
        {"id": "a", "section": "findings",
         **_label(REPORTS["a"], "No nodule.", base, ("nodule", "absent"), ("mass", "absent"))},
        {"id": "b", "section": "",
         **_label(REPORTS["b"], "There may be pneumonia.", 0, ("pneumonia", "present"))},
        {"id": "b", "section": "",
         **_label(REPORTS["b"], "No nodule, and no pneumonia.", 0,
                  ("nodule", "absent"), ("pneumonia", "absent"))},
    ]  # fmt: skip


@pytest.fixture
def placed(tmp_path: Path):
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _gold_rows()))
    reports = [as_report(identifier, text) for identifier, text in REPORTS.items()]
    return place_gold(read_gold(path), reports)


def test_scores_by_hand(placed, toy) -> None:
    told = evaluate(placed, toy())
    # Labels: effusion present, nodule absent, mass absent, pneumonia present, nodule absent,
    # pneumonia absent. Said: the first two, pneumonia possible, the last two; "No effusion" of the
    # impression is no labelled sentence and not judged.
    assert (told.all.labels, told.all.statements, told.all.correct) == (6, 5, 4)
    assert told.all.precision.value == pytest.approx(4 / 5)
    assert told.all.recall.value == pytest.approx(4 / 6)
    assert told.all.f1.value == pytest.approx(8 / 11)
    possible = told.by_polarity["possible"]
    assert (possible.labels, possible.statements, possible.correct) == (0, 1, 0)
    assert possible.recall.value is None
    assert possible.recall.reason == "nothing is labelled"
    assert told.by_entity["mass"].as_json()["precision"] is None
    assert told.by_entity["mass"].recall.value == 0
    assert told.by_pair[("nodule", "absent")].correct == 2
    assert list(told.by_entity)[:2] == ["nodule", "pneumonia"], "most labelled first"
    assert not told.errors


def test_the_commonest_entities_by_number_then_name(placed) -> None:
    assert commonest(placed, 3) == ["nodule", "pneumonia", "effusion"]


def test_a_report_without_answer_counts_as_missed(placed, toy) -> None:
    told = evaluate(placed, toy(fails="b"))
    assert told.errors == {"b": "no answer"}
    assert (told.all.statements, told.all.correct) == (2, 2)


def test_bootstrap_interval_holds_the_value(placed, toy) -> None:
    told = evaluate(placed, toy())
    low, high = told.all.f1.interval()
    assert low is not None
    assert low <= told.all.f1.value <= high
    # Two reports: a resample is one of them twice, or both. Report a alone: 2 of 3 labels found.
    values = {round(float(v), 6) for v in told.all.f1.replicates}
    assert values == {round(v, 6) for v in (2 * 2 / (3 + 2), 2 * 2 / (3 + 3), 8 / 11)}


PAIRS = st.sets(
    st.tuples(st.integers(0, 4), st.sampled_from(["x", "y", "z"]), st.sampled_from(POLARITIES))
)


@given(PAIRS, PAIRS)
def test_scores_are_those_of_scikit_learn(expected, found) -> None:
    keys = [(i, e, p) for i in range(5) for e in "xyz" for p in POLARITIES]
    truth, said = ([key in keys_ for key in keys] for keys_ in (expected, found))
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, said, average="binary", zero_division=np.nan
    )
    ours = score(expected, found, np.ones((1, 5), np.float32))
    for mine, theirs in ((ours.precision, precision), (ours.recall, recall), (ours.f1, f1)):
        if mine.value is None:
            assert np.isnan(theirs)
        else:
            assert mine.value == pytest.approx(theirs)
            assert mine.replicates[0] == pytest.approx(theirs)


@given(st.lists(st.tuples(*[st.sampled_from(["none", *POLARITIES])] * 2), min_size=1))
def test_kappa_is_that_of_scikit_learn(pairs) -> None:
    first, second = zip(*pairs, strict=True)
    ours = cohen_kappa(first, second)
    if ours.value is None:
        assert len({*first, *second}) == 1
    else:
        assert ours.value == pytest.approx(cohen_kappa_score(first, second))


def test_agreement_of_two_distillers(placed, toy) -> None:
    first, second = evaluate(placed, toy()), evaluate(placed, toy(hedge=False))
    kappas = agreement(first, second)
    rated = {
        "effusion": (["present", *["none"] * 3],) * 2,
        "nodule": (["none", "absent", "none", "absent"],) * 2,
        "pneumonia": (["none", "none", "possible", "absent"],
                      ["none", "none", "present", "absent"]),
    }  # fmt: skip
    # "No nodule, and no pneumonia": the toy finds both.
    for name, (one, two) in rated.items():
        assert kappas[name].value == pytest.approx(cohen_kappa_score(one, two)), name
    pooled = [[kind for pair in rated.values() for kind in pair[rater]] for rater in (0, 1)]
    assert kappas["all"].value == pytest.approx(cohen_kappa_score(*pooled))


def test_disagreements_name_the_statements_of_each_source(placed, toy) -> None:
    first, second = evaluate(placed, toy()), evaluate(placed, toy(hedge=False))
    found = disagreements(placed, {"one": first, "two": second})
    assert [one.sentence.text for one in found] == ["No nodule.", "There may be pneumonia."]
    assert found[0].differing == {("mass", "absent")}
    assert found[1].differing == {("pneumonia", "possible"), ("pneumonia", "present")}
    assert list(found[1].statements) == ["gold", "one", "two"]
    assert not disagreements(placed[:1], {"one": evaluate(placed[:1], toy())})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda row: row.update(id="z"), r"gold\.jsonl line 1: no report 'z'"),
        (
            lambda row: row.update(section="technique"),
            "no section 'technique'.*findings, impression",
        ),
        (lambda row: row.update(sha256="0" * 12), "the words differ from those that were labelled"),
        (lambda row: row.pop("labels"), "line 1: not a labelled sentence: KeyError: 'labels'"),
        (lambda row: row["labels"][0].update(polarity="maybe"), "'maybe' is not one of present"),
        (lambda row: row["labels"][0].update(end=999), "lies outside its sentence"),
        (lambda row: row.update(start="x"), "ValueError"),
    ],
)
def test_gold_that_does_not_fit_is_named(tmp_path: Path, edit, message) -> None:
    rows = _gold_rows()
    edit(rows[0])
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"(?s)" + message):
        place_gold(read_gold(path), [as_report(i, text) for i, text in REPORTS.items()])


def test_no_gold_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        read_gold(tmp_path / "no.jsonl")
    (tmp_path / "g.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no labelled sentence"):
        read_gold(tmp_path / "g.jsonl")


# --- the IU reports -----------------------------------------------------------------------------


def test_the_gold_set_follows_its_guideline() -> None:
    gold = read_gold(GOLD)
    known = Lexicon.load("chest").entities
    labels = [label for sentence in gold for label in sentence.labels]
    assert len(gold) == 330
    assert all(int(sentence.report) % 2 == 0 for sentence in gold)
    assert {label.entity for label in labels} <= set(known)
    assert sum(label.polarity == "possible" for label in labels) >= 30
    assert "text" not in json.loads(GOLD.read_text().splitlines()[0])
    for sentence in gold:
        said = [(label.entity, label.polarity) for label in sentence.labels]
        assert len(set(said)) == len(said), sentence.row


@pytest.mark.real
def test_the_gold_set_fits_the_reports_and_its_draw(shared_data: Path) -> None:
    import importlib.util

    path = shared_data / "iu_reports" / "reports.csv"
    placed = place_gold(read_gold(GOLD), stream_reports(path))
    spec = importlib.util.spec_from_file_location("draw", GOLD.with_name("draw_sentences.py"))
    assert spec is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    drawn = draw.draw(path)
    assert [(s.report, s.section, s.start, s.end) for s in read_gold(GOLD)] == [
        d[:4] for d in drawn
    ]
    assert [sentence.text for sentence in placed] == [d[4] for d in drawn]
    letters = [s.text[label.start - s.start] for s in placed for label in s.labels]
    assert all(letter.isalpha() for letter in letters)


@pytest.mark.real
def test_problems_are_a_weak_truth(shared_data: Path, toy) -> None:
    path = shared_data / "iu_reports" / "reports.csv"
    terms = read_terms(path, "uid")
    assert len(terms) == 2503
    found = weak_recall(terms, load_mapping(), stream_reports(path), toy())
    assert found["effusion"].reports == sum(
        bool({"Pleural Effusion", "Pericardial Effusion"} & set(t)) for t in terms.values()
    )
    assert found["effusion"].fraction > 0.5
    assert found["cardiomegaly"].agreeing == 0, "the toy does not know the word"
    assert found["normal"].reports == 901


def test_the_mapping_names_entities_of_the_lexicon() -> None:
    assert set(load_mapping().values()) <= set(Lexicon.load("chest").entities)


def test_weak_recall_by_hand(toy) -> None:
    terms = {"a": ["Pleural Effusion", "Other"], "b": ["normal"], "c": ["normal"], "d": ["Nodule"]}
    texts = {
        "a": "An effusion.",
        "b": "No effusion.",
        "c": "A nodule.",
        "d": "No nodule.",
        "e": "x",
    }
    reports = [as_report(i, text) for i, text in texts.items()]
    found = weak_recall(terms, load_mapping(), reports, toy())
    assert {name: (one.reports, one.agreeing) for name, one in found.items()} == {
        "normal": (2, 1), "effusion": (1, 1), "nodule": (1, 0),
    }  # fmt: skip


def test_a_table_without_problems_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("uid,Problem\n1,x\n")
    with pytest.raises(DataError, match=r"no column 'Problems'\.\s+Did you mean 'Problem'"):
        read_terms(path, "uid")
