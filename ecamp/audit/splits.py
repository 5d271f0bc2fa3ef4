"""What is wrong with a split, seen from its lists alone: leaks, fractions, labels, boxes.

Each check is a function from lists to findings; none looks at an image (`audit_images` does). A
`leak` makes test scores too good; an `error` is data that cannot be right; a `note` is what a reader
of the numbers must know.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

EXAMPLES = 5
_EYE = re.compile(r"_(left|right)\.\w+$", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One image as a list names it.

    Attributes:
        image: Path or id. patient: None where it is not known.
        labels: Values by class; None = unknown. boxes: (x1, y1, x2, y2) in pixels of `size`.
        row: Where it stands, for messages.
    """

    image: str
    patient: str | None = None
    labels: tuple[int | None, ...] | None = None
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    row: str = ""


@dataclass(frozen=True)
class SplitList:
    """A split, or a fraction of one.

    Attributes:
        split: train, val, test (or pretrain). percent: 100 for the whole split.
    """

    split: str
    items: tuple[Item, ...]
    percent: float = 100.0

    @property
    def name(self) -> str:
        """`train`, `train_10` ..."""
        return self.split if self.percent >= 100 else f"{self.split}_{self.percent:g}"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: Which check found it. severity: `leak`, `error` or `note`.
        message: One sentence with the numbers. count: How many items are concerned.
        examples: A few of them, with their rows.
    """

    check: str
    severity: str
    message: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditContext:
    """What the checks are told besides the lists.

    Attributes:
        classes: Names of the labels; numbers where unknown.
        exclusive: Whether exactly one label must be set.
        size: (width, height) that boxes are given in; None = not checked.
    """

    classes: tuple[str, ...] = ()
    exclusive: bool = False
    size: tuple[float, float] | None = None
    allowed: frozenset[int | None] = field(default=frozenset({0, 1, None}))


def audit_lists(lists: Sequence[SplitList], facts: AuditContext) -> list[Finding]:
    """Run every check on lists; leaks first."""
    checks: tuple[Callable[[Sequence[SplitList], AuditContext], Iterable[Finding]], ...] = (
        equal_lists, shared_images, shared_patients, fractions, repeated, labels, boxes,
    )  # fmt: skip
    found = [finding for check in checks for finding in check(lists, facts)]
    order = {"leak": 0, "error": 1, "note": 2}
    return sorted(found, key=lambda f: order[f.severity])


def _examples(items: Iterable[object]) -> tuple[str, ...]:
    out = []
    for item in items:
        out.append(str(item))
        if len(out) == EXAMPLES:
            break
    return tuple(out)


def _whole(lists: Sequence[SplitList]) -> list[SplitList]:
    """One listing a split: the whole one, else its largest fraction."""
    best: dict[str, SplitList] = {}
    for listing in lists:
        if listing.split not in best or listing.percent > best[listing.split].percent:
            best[listing.split] = listing
    return list(best.values())


def _names(listing: SplitList) -> set[str]:
    return {item.image for item in listing.items}


def equal_lists(lists: Sequence[SplitList], facts: AuditContext) -> Iterable[Finding]:
    """Validation and test that are the same images (CheXpert as published)."""
    for one, other in combinations(_whole(lists), 2):
        if _names(one) == _names(other):
            yield Finding(
                "equal-lists", "leak",
                f"{one.name} and {other.name} are the same {len(_names(one))} images: what is chosen "
                f"on one is reported on the other.",
                len(_names(one)), _examples(sorted(_names(one))),
            )  # fmt: skip


def shared_images(lists: Sequence[SplitList], facts: AuditContext) -> Iterable[Finding]:
    """The same file in two splits (SIIM as published); fractions of one split may overlap."""
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    largest_first = sorted(lists, key=lambda listing: -listing.percent)
    for one, other in combinations(largest_first, 2):
        if one.split == other.split or _names(one) == _names(other):
            continue
        both = _names(one) & _names(other)
        key = (min(one.split, other.split), max(one.split, other.split))
        if both <= told[key]:  # a fraction repeats what the whole has
            continue
        told[key] |= both
        positives = {item.image for item in other.items if _positive(item)}
        more = ""
        if positives:
            share = len(both & positives) / len(positives)
            more = f", {len(both & positives)} of the {len(positives)} positives of {other.name} ({share:.0%})"
        rows = {item.image: item.row for item in one.items}
        yield Finding(
            "shared-images", "leak",
            f"{len(both)} images stand in {one.name} and in {other.name}{more}.",
            len(both), _examples(f"{name} ({rows[name]})" if rows[name] else name for name in sorted(both)),
        )  # fmt: skip


def _positive(item: Item) -> bool:
    if item.labels is not None:
        return any(value == 1 for value in item.labels)
    return bool(item.boxes)


def shared_patients(lists: Sequence[SplitList], facts: AuditContext) -> Iterable[Finding]:
    """Another image of the same person in two splits; both eyes of one (ODIR as published)."""
    for one, other in combinations(_whole(lists), 2):
        if one.split == other.split or _names(one) == _names(other):
            continue
        mine: dict[str, set[str]] = defaultdict(set)
        for item in one.items:
            if item.patient is not None:
                mine[item.patient].add(item.image)
        hit = [
            item
            for item in other.items
            if item.patient in mine and mine[item.patient] != {item.image}
        ]
        if not hit:
            continue
        people = len({item.patient for item in hit})
        eyes = [item for item in hit if _fellow_in(item, mine[str(item.patient)])]
        if len(eyes) == len(hit):
            message = (f"the fellow eye of {len(eyes)} of {len(other.items)} images of {other.name} "
                       f"is in {one.name}.")  # fmt: skip
            check = "fellow-eye"
        else:
            message = (f"{people} patients of {other.name} ({len(hit)} of {len(other.items)} images) "
                       f"have other images in {one.name}.")  # fmt: skip
            check = "shared-patients"
        shown = (
            f"{item.image}: patient {item.patient} also in {min(mine[str(item.patient)])}"
            for item in hit
        )
        yield Finding(check, "leak", message, len(hit), _examples(shown))


def _fellow_in(item: Item, images: set[str]) -> bool:
    match = _EYE.search(item.image)
    if match is None:
        return False
    other = "right" if match[1].lower() == "left" else "left"
    return any((m := _EYE.search(name)) and m[1].lower() == other for name in images)


def fractions(lists: Sequence[SplitList], facts: AuditContext) -> Iterable[Finding]:
    """A small fraction that is no part of the larger one, or misses classes."""
    by_split: dict[str, list[SplitList]] = defaultdict(list)
    for listing in lists:
        by_split[listing.split].append(listing)
    for parts in by_split.values():
        parts = sorted(parts, key=lambda part: part.percent)
        for small, large in pairwise(parts):
            outside = _names(small) - _names(large)
            if outside:
                yield Finding(
                    "not-nested", "note",
                    f"{len(outside)} of {len(_names(small))} images of {small.name} are not in {large.name}: "
                    "more labels are then other labels too.",
                    len(outside), _examples(sorted(outside)),
                )  # fmt: skip


def repeated(lists: Sequence[SplitList], facts: AuditContext) -> Iterable[Finding]:
    """The same image twice in one list (BenchX's COVIDx: 317 rows)."""
    for listing in lists:
        counts = Counter(item.image for item in listing.items)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            extra = sum(counts[name] - 1 for name in twice)
            yield Finding(
                "repeated", "error",
                f"{listing.name}: {len(twice)} images stand more than once ({extra} rows too many).",
                extra, _examples(twice),
            )  # fmt: skip


def labels(lists: Sequence[SplitList], facts: AuditContext) -> Iterable[Finding]:
    """Values outside the space, rows of another width, classes without positives."""
    width = max((len(i.labels) for lst in lists for i in lst.items if i.labels), default=0)
    names = facts.classes if len(facts.classes) == width else tuple(map(str, range(width)))
    for listing in lists:
        known = [item for item in listing.items if item.labels is not None]
        if not known:
            continue
        wrong = [i for i in known if i.labels is not None and not set(i.labels) <= facts.allowed]
        if wrong:
            yield Finding(
                "label-values", "error",
                f"{listing.name}: {len(wrong)} rows with a label that is neither 0 nor 1.",
                len(wrong), _examples(f"{i.image} ({i.row}): {i.labels}" for i in wrong),
            )  # fmt: skip
        if facts.exclusive:
            several = [
                i for i in known if i.labels is not None and sum(v == 1 for v in i.labels) != 1
            ]
            if several:
                yield Finding(
                    "not-exclusive", "error",
                    f"{listing.name}: {len(several)} rows without exactly one class.",
                    len(several), _examples(f"{i.image} ({i.row})" for i in several),
                )  # fmt: skip
        counts = [
            sum(i.labels[k] == 1 for i in known if i.labels and k < len(i.labels))
            for k in range(width)
        ]
        empty = [names[k] for k in range(width) if counts[k] == 0]
        if empty:
            yield Finding(
                "no-positives", "note",
                f"{listing.name}: {len(empty)} of {width} classes have no positive image.",
                len(empty), _examples(empty),
            )  # fmt: skip


def boxes(lists: Sequence[SplitList], facts: AuditContext) -> Iterable[Finding]:
    """Boxes that leave the image, hold no area, or stand twice."""
    for listing in lists:
        outside, flat, double = [], [], []
        for item in listing.items:
            for k, (x1, y1, x2, y2) in enumerate(item.boxes or ()):
                shown = f"{item.image} ({item.row}): {[x1, y1, x2, y2]}"
                if not (x1 < x2 and y1 < y2):
                    flat.append(shown)
                elif facts.size and not (
                    x1 >= 0 and y1 >= 0 and x2 <= facts.size[0] and y2 <= facts.size[1]
                ):
                    outside.append(shown)
                if item.boxes and (x1, y1, x2, y2) in item.boxes[:k]:
                    double.append(shown)
        for check, found, what in (
            ("box-outside", outside, "leave the image"), ("box-empty", flat, "hold no area"),
            ("box-twice", double, "stand twice on one image"),
        ):  # fmt: skip
            if found:
                yield Finding(
                    check, "error", f"{listing.name}: {len(found)} boxes {what}.", len(found),
                    _examples(found),
                )  # fmt: skip
