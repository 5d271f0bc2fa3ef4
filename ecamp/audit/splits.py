"""Checks of split lists: leaks, fractions, labels, boxes.

Each check is a function from lists to findings; none reads an image (`audit_images` does). A `leak`
makes test scores too good, an `error` is data that cannot be right, a `note` is something that readers
of the scores must know.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise

EXAMPLES = 5
_EYE = re.compile(r"_(left|right)\.\w+$", re.IGNORECASE)


@dataclass(frozen=True)
class AuditItem:
    """One image as a list contains it.

    Attributes:
        image: Path or id.
        patient: None if it is not known.
        labels: Values by class; None = unknown.
        boxes: (x1, y1, x2, y2) in pixels of `AuditContext.size`.
        row: Its location, for messages.
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
        split: train, val, test (or pretrain).
        items: Its images.
        percent: 100 for the whole split.
    """

    split: str
    items: tuple[AuditItem, ...]
    percent: float = 100.0

    @property
    def name(self) -> str:
        """Name in messages: `train`, `train_10` ..."""
        return self.split if self.percent >= 100 else f"{self.split}_{self.percent:g}"


@dataclass(frozen=True)
class Finding:
    """One problem that a check found.

    Attributes:
        check: Name of the check.
        severity: `leak`, `error` or `note`.
        message: One sentence with the numbers.
        count: Number of items concerned.
        examples: A few of them, with their rows.
    """

    check: str
    severity: str
    message: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditContext:
    """Facts about the data set that the checks need besides the lists.

    Attributes:
        classes: Names of the labels; empty = numbers are shown instead.
        exclusive: Whether exactly one label must be set.
        size: (width, height) of the images that boxes refer to; None = not checked.
        allowed: Values that a label may have.
    """

    classes: tuple[str, ...] = ()
    exclusive: bool = False
    size: tuple[float, float] | None = None
    allowed: frozenset[int | None] = field(default=frozenset({0, 1, None}))


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings: leaks first, then errors, then notes."""
    order = {"leak": 0, "error": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def audit_lists(lists: Sequence[SplitList], context: AuditContext) -> list[Finding]:
    """Run every check on lists; leaks come first."""
    checks: tuple[Callable[[Sequence[SplitList], AuditContext], Iterable[Finding]], ...] = (
        equal_lists, shared_images, shared_patients, fractions, repeated, labels, boxes,
    )  # fmt: skip
    return by_severity(finding for check in checks for finding in check(lists, context))


def _examples(items: Iterable[object]) -> tuple[str, ...]:
    return tuple(str(item) for item in islice(items, EXAMPLES))


def _largest(lists: Sequence[SplitList]) -> list[SplitList]:
    """Select one list per split: the whole one, else its largest fraction."""
    best: dict[str, SplitList] = {}
    for lst in lists:
        if lst.split not in best or lst.percent > best[lst.split].percent:
            best[lst.split] = lst
    return list(best.values())


def _names(lst: SplitList) -> set[str]:
    return {item.image for item in lst.items}


def equal_lists(lists: Sequence[SplitList], context: AuditContext) -> Iterable[Finding]:
    """Find two splits that are the same images (CheXpert as published)."""
    for first, second in combinations(_largest(lists), 2):
        if _names(first) == _names(second):
            yield Finding(
                "equal-lists", "leak",
                f"{first.name} and {second.name} are the same {len(_names(first))} images: models are "
                f"selected on the images that they are tested on.",
                len(_names(first)), _examples(sorted(_names(first))),
            )  # fmt: skip


def shared_images(lists: Sequence[SplitList], context: AuditContext) -> Iterable[Finding]:
    """Find files that are in two splits (SIIM as published); fractions of one split may overlap."""
    reported: dict[tuple[str, str], set[str]] = defaultdict(set)
    largest_first = sorted(lists, key=lambda lst: -lst.percent)
    for first, second in combinations(largest_first, 2):
        if first.split == second.split or _names(first) == _names(second):
            continue
        both = _names(first) & _names(second)
        key = (min(first.split, second.split), max(first.split, second.split))
        if both <= reported[key]:  # a fraction repeats a finding of the whole list
            continue
        reported[key] |= both
        positives = {item.image for item in second.items if _positive(item)}
        detail = ""
        if positives:
            count = len(both & positives)
            detail = (f", including {count} of the {len(positives)} positives of {second.name} "
                      f"({count / len(positives):.0%})")  # fmt: skip
        rows = {item.image: item.row for item in first.items}
        yield Finding(
            "shared-images", "leak",
            f"{len(both)} images are in {first.name} and in {second.name}{detail}.",
            len(both), _examples(f"{name} ({rows[name]})" if rows[name] else name for name in sorted(both)),
        )  # fmt: skip


def _positive(item: AuditItem) -> bool:
    if item.labels is not None:
        return any(value == 1 for value in item.labels)
    return bool(item.boxes)


def shared_patients(lists: Sequence[SplitList], context: AuditContext) -> Iterable[Finding]:
    """Find patients with images in two splits, or with one eye in each (ODIR as published)."""
    for first, second in combinations(_largest(lists), 2):
        if first.split == second.split or _names(first) == _names(second):
            continue
        images: dict[str, set[str]] = defaultdict(set)
        for item in first.items:
            if item.patient is not None:
                images[item.patient].add(item.image)
        shared = [
            item
            for item in second.items
            if item.patient in images and images[item.patient] != {item.image}
        ]
        if not shared:
            continue
        patients = len({item.patient for item in shared})
        eyes = [item for item in shared if _has_fellow_eye(item, images[str(item.patient)])]
        if len(eyes) == len(shared):
            message = (f"the fellow eye of {len(eyes)} of {len(second.items)} images of {second.name} "
                       f"is in {first.name}.")  # fmt: skip
            check = "fellow-eye"
        else:
            message = (f"{patients} patients of {second.name} ({len(shared)} of {len(second.items)} "
                       f"images) have other images in {first.name}.")  # fmt: skip
            check = "shared-patients"
        examples = (
            f"{item.image}: patient {item.patient} also in {min(images[str(item.patient)])}"
            for item in shared
        )
        yield Finding(check, "leak", message, len(shared), _examples(examples))


def _has_fellow_eye(item: AuditItem, images: set[str]) -> bool:
    match = _EYE.search(item.image)
    if match is None:
        return False
    other = "right" if match[1].lower() == "left" else "left"
    return any((m := _EYE.search(name)) and m[1].lower() == other for name in images)


def fractions(lists: Sequence[SplitList], context: AuditContext) -> Iterable[Finding]:
    """Find small fractions that are not a subset of the next larger one."""
    by_split: dict[str, list[SplitList]] = defaultdict(list)
    for lst in lists:
        by_split[lst.split].append(lst)
    for parts in by_split.values():
        parts = sorted(parts, key=lambda part: part.percent)
        for small, large in pairwise(parts):
            outside = _names(small) - _names(large)
            if outside:
                yield Finding(
                    "not-nested", "note",
                    f"{len(outside)} of {len(_names(small))} images of {small.name} are not in {large.name}: "
                    "a larger fraction then has other labels, not only more.",
                    len(outside), _examples(sorted(outside)),
                )  # fmt: skip


def repeated(lists: Sequence[SplitList], context: AuditContext) -> Iterable[Finding]:
    """Find images that are more than once in one list (BenchX's COVIDx: 317 rows)."""
    for lst in lists:
        counts = Counter(item.image for item in lst.items)
        duplicates = [name for name, count in counts.items() if count > 1]
        if duplicates:
            extra = sum(counts[name] - 1 for name in duplicates)
            yield Finding(
                "repeated", "error",
                f"{lst.name}: {len(duplicates)} images appear more than once ({extra} extra rows).",
                extra, _examples(duplicates),
            )  # fmt: skip


def labels(lists: Sequence[SplitList], context: AuditContext) -> Iterable[Finding]:
    """Find values other than 0 and 1, rows without exactly one class, classes without positives."""
    width = max((len(i.labels) for lst in lists for i in lst.items if i.labels), default=0)
    names = context.classes if len(context.classes) == width else tuple(map(str, range(width)))
    for lst in lists:
        known = [item for item in lst.items if item.labels is not None]
        if not known:
            continue
        wrong = [i for i in known if i.labels is not None and not set(i.labels) <= context.allowed]
        if wrong:
            yield Finding(
                "label-values", "error",
                f"{lst.name}: {len(wrong)} rows with a label that is neither 0 nor 1.",
                len(wrong), _examples(f"{i.image} ({i.row}): {i.labels}" for i in wrong),
            )  # fmt: skip
        if context.exclusive:
            several = [
                i for i in known if i.labels is not None and sum(v == 1 for v in i.labels) != 1
            ]
            if several:
                yield Finding(
                    "not-exclusive", "error",
                    f"{lst.name}: {len(several)} rows without exactly one class.",
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
                f"{lst.name}: {len(empty)} of {width} classes have no positive image.",
                len(empty), _examples(empty),
            )  # fmt: skip


def boxes(lists: Sequence[SplitList], context: AuditContext) -> Iterable[Finding]:
    """Find boxes that are partly outside the image, have no area, or are duplicates."""
    for lst in lists:
        outside, empty, duplicates = [], [], []
        for item in lst.items:
            for k, (x1, y1, x2, y2) in enumerate(item.boxes or ()):
                text = f"{item.image} ({item.row}): {[x1, y1, x2, y2]}"
                if not (x1 < x2 and y1 < y2):
                    empty.append(text)
                elif context.size and not (
                    x1 >= 0 and y1 >= 0 and x2 <= context.size[0] and y2 <= context.size[1]
                ):
                    outside.append(text)
                if item.boxes and (x1, y1, x2, y2) in item.boxes[:k]:
                    duplicates.append(text)
        for check, matches, problem in (
            ("box-outside", outside, "are partly outside the image"),
            ("box-empty", empty, "have no area"),
            ("box-twice", duplicates, "are duplicates of another on the same image"),
        ):
            if matches:
                yield Finding(
                    check, "error", f"{lst.name}: {len(matches)} boxes {problem}.", len(matches),
                    _examples(matches),
                )  # fmt: skip
