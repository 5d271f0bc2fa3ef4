"""Scopes of cues and predicates: two walks over the parts of a sentence, one from each side.

On each side the nearest cue counts. `_reaches_on` (to the right) and `_reaches_back` (to the left) decide
whether a scope crosses a connective. Both walks take time linear in the number of words.
"""

from __future__ import annotations

from itertools import pairwise

from ecamp.distill.rules.clauses import Item, Part


def walk_forward(parts: list[Part]) -> None:
    """Set on each entity and predicate the cue and predicate before it in whose scope it lies."""
    cue, predicate = "", None  # kind of the cue in force; the predicate in force
    outer: list[str] = []  # cues in force before each open bracket
    for part in parts:
        if part.connective == "open":
            outer.append(cue)
        elif part.connective == "close":
            cue = outer.pop() if outer else ""
        elif not _reaches_on(cue, part):
            cue = ""
        if predicate is not None and not _continues(predicate, part):
            predicate = None
        finding: Item | None = None  # the last finding, until a verb follows
        before: Item | None = None
        for item in part.items:
            phrase = item.phrase
            if phrase.cue and _applies_forward(item):
                fresh = part.connective in ("comma", "and") and item.first == part.first
                # "no evidence to suggest" denies, "no X, possible Y" does not deny Y.
                if not (cue == "absent" and phrase.cue == "possible" and not fresh):
                    cue = phrase.cue
            item.forward = cue
            if phrase.predicate or phrase.enlarges:
                predicate = item if phrase.predicate_direction != "backward" else None
            elif phrase.findings:
                if predicate is not None and predicate.end == item.first:
                    predicate.used = (
                        True  # "prominent nodule": does not apply to a structure before
                    )
                if before is not None and _only_locates(before, item):
                    before.is_location = True  # "hilar mass", "aortic calcification"
                predicate, finding = None, item
            elif phrase.names:
                item.is_location = finding is not None and finding.end < item.first
                if predicate is not None and not item.is_location and _fits(predicate, item):
                    item.predicate = predicate
                    predicate.used = predicate.used or predicate.part == item.part
            elif phrase.verb:
                finding = None
            if phrase.names or phrase.verb:
                before = item


def walk_backward(parts: list[Part]) -> None:
    """Set on each entity and predicate the cue and predicate after it in whose scope it lies."""
    cue, predicate = "", None
    plural = (
        False  # whether the verb after it is plural: "A, B, C are normal" is a list without "and"
    )
    outer: list[str] = []
    for number in range(len(parts) - 1, -1, -1):
        part = parts[number]
        for item in reversed(part.items):
            phrase = item.phrase
            if phrase.cue and not _applies_forward(item):
                cue = phrase.cue
            item.backward = cue
            if phrase.predicate or phrase.enlarges:
                # "The heart is normal in size and contour": it applies to both sides.
                both = part.verb and phrase.predicate == "normal"
                if phrase.predicate_direction != "forward" and (both or not item.used):
                    predicate = item
            elif phrase.names and not phrase.findings and _may_apply(predicate, item):
                item.predicate = predicate
        if part.connective == "close":
            outer.append(cue)
        elif part.connective == "open":
            cue = outer.pop() if outer else ""
        elif number:
            before = parts[number - 1]
            plural = part.verb == "plural" or (plural and not part.verb)
            reaches = _reaches_back(part, before)
            if not reaches or (before.cue and part.connective != "relative"):
                cue = ""
            elif part.connective == "and" and part.verb == "singular" and not part.elliptic:
                cue = ""  # "effusion and pneumonia IS not excluded" is about one of them
            listed = plural and part.connective == "comma" and not before.verb
            if not (reaches or listed):
                predicate = None


def mark_choices(parts: list[Part]) -> None:
    """Mark entities that are alternatives: "atelectasis or scarring", "edema versus infection".

    "or" must be adjacent to the entity: "opacity in the base or apex" is not a choice of opacities.
    """
    for before, part in pairwise(parts):
        if part.connective not in ("or", "versus"):
            continue
        for item in reversed(before.items):
            if item.phrase.names:
                item.choice = item.choice or part.connective == "versus" or item.end == part.start
                break
        for item in part.items:
            if item.phrase.names:
                item.choice = True
            if not item.phrase.descriptors or item.phrase.names:
                break


def _applies_forward(cue: Item) -> bool:
    direction = cue.phrase.cue_direction
    return direction == "forward" or (direction == "either" and cue.followed_by_target)


def _may_apply(predicate: Item | None, item: Item) -> bool:
    """Decide whether a predicate after a structure or organ applies to it."""
    if predicate is None or item.predicate is not None or item.is_location:
        return False
    return _fits(predicate, item)


def _fits(predicate: Item, item: Item) -> bool:
    """Decide whether a predicate can apply to a structure or organ."""
    kind = predicate.phrase.predicate
    if kind == "normal" or (kind and item.phrase.structures):
        return True
    return any(organ in predicate.phrase.enlarges for organ in item.phrase.organs)


def _only_locates(structure: Item, finding: Item) -> bool:
    """Decide whether a structure comes right before a finding ("left hilar calcified nodule")."""
    names_place = structure.phrase.names and not structure.phrase.findings
    return names_place and finding.first - structure.end <= 1


def _reaches_on(cue: str, part: Part) -> bool:
    """Decide whether the scope of a cue continues into a part, across its connective."""
    connective = part.connective
    if connective in ("or", "versus", "relative"):
        return True
    if connective == "and":
        return not part.asserts
    if connective == "comma":
        return not part.asserts and (cue == "absent" or part.listed)
    return False


def _continues(predicate: Item, part: Part) -> bool:
    """Decide whether a predicate continues into a part: "normal heart size and mediastinal contours"."""
    if part.verb or part.connective not in ("and", "or", "comma"):
        return False
    if predicate.phrase.predicate != "normal":
        return False
    if not predicate.used:
        return part.connective == "and"  # "normal size and shape of the heart"
    return not part.names or _starts_with_name(part)


def _starts_with_name(part: Part) -> bool:
    """Decide whether an entity comes first, side and zone aside: not "clips at the left hilum"."""
    position = part.first
    for item in part.items:
        phrase = item.phrase
        if item.first != position or "change" in phrase.descriptors:
            return False
        if phrase.names:
            return True
        position = item.end
    return False


def _reaches_back(part: Part, before: Part) -> bool:
    """Decide whether a cue or predicate at the end of a part applies to the part before as well."""
    if part.connective == "colon":
        return not part.names
    if part.connective == "relative":
        return True
    if part.connective in ("and", "or", "versus", "comma"):
        if part.elliptic:
            return True
        return not before.verb and (part.connective != "comma" or part.listed)
    return False
