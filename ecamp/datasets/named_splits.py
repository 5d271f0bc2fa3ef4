"""Named ways to split a data set, and checks of the user's files against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ecamp.api.dataset import Record
from ecamp.data.splits import split_hash

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class NamedSplits:
    """A named way to split a data set.

    Attributes:
        description: How images are assigned to splits, one sentence.
        counts: Images in train, val and test; None = depends on the release.
        hash: Split hash of these images; "" = depends on the release.
        flaws: As in `DatasetInfo`.
        leaks: As in `DatasetInfo`.
        lists: Folders of its lists in clones of the authors' repositories, `.` for root itself;
            empty = not read from lists.
        needs_lists: Whether it can only be read from lists.
        listed: Splits that must have a list.
    """

    description: str
    counts: tuple[int, int, int] | None = None
    hash: str = ""
    flaws: tuple[str, ...] = ()
    leaks: bool = False
    lists: tuple[str, ...] = ()
    needs_lists: bool = True
    listed: tuple[str, ...] = SPLITS


SplitsByName = Mapping[str, NamedSplits]


def find_differences(
    records: Sequence[Record], expected: NamedSplits, *, whole: bool
) -> Iterator[str]:
    """Compare numbers and hash of the user's images with those that are expected.

    Args:
        whole: Whether the training split is complete, not a fraction.

    Yields:
        One sentence per difference.
    """
    counter = Counter(record.split for record in records)
    counts = tuple(counter[split] for split in SPLITS)
    part = slice(None) if whole else slice(1, None)
    wanted: tuple[int, ...] = expected.counts or ()
    if wanted and counts[part] != wanted[part]:
        here, there = (" / ".join(f"{n:,}" for n in c[part]) for c in (counts, wanted))
        yield f"{here} images in {' / '.join(SPLITS[part])}, these splits have {there}"
    elif expected.hash and whole:
        digest = split_hash([r.id for r in records], [r.split for r in records])
        if digest != expected.hash:
            yield f"other images than expected in these splits: hash {digest}, not {expected.hash}"


def find_overlaps(records: Sequence[Record]) -> Iterator[str]:
    """Count images whose patient is in two splits of the user's files; one sentence per pair."""
    patients = {s: {r.patient for r in records if r.split == s} for s in SPLITS}
    for held_out, other in (("test", "train"), ("test", "val"), ("val", "train")):
        shared = patients[held_out] & patients[other]
        if shared:
            images = [record for record in records if record.split == held_out]
            count = sum(record.patient in shared for record in images)
            yield (
                f"{count:,} of {len(images):,} {held_out} images: the image or its patient is in "
                f"{other} too"
            )
