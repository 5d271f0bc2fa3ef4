"""From a model's answer to statements: what does not stand in the report is dropped and counted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ecamp.api.distiller import DESCRIPTORS, POLARITIES, Statement
from ecamp.distill.llm.prompt_text import Passage
from ecamp.distill.llm.quote_match import Forms, NormalizedText, find_quote
from ecamp.text.lexicon import Lexicon

# Why an answer, or a part of one, is refused.
NO_EVIDENCE = "evidence not in report"
NO_ENTITY = "entity not in lexicon"
NOT_NAMED = "entity not in report"
NO_DESCRIPTOR = "descriptor not in evidence"
WRONG_SCHEMA = "wrong schema"
NO_TEMPLATE = "not the template"
TWICE = "said twice"
CUT = "answer cut"

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)  # of models that think aloud
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_BULLET = re.compile(r"\A\s*(?:[-*\u2022]|\d{1,2}[.)])?\s*")
_TEMPLATES = (  # the longest first
    ("absent", re.compile(r"there (?:is|are) no (?:evidence of |signs? of )?", re.IGNORECASE)),
    ("possible", re.compile(r"there may be ", re.IGNORECASE)),
    ("present", re.compile(r"there (?:is|are) ", re.IGNORECASE)),
)
_NOTHING = re.compile(r"none|n/a|no entit(?:y|ies)(?: found)?", re.IGNORECASE)


class UnreadableAnswer(Exception):
    """Nothing can be read from the answer; says why."""


class _SaidDescriptor(BaseModel):
    kind: Literal["severity", "side", "zone", "size", "change", "kind"]
    words: str


class _Said(BaseModel):
    entity: str
    polarity: Literal["present", "possible", "absent"]
    evidence: str
    descriptors: list[_SaidDescriptor] = []


def answer_schema(lexicon: Lexicon) -> dict[str, Any]:
    """JSON schema of the answer. Written out, without references: some servers know no `$ref`."""
    descriptor = _closed({"kind": {"enum": list(DESCRIPTORS)}, "words": {}})
    statement = _closed(
        {
            "entity": {"enum": list(lexicon.entities)},
            "polarity": {"enum": list(POLARITIES)},
            "evidence": {},
            "descriptors": {"type": "array", "items": descriptor},
        }
    )
    return _closed({"statements": {"type": "array", "items": statement}})


def _closed(properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: {"type": "string", **value} for key, value in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }


class AnswerReader:
    """Reads the answers to one kind of prompt.

    Args:
        kind: `json` (statements with evidence quotes) or `template` (the published sentences).
    """

    def __init__(self, lexicon: Lexicon, kind: str) -> None:
        self._forms, self._kind = Forms(lexicon), kind

    def read(
        self, answer: str, parts: Sequence[Passage], cut: bool = False
    ) -> tuple[tuple[Statement, ...], dict[str, int]]:
        """Statements in text order, and why others were refused.

        Args:
            parts: What the model read.
            cut: Whether the model was stopped before its answer ended.

        Raises:
            UnreadableAnswer: No JSON, or no list of statements in it.
        """
        dropped: Counter[str] = Counter({CUT: 1} if cut else {})
        answer = _THOUGHT.sub("", answer)
        read = self._json if self._kind == "json" else self._template
        found = list(read(answer, parts, cut, dropped))
        kept = sorted(dict.fromkeys(found), key=lambda s: (s.start, s.end))
        if len(kept) < len(found):
            dropped[TWICE] += len(found) - len(kept)
        return tuple(kept), dict(+dropped)

    def _template(
        self, answer: str, parts: Sequence[Passage], cut: bool, dropped: Counter[str]
    ) -> Iterator[Statement]:
        sentences = [_BULLET.sub("", match[0]) for match in _SENTENCE.finditer(answer)]
        sentences = [text for text in sentences if text.strip()]
        if cut and sentences and not sentences[-1].endswith("."):
            sentences.pop()
        for sentence in sentences:
            polarity, phrase = _template_parts(sentence)
            if not polarity:
                dropped[NO_TEMPLATE] += not _NOTHING.fullmatch(phrase)
                continue
            entity = self._forms.canonical(phrase)
            # "There is mild pulmonary edema" names its entity among other words.
            entities = [entity] if entity else list(self._forms.named_in(phrase))
            dropped[NO_ENTITY] += not entities
            for entity in entities:
                statement = self._first_named(entity, polarity, parts)
                if statement is None:
                    dropped[NOT_NAMED] += 1
                else:
                    yield statement

    def _first_named(
        self, entity: str, polarity: str, parts: Sequence[Passage]
    ) -> Statement | None:  # fmt: skip
        for part in parts:
            if (found := self._forms.first(entity, part.text)) is None:
                continue
            if (span := part.sent.original_span(*found)) is not None:
                return Statement(entity, polarity, *span, part.section.name)
        return None

    def _json(
        self, answer: str, parts: Sequence[Passage], cut: bool, dropped: Counter[str]
    ) -> Iterator[Statement]:
        for item in _said_items(answer, cut):
            try:
                said = _Said.model_validate(item)
            except ValidationError:
                dropped[WRONG_SCHEMA] += 1
                continue
            entity = self._forms.canonical(said.entity)
            statement = self._checked(entity, said, parts, dropped) if entity else None
            if entity is None:
                dropped[NO_ENTITY] += 1
            elif statement is None:
                dropped[NO_EVIDENCE] += 1
            else:
                yield statement

    def _checked(
        self, entity: str, said: _Said, parts: Sequence[Passage], dropped: Counter[str]
    ) -> Statement | None:
        """The statement with its spans; None when its evidence is nowhere in the report."""
        for part in parts:
            sent = part.sent
            if (quote := find_quote(said.evidence, part.text)) is None:
                continue
            text, offset = NormalizedText(sent.text[quote[0] : quote[1]]), quote[0]
            # The words that name the entity; all of the evidence where the lexicon has no such form.
            named = self._forms.first(entity, text) or (0, len(text.source))
            span = sent.original_span(offset + named[0], offset + named[1])
            if span is None:
                continue
            descriptors = []
            for descriptor in said.descriptors:
                place = find_quote(descriptor.words, text)
                words = place and sent.original_span(offset + place[0], offset + place[1])
                if place is None or words is None:
                    dropped[NO_DESCRIPTOR] += 1
                else:
                    descriptors.append(
                        (words[0], descriptor.kind, text.source[place[0] : place[1]])
                    )
            pairs = tuple(dict.fromkeys((kind, words) for _, kind, words in sorted(descriptors)))
            return Statement(entity, said.polarity, *span, part.section.name, pairs)
        return None


def _template_parts(sentence: str) -> tuple[str, str]:
    """Polarity and what is said to be there; no polarity when the sentence is no template."""
    body = " ".join(sentence.split()).rstrip(".!? ")
    for polarity, template in _TEMPLATES:
        if match := template.match(body):
            return polarity, body[match.end() :]
    return "", body


def _said_items(answer: str, cut: bool) -> list[Any]:
    """The list of statements in an answer that may have words or a code fence around its JSON."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        value = json.loads(answer[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        value = None
    if value is None:
        raise UnreadableAnswer(
            "it was cut before its JSON ended; raise max_tokens" if cut else "it is no JSON"
        )
    items = value.get("statements") if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise UnreadableAnswer("its JSON has no list `statements`")
    return items
