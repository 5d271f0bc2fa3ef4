"""Marked report templates: marks become statements with their exact spans.

`[words|entity]` marks the words that name an entity of the chest lexicon; the entity may be left out
where it equals the words, and several are parted by commas. A sign behind the bracket is the
polarity: `[nodule]` present, `[?nodule]` possible, `[-pleural effusion|effusion]` absent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ecamp.api.distiller import Statement

_SIGNS = {"": "present", "?": "possible", "-": "absent"}
_MARK = re.compile(r"\[([?-]?)([^]|]+)(?:\|([^]]+))?\]")


def signed(marked: str, sign: str) -> str:
    """Give every mark of a phrase a sign: `signed("[nodule]", "-") == "[-nodule]"`."""
    return marked.replace("[", f"[{sign}")


def parse_marked_report(
    sections: Sequence[tuple[str, str]], between: str
) -> tuple[str, tuple[Statement, ...]]:
    """Put a report together and read its marks.

    Args:
        sections: (heading, marked body); the heading stands before the body as it is, with its
            colon and space, and without them (lower case) names the section.
        between: What parts the sections.

    Returns:
        The report without marks, and what it says, in text order.
    """
    pieces: list[str] = []
    statements: list[Statement] = []
    length = 0

    def add(piece: str) -> None:
        nonlocal length
        pieces.append(piece)
        length += len(piece)

    for number, (heading, body) in enumerate(sections):
        add((between if number else "") + heading)
        name = heading.strip().removesuffix(":").lower()
        at = 0
        for mark in _MARK.finditer(body):
            sign, words, entities = mark.groups()
            add(body[at : mark.start()])
            for entity in (entities or words.lower()).split(","):
                statements.append(
                    Statement(entity, _SIGNS[sign], length, length + len(words), name)
                )
            add(words)
            at = mark.end()
        add(body[at:])
    return "".join(pieces), tuple(statements)
