"""Scopes of cues and predicates: two walks over the parts of a sentence, one from each side.

The nearest cue on a side counts. What a joint does to a scope is said in `_reaches_on` (to the right)
and `_reaches_back` (to the left). Both walks take time linear in the words.
"""

from __future__ import annotations

from itertools import pairwise

from ecamp.distill.rules.clauses import Item, Part


def walk_forward(parts: list[Part]) -> None:
    """Note on each entity and predicate what stands before it and reaches it."""
    cue, said = "", None  # kind of the cue in force; the predicate in force
    outer: list[str] = []  # cues in force before each open bracket
    for part in parts:
        if part.joint == "open":
            outer.append(cue)
        elif part.joint == "close":
            cue = outer.pop() if outer else ""
        elif not _reaches_on(cue, part):
            cue = ""
        if said is not None and not _names_more(said, part):
            said = None
        finding: Item | None = None  # the last one that no verb follows
        before: Item | None = None
        for item in part.items:
            phrase = item.phrase
            if phrase.cue and _looks_ahead(item):
                fresh = part.joint in ("comma", "and") and item.first == part.first
                if not (cue == "absent" and phrase.cue == "possible" and not fresh):
                    cue = phrase.cue  # "no evidence to suggest" denies, "no X, possible Y" does not
            item.forward = cue
            if phrase.predicate or phrase.enlarges:
                said = item if phrase.predicate_direction != "backward" else None
            elif phrase.findings:
                if said is not None and said.end == item.first:
                    said.used = True  # "prominent nodule": not of a structure before
                if before is not None and _only_a_place(before, item):
                    before.place = True  # "hilar mass", "aortic calcification"
                said, finding = None, item
            elif phrase.names:
                item.place = finding is not None and finding.end < item.first
                if said is not None and not item.place and _fits(said, item):
                    item.predicate = said
                    said.used = said.used or said.part == item.part
            elif phrase.verb:
                finding = None
            if phrase.names or phrase.verb:
                before = item


def walk_backward(parts: list[Part]) -> None:
    """Note on each entity and predicate what stands behind it and reaches it."""
    cue, said = "", None
    many = False  # whether the verb behind is a plural: "A, B, C are normal" lists without "and"
    outer: list[str] = []
    for number in range(len(parts) - 1, -1, -1):
        part = parts[number]
        for item in reversed(part.items):
            phrase = item.phrase
            if phrase.cue and not _looks_ahead(item):
                cue = phrase.cue
            item.backward = cue
            if phrase.predicate or phrase.enlarges:
                both = part.verb and phrase.predicate == "normal"  # "is normal in size and contour"
                if phrase.predicate_direction != "forward" and (both or not item.used):
                    said = item
            elif phrase.names and not phrase.findings and said is not None and _free(item, said):
                item.predicate = said
        if part.joint == "close":
            outer.append(cue)
        elif part.joint == "open":
            cue = outer.pop() if outer else ""
        elif number:
            before = parts[number - 1]
            many = part.verb == "plural" or (many and not part.verb)
            reaches = _reaches_back(part, before)
            if not reaches or (before.cue and part.joint != "relative"):
                cue = ""
            elif part.joint == "and" and part.verb == "singular" and not part.opens:
                cue = ""  # "effusion and pneumonia IS not excluded" speaks of one of them
            listed = many and part.joint == "comma" and not before.verb
            if not (reaches or listed):
                said = None


def mark_choices(parts: list[Part]) -> None:
    """Note which entities are alternatives: "atelectasis or scarring", "edema versus infection".

    "or" must stand right beside the entity: "opacity in the base or apex" is no choice of opacities.
    """
    for before, part in pairwise(parts):
        if part.joint not in ("or", "versus"):
            continue
        for item in reversed(before.items):
            if item.phrase.names:
                item.choice = item.choice or part.joint == "versus" or item.end == part.start
                break
        for item in part.items:
            if item.phrase.names:
                item.choice = True
            if not item.phrase.descriptors or item.phrase.names:
                break


def _looks_ahead(cue: Item) -> bool:
    direction = cue.phrase.cue_direction
    return direction == "forward" or (direction == "either" and cue.ahead)


def _free(structure: Item, said: Item) -> bool:
    return structure.predicate is None and not structure.place and _fits(said, structure)


def _fits(said: Item, named: Item) -> bool:
    """Whether a predicate can be said of a structure or organ."""
    if said.phrase.predicate == "normal" or (said.phrase.predicate and named.phrase.structures):
        return True
    return any(organ in said.phrase.enlarges for organ in named.phrase.organs)


def _only_a_place(structure: Item, finding: Item) -> bool:
    """Whether a structure stands right before a finding ("left hilar calcified nodule")."""
    names_place = structure.phrase.names and not structure.phrase.findings
    return names_place and finding.first - structure.end <= 1


def _reaches_on(cue: str, part: Part) -> bool:
    """Whether a cue's scope goes on behind the joint of a part."""
    joint = part.joint
    if joint in ("or", "versus", "relative"):
        return True
    if joint == "and":
        return not part.asserts
    if joint == "comma":
        return not part.asserts and (cue == "absent" or part.listed)
    return False


def _names_more(said: Item, part: Part) -> bool:
    """Whether a predicate goes on behind a joint: "normal heart size and mediastinal contours"."""
    if part.verb or part.joint not in ("and", "or", "comma") or said.phrase.predicate != "normal":
        return False
    if not said.used:
        return part.joint == "and"  # "normal size and shape of the heart"
    return not part.names or _starts_with_name(part)


def _starts_with_name(part: Part) -> bool:
    """Whether an entity comes first, but for side and zone: not "clips at the left hilum"."""
    at = part.first
    for item in part.items:
        phrase = item.phrase
        if item.first != at or "change" in phrase.descriptors:
            return False
        if phrase.names:
            return True
        at = item.end
    return False


def _reaches_back(part: Part, before: Part) -> bool:
    """Whether what is said at the end of a part is said of the part before as well."""
    if part.joint == "colon":
        return not part.names
    if part.joint == "relative":
        return True
    if part.joint in ("and", "or", "versus", "comma"):
        if part.opens:
            return True
        return not before.verb and (part.joint != "comma" or part.listed)
    return False
