"""Marked report templates: marks become statements with their exact spans.

`[words|entity]` marks words that name an entity of the chest lexicon; the entity may be omitted if it
equals the words, and several are separated by commas. A sign after the opening bracket is the polarity:
`[nodule]` present, `[?nodule]` possible, `[-pleural effusion|effusion]` absent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ecamp.api.distiller import Statement

_SIGNS = {"": "present", "?": "possible", "-": "absent"}
_MARK = re.compile(r"\[([?-]?)([^]|]+)(?:\|([^]]+))?\]")


def set_polarity(marked: str, sign: str) -> str:
    """Give every mark of a phrase a sign: `set_polarity("[nodule]", "-") == "[-nodule]"`."""
    return marked.replace("[", f"[{sign}")


def parse_marked_report(
    sections: Sequence[tuple[str, str]], separator: str
) -> tuple[str, tuple[Statement, ...]]:
    """Join the sections of a report and parse its marks.

    Args:
        sections: (heading, marked body); the heading precedes the body unchanged, with its colon
            and space; without them, in lower case, it is the name of the section.
        separator: Text between sections.

    Returns:
        The report without marks, and its statements in text order.
    """
    pieces: list[str] = []
    statements: list[Statement] = []
    length = 0

    def add(piece: str) -> None:
        nonlocal length
        pieces.append(piece)
        length += len(piece)

    for number, (heading, body) in enumerate(sections):
        add((separator if number else "") + heading)
        name = heading.strip().removesuffix(":").lower()
        position = 0
        for mark in _MARK.finditer(body):
            sign, words, entities = mark.groups()
            add(body[position : mark.start()])
            for entity in (entities or words.lower()).split(","):
                statements.append(
                    Statement(entity, _SIGNS[sign], length, length + len(words), name)
                )
            add(words)
            position = mark.end()
        add(body[position:])
    return "".join(pieces), tuple(statements)
