"""From answers to statements: quotes of the report are kept, the rest is dropped and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.api.distiller import POLARITIES, Report, Section, Statement
from ecamp.distill.llm.answer import AnswerReader, UnreadableAnswer, _AnswerStatement, answer_schema
from ecamp.distill.llm.prompt import Prompt
from ecamp.distill.llm.prompt_text import passages, prompt_text
from ecamp.distill.llm.quote_match import NormalizedText, find_quote
from ecamp.text.lexicon import Lexicon

CHEST = Lexicon.load("chest")
TEXT = "FINDINGS: The heart is Mildly  Enlarged.\nSmall left pleural effusion. IMPRESSION: No pneumothorax."


def make(text: str = TEXT) -> Report:
    sections = []
    for name in ("FINDINGS", "IMPRESSION"):
        if (position := text.find(name + ": ")) >= 0:
            start = position + len(name) + 2
            end = text.find("IMPRESSION") if name == "FINDINGS" else len(text)
            sections.append(Section(name.lower(), start, end))
    return Report("1", text, tuple(sections) or (Section("", 0, len(text)),))


def read(
    kind: str, answer: str, report: Report, **options: Any
) -> tuple[list[Any], dict[str, int]]:
    parts = passages(report, options.pop("redacting", False))
    statements, dropped = AnswerReader(CHEST, kind).read(answer, parts, **options)
    said = [(s.entity, s.polarity, report.text[s.start : s.end]) for s in statements]
    return said, dropped


def said(
    entity: str, polarity: str, evidence: str, *descriptors: tuple[str, str]
) -> dict[str, Any]:
    found = [{"kind": kind, "words": words} for kind, words in descriptors]
    return {"entity": entity, "polarity": polarity, "evidence": evidence, "descriptors": found}


def as_json(*items: Any) -> str:
    return json.dumps({"statements": items})


# --- JSON ----------------------------------------------------------------------------------------


def test_statements_with_their_spans() -> None:
    answer = as_json(
        said("pneumothorax", "absent", "No pneumothorax"),
        said(
            "effusion",
            "present",
            "Small left pleural effusion",
            ("side", "left"),
            ("size", "Small"),
        ),
        said("cardiomegaly", "present", "heart is mildly enlarged", ("severity", "mildly")),
    )
    report = make()
    statements, dropped = AnswerReader(CHEST, "json").read(answer, passages(report, False))
    assert dropped == {}
    assert [(s.entity, report.text[s.start : s.end], s.section, s.descriptors) for s in statements] == [
        # The lexicon has no such form, so the span is all of the evidence, found folded.
        ("cardiomegaly", "heart is Mildly  Enlarged", "findings", (("severity", "Mildly"),)),
        # The words that name it, not all of the evidence; descriptors in text order.
        ("effusion", "pleural effusion", "findings", (("size", "Small"), ("side", "left"))),
        ("pneumothorax", "pneumothorax", "impression", ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (said("effusion", "present", "large right effusion"), "evidence not in report"),
        (said("effusion", "present", ""), "evidence not in report"),
        (said("effusion", "present", "effusio"), "evidence not in report"),  # cuts a word
        (said("effusion", "present", "effusion. IMPRESSION: No"), "evidence not in report"),
        (said("unicorn", "present", "effusion"), "entity not in lexicon"),
        (said("effusion", "maybe", "effusion"), "wrong schema"),
        ({"entity": "effusion"}, "wrong schema"),
        ({**said("effusion", "present", "effusion"), "descriptors": "left"}, "wrong schema"),
        ({**said("effusion", "present", "effusion"), "evidence": 3}, "wrong schema"),
        (None, "wrong schema"),
        ("effusion", "wrong schema"),
    ],
)
def test_invalid_statements_are_dropped(item: Any, reason: str) -> None:
    good = said("pneumothorax", "absent", "pneumothorax")
    found, dropped = read("json", as_json(item, good), make())
    assert found == [("pneumothorax", "absent", "pneumothorax")]
    assert dropped == {reason: 1}


def test_a_form_maps_to_its_entity_and_repeats_are_dropped() -> None:
    item = said("Pleural  Effusion", "present", "pleural effusion")
    found, dropped = read("json", as_json(item, item), make())
    assert found == [("effusion", "present", "pleural effusion")]
    assert dropped == {"said twice": 1}


def test_a_descriptor_outside_the_evidence_is_dropped_alone() -> None:
    item = said("effusion", "present", "pleural effusion", ("severity", "massive"))
    found, dropped = read("json", as_json(item), make())
    assert found == [("effusion", "present", "pleural effusion")]
    assert dropped == {"descriptor not in evidence": 1}


@pytest.mark.parametrize(
    "answer",
    ["Here it is:\n```json\n{}\n```", "<think>{not this}</think>\n{}", "{}", "\n {} hope it helps"],
)
def test_json_among_words(answer: str) -> None:
    body = as_json(said("pneumothorax", "absent", "pneumothorax"))
    found, dropped = read("json", answer.replace("{}", body), make())
    assert found == [("pneumothorax", "absent", "pneumothorax")]
    assert dropped == {}


@pytest.mark.parametrize(
    ("answer", "cut", "words"),
    [
        ("", False, "not JSON"),
        ("I cannot help.", False, "not JSON"),
        ('{"statements": [', True, "raise max_tokens"),
        ("[" * 100_000, False, "not JSON"),
        ('{"a": ' + "[" * 100_000 + "}", False, "not JSON"),
        ('{"statements": 3}', False, "statements"),
        ('{"findings": []}', False, "statements"),
    ],
)
def test_unreadable_answers_are_explained(answer: str, cut: bool, words: str) -> None:
    with pytest.raises(UnreadableAnswer, match=words):
        read("json", answer, make(), cut=cut)


def test_the_schema_matches_the_validation() -> None:
    """The schema is written by hand; its required keys and enums are those of the model."""
    item = answer_schema(CHEST)["properties"]["statements"]["items"]
    assert item["required"] == list(_AnswerStatement.model_fields)
    assert item["properties"]["polarity"]["enum"] == list(POLARITIES)
    assert item["properties"]["entity"]["enum"] == list(CHEST.entities)
    reference = _AnswerStatement.model_json_schema()["$defs"]["_AnswerDescriptor"]["properties"]
    ours = item["properties"]["descriptors"]["items"]["properties"]
    assert ours["kind"]["enum"] == reference["kind"]["enum"]
    assert list(ours) == list(reference)
    assert "$ref" not in json.dumps(answer_schema(CHEST))


# --- the published template ------------------------------------------------------------------------


def test_the_published_template() -> None:
    answer = "There is pleural effusion. There may be cardiomegaly.\n- There is no pneumothorax."
    found, dropped = read("template", answer, make())
    assert found == [
        ("effusion", "present", "pleural effusion"), ("pneumothorax", "absent", "pneumothorax"),
    ]  # fmt: skip
    assert dropped == {"entity not in report": 1}  # no form of cardiomegaly appears there


def test_the_first_mention_is_the_span() -> None:
    report = make("FINDINGS: Effusion, left. IMPRESSION: pleural effusions.")
    statements, _ = AnswerReader(CHEST, "template").read(
        "There is effusion.", passages(report, False)
    )
    assert statements == (Statement("effusion", "present", 10, 18, "findings"),)


@pytest.mark.parametrize(
    ("answer", "found", "dropped"),
    [
        ("None.", [], {}),
        ("", [], {}),
        ("Sure! There is effusion.", [("effusion", "present")], {"not the template": 1}),
        ("1. There is no evidence of pneumothorax", [("pneumothorax", "absent")], {}),
        ("there is small left EFFUSION.", [("effusion", "present")], {}),
        ("There is no effusion or pneumothorax.",
         [("effusion", "absent"), ("pneumothorax", "absent")], {}),
        ("There is a unicorn.", [], {"entity not in lexicon": 1}),
        ("There is effusion. There is effusion.", [("effusion", "present")], {"said twice": 1}),
        ("There is.", [], {"not the template": 1}),
    ],
)  # fmt: skip
def test_template_sentences(answer: str, found: list[Any], dropped: dict[str, int]) -> None:
    said_, drops = read("template", answer, make())
    assert [item[:2] for item in said_] == found
    assert drops == dropped


def test_a_cut_answer_keeps_its_whole_sentences() -> None:
    found, dropped = read("template", "There is effusion. There is no pneumo", make(), cut=True)
    assert found == [("effusion", "present", "pleural effusion")]
    assert dropped == {"answer cut": 1}


# --- redaction, sections, quotes -------------------------------------------------------------------


def test_spans_are_of_the_original_when_redacted() -> None:
    text = (
        "FINDINGS: Since 01/02/2020 (Dr. Smith) small pleural effusion. IMPRESSION: Smith agrees."
    )
    report = make(text)
    parts = passages(report, True)
    assert prompt_text(parts) == (
        "FINDINGS: Since [DATE] (Dr. [NAME]) small pleural effusion. \nIMPRESSION: [NAME] agrees."
    )
    found, dropped = read(
        "json",
        as_json(
            said("effusion", "present", "small pleural effusion"),
            said("chf", "present", "[DATE] (Dr. [NAME])"),  # whole marks: the words they hide
            said("mass", "present", "DATE] (Dr."),  # a mark cut in two
            said("nodule", "present", "01/02/2020"),  # was not sent
        ),
        report,
        redacting=True,
    )
    assert found == [
        ("chf", "present", "01/02/2020 (Dr. Smith)"), ("effusion", "present", "pleural effusion"),
    ]  # fmt: skip
    assert dropped == {"evidence not in report": 2}


def test_only_findings_sections_are_sent_and_no_other_heading() -> None:
    text = "JOHN DOE: Clear. FINDINGS: Opacity."
    report = Report("1", text, (Section("john doe", 10, 16), Section("findings", 27, 35)))
    assert prompt_text(passages(report, False)) == "Clear.\nFINDINGS: Opacity."


@given(st.text(max_size=60), st.data())
def test_every_quote_of_whole_words_is_found(text: str, data: st.DataObject) -> None:
    words = text.split()
    if not words:
        return
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    quote = find_quote("  ".join(words[start:end]).casefold(), NormalizedText(text))
    assert quote is not None
    assert text[slice(*quote)].casefold().split() == " ".join(words[start:end]).casefold().split()


@given(
    st.text(max_size=300),
    st.sampled_from(["json", "template"]),
    st.booleans(),
    st.text(max_size=80),
)
def test_any_answer_to_any_report(answer: str, kind: str, cut: bool, text: str) -> None:
    report = Report("1", text, (Section("", 0, len(text)),))
    try:
        statements, _ = AnswerReader(CHEST, kind).read(answer, passages(report, False), cut)
    except UnreadableAnswer:
        return
    for statement in statements:
        assert 0 <= statement.start < statement.end <= len(text)


FRAGMENTS = st.sampled_from(
    ["There is ", "There may be ", "There is no ", "effusion", "pleural effusion", ".", " ", "\n", "mass",
     "massive", "None", "- "]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=30).map("".join), st.booleans())
def test_template_answers_never_leave_the_report(answer: str, cut: bool) -> None:
    report = make("FINDINGS: A massive  Pleural\nEffusion.")
    found, _ = read("template", answer, report, cut=cut)
    assert {item[0] for item in found} <= {"effusion"}
    assert {item[2] for item in found} <= {"Pleural\nEffusion"}


def test_prompts_are_filled_once() -> None:
    for name in ("statements-1", "template-1"):
        system, user = Prompt.load(name).messages("Odd {entities} and {report}.", CHEST)
        assert "atelectasis, bronchiectasis" in system["content"]
        assert user["content"] == "Report:\nOdd {entities} and {report}."
