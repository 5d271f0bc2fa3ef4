"""Whatever the text: no crash, spans that name their entities, no memory of other reports, linear time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.api.distiller import DESCRIPTORS, POLARITIES, Distilled, Report, Section
from ecamp.distill.rules import RulesDistiller
from ecamp.distill.rules.cues import Cues, expand_pattern
from ecamp.text.lexicon import Lexicon

CUES, LEXICON = Cues.load("english"), Lexicon.load("chest")
RULES = RulesDistiller(RulesDistiller.Config())
FORGETFUL = RulesDistiller(RulesDistiller.Config(remember=0))
OTHERS = {
    entity: [word for pattern in words for word in expand_pattern(pattern)]
    for entity, words in (
        *((entity, organ.words) for entity, organ in CUES.organs.items()),
        *CUES.aliases.items(),
    )
}
PHRASES = [
    phrase
    for words in (
        [form for forms in LEXICON.entities.values() for form in forms],
        [word for cue in CUES.cues for word in cue.words],
        [word for said in CUES.predicates for word in said.words],
        [word for words in CUES.joints.values() for word in words],
        [word for words in CUES.verbs.values() for word in words],
        [word for words in CUES.descriptors.values() for word in words],
        [word for organ in CUES.organs.values() for word in organ.words + organ.abnormal],
        [word for words in CUES.aliases.values() for word in words],
    )
    for pattern in words
    for phrase in expand_pattern(pattern)[:3]
]
# Any text; and text made of what the rules know, glued with and without care.
ANY = st.text(max_size=200)
KNOWN = st.lists(
    st.one_of(
        st.sampled_from(PHRASES),
        st.sampled_from(
            ["no", "not", "no no", "without no", "2.5 cm", "XXXX", ".", ",", "\n", "(", ")"]
        ),
        st.text(max_size=3),
    ),
    max_size=40,
).flatmap(lambda parts: st.sampled_from([" ", ", ", "", " \n"]).map(lambda glue: glue.join(parts)))


def report(text: str, name: str = "1") -> Report:
    half = len(text) // 2
    return Report(
        name, text, (Section("findings", 0, half), Section("impression", half, len(text)))
    )


def one(text: str, rules: RulesDistiller = RULES) -> Distilled:
    return next(iter(rules.distill([report(text)])))


def check(text: str, found: Distilled) -> None:
    assert found.id == "1"
    assert not found.error
    assert [s.start for s in found.statements] == sorted(s.start for s in found.statements)
    for said in found.statements:
        assert 0 <= said.start < said.end <= len(text)
        assert said.polarity in POLARITIES
        words = " ".join(text[said.start : said.end].lower().replace("-", " ").split())
        names = [*LEXICON.entities[said.entity], *OTHERS.get(said.entity, [])]
        assert any(name.replace("-", " ") in words for name in names), (said.entity, words)
        assert {kind for kind, _ in said.descriptors} <= set(DESCRIPTORS)
        assert all(words in text.lower() or words in text for _, words in said.descriptors)


@given(st.one_of(ANY, KNOWN))
@settings(max_examples=400, deadline=None)
def test_any_text(text: str) -> None:
    found = one(text)
    check(text, found)
    assert one(text, FORGETFUL) == found == one(text)


@given(st.lists(st.one_of(ANY, KNOWN), max_size=6), st.randoms())
@settings(max_examples=80, deadline=None)
def test_order_and_batch_do_not_matter(texts: list[str], shuffler: random.Random) -> None:
    reports = [report(text, str(number)) for number, text in enumerate(texts)]
    whole = list(RULES.distill(reports))
    assert [found.id for found in whole] == [r.id for r in reports]
    assert [next(iter(FORGETFUL.distill([r]))) for r in reports] == whole
    mixed = list(range(len(reports)))
    shuffler.shuffle(mixed)
    assert list(RULES.distill(reports[i] for i in mixed)) == [whole[i] for i in mixed]


@given(KNOWN, KNOWN)
@settings(max_examples=80, deadline=None)
def test_a_section_is_read_alone(first: str, second: str) -> None:
    """One section does not affect another; text outside sections is not read."""
    text = f"{first}No effusion {second}"
    middle = len(first)
    whole = Report("1", text, (Section("a", 0, middle), Section("b", middle + 12, len(text))))
    said = next(iter(RULES.distill([whole]))).statements
    alone = [
        (s.entity, s.polarity, s.start + shift)
        for part, shift in ((text[:middle], 0), (text[middle + 12 :], middle + 12))
        for s in next(
            iter(RULES.distill([Report("1", part, (Section("", 0, len(part)),))]))
        ).statements
    ]
    assert [(s.entity, s.polarity, s.start) for s in said] == alone


def test_reports_are_streamed() -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield report("No effusion. Opacity.")

    results = iter(RULES.distill(endless()))  # type: ignore[arg-type]
    assert next(results).statements
    assert taken <= 2


MEGABYTE = [
    "no ", "no effusion ", "no effusion, ", "effusion and ", "no (effusion ", "( ", ") ", "is not seen ",
    "normal heart and ", "the aorta is tortuous and ", "effusion or ", "possible ", "1.5 x ", "2 cm ", "small ",
    "a'", "no change in the ", "enlargement of the cardiac ", "heart is ", "effusion. ", "\n", ": ", "XXXX ",
    "\u0130", "no significant interval ", "?", "-", " - ", "_",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("unit", MEGABYTE)
@pytest.mark.timeout(600)
def test_a_megabyte_takes_linear_time(unit: str) -> None:
    """Ends in a second or two; what grows with the square takes hours for this much."""
    text = unit * (1_000_000 // len(unit))
    found = one(text)
    assert not found.error
    assert all(0 <= s.start < s.end <= len(text) for s in found.statements)


def test_memory_is_bounded() -> None:
    rules = RulesDistiller(RulesDistiller.Config(remember=10))
    texts = (f"Effusion of {n} mm. {f'Word {n} ' * 200} effusion." for n in range(300))
    assert sum(len(found.statements) for found in rules.distill(map(report, texts))) >= 300
    info = rules._read_cached.cache_info()
    assert info.currsize <= 10
    assert info.misses <= 400  # long sentences are not kept at all
