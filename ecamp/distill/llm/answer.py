"""Parses a model's answer into statements; those that the report does not support are dropped."""

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

# Reasons for which an answer, or a part of one, is dropped; keys of `dropped` in distilled files.
NO_EVIDENCE = "evidence not in report"
NO_ENTITY = "entity not in lexicon"
NOT_IN_REPORT = "entity not in report"
NO_DESCRIPTOR = "descriptor not in evidence"
WRONG_SCHEMA = "wrong schema"
NO_TEMPLATE = "not the template"
DUPLICATE = "said twice"
CUT = "answer cut"

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)  # of reasoning models
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_BULLET = re.compile(r"\A\s*(?:[-*\u2022]|\d{1,2}[.)])?\s*")
_TEMPLATES = (  # the longest first
    ("absent", re.compile(r"there (?:is|are) no (?:evidence of |signs? of )?", re.IGNORECASE)),
    ("possible", re.compile(r"there may be ", re.IGNORECASE)),
    ("present", re.compile(r"there (?:is|are) ", re.IGNORECASE)),
)
_NOTHING = re.compile(r"none|n/a|no entit(?:y|ies)(?: found)?", re.IGNORECASE)


class UnreadableAnswer(Exception):
    """Nothing can be read from the answer; the message contains the reason."""


class _AnswerDescriptor(BaseModel):
    kind: Literal["severity", "side", "zone", "size", "change", "kind"]
    words: str


class _AnswerStatement(BaseModel):
    entity: str
    polarity: Literal["present", "possible", "absent"]
    evidence: str
    descriptors: list[_AnswerDescriptor] = []


def answer_schema(lexicon: Lexicon) -> dict[str, Any]:
    """Build the JSON schema of the answer, without references: some servers do not support `$ref`."""
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
        lexicon: Entities with their surface forms.
        answer_format: `json` (statements with evidence quotes) or `template` (the published
            sentences).
    """

    def __init__(self, lexicon: Lexicon, answer_format: str) -> None:
        self._forms, self._format = Forms(lexicon), answer_format

    def read(
        self, answer: str, parts: Sequence[Passage], cut: bool = False
    ) -> tuple[tuple[Statement, ...], dict[str, int]]:
        """Parse an answer.

        Args:
            answer: Text of the model.
            parts: Passages that the model was given.
            cut: Whether the model was stopped before its answer ended.

        Returns:
            Statements in text order; reason -> number of dropped statements or descriptors.

        Raises:
            UnreadableAnswer: The answer is not JSON, or contains no list of statements.
        """
        dropped: Counter[str] = Counter({CUT: 1} if cut else {})
        answer = _THOUGHT.sub("", answer)
        parse = self._json if self._format == "json" else self._template
        statements = list(parse(answer, parts, cut, dropped))
        kept = sorted(dict.fromkeys(statements), key=lambda s: (s.start, s.end))
        if len(kept) < len(statements):
            dropped[DUPLICATE] += len(statements) - len(kept)
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
                statement = self._first_mention(entity, polarity, parts)
                if statement is None:
                    dropped[NOT_IN_REPORT] += 1
                else:
                    yield statement

    def _first_mention(
        self, entity: str, polarity: str, parts: Sequence[Passage]
    ) -> Statement | None:  # fmt: skip
        for part in parts:
            if (mention := self._forms.first(entity, part.text)) is None:
                continue
            if (span := part.sent.original_span(*mention)) is not None:
                return Statement(entity, polarity, *span, part.section.name)
        return None

    def _json(
        self, answer: str, parts: Sequence[Passage], cut: bool, dropped: Counter[str]
    ) -> Iterator[Statement]:
        for item in _statement_items(answer, cut):
            try:
                claim = _AnswerStatement.model_validate(item)
            except ValidationError:
                dropped[WRONG_SCHEMA] += 1
                continue
            entity = self._forms.canonical(claim.entity)
            statement = self._checked(entity, claim, parts, dropped) if entity else None
            if entity is None:
                dropped[NO_ENTITY] += 1
            elif statement is None:
                dropped[NO_EVIDENCE] += 1
            else:
                yield statement

    def _checked(
        self,
        entity: str,
        claim: _AnswerStatement,
        parts: Sequence[Passage],
        dropped: Counter[str],
    ) -> Statement | None:
        """Locate a statement in the report; None when its evidence is not in it."""
        for part in parts:
            sent = part.sent
            if (quote := find_quote(claim.evidence, part.text)) is None:
                continue
            text, offset = NormalizedText(sent.text[quote[0] : quote[1]]), quote[0]
            # The words that name the entity; all of the evidence if the lexicon has no form in it.
            mention = self._forms.first(entity, text) or (0, len(text.source))
            span = sent.original_span(offset + mention[0], offset + mention[1])
            if span is None:
                continue
            descriptors = []
            for descriptor in claim.descriptors:
                match = find_quote(descriptor.words, text)
                original = match and sent.original_span(offset + match[0], offset + match[1])
                if match is None or original is None:
                    dropped[NO_DESCRIPTOR] += 1
                else:
                    words = text.source[match[0] : match[1]]
                    descriptors.append((original[0], descriptor.kind, words))
            pairs = tuple(dict.fromkeys((kind, words) for _, kind, words in sorted(descriptors)))
            return Statement(entity, claim.polarity, *span, part.section.name, pairs)
        return None


def _template_parts(sentence: str) -> tuple[str, str]:
    """Split a sentence into polarity and phrase; the polarity is empty if no template matches."""
    body = " ".join(sentence.split()).rstrip(".!? ")
    for polarity, template in _TEMPLATES:
        if match := template.match(body):
            return polarity, body[match.end() :]
    return "", body


def _statement_items(answer: str, cut: bool) -> list[Any]:
    """Extract the list of statements; text or a code fence around the JSON is ignored."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        value = json.loads(answer[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        value = None
    if value is None:
        raise UnreadableAnswer(
            "it was cut before its JSON ended; raise max_tokens" if cut else "it is not JSON"
        )
    items = value.get("statements") if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise UnreadableAnswer("its JSON contains no list `statements`")
    return items
