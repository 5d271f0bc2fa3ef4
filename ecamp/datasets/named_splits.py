"""Named ways to split a data set, and what is wrong with one in the files that a user has."""

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
        says: How images get into splits, one sentence.
        counts: Images in train, val and test; None = not known beforehand.
        hash: Split hash of these images; "" = not known beforehand.
        flaws: As in `DatasetInfo`. leaks: As in `DatasetInfo`.
        lists: Where clones of the authors' repositories hold its lists, `.` for root itself; empty =
            not read from lists.
        needs_lists: Whether it can be had from lists only.
        listed: Splits of which a list must be there.
    """

    says: str
    counts: tuple[int, int, int] | None = None
    hash: str = ""
    flaws: tuple[str, ...] = ()
    leaks: bool = False
    lists: tuple[str, ...] = ()
    needs_lists: bool = True
    listed: tuple[str, ...] = SPLITS


SplitsByName = Mapping[str, NamedSplits]


def differences(records: Sequence[Record], protocol: NamedSplits, *, whole: bool) -> Iterator[str]:
    """Where the images at hand are not those of the protocol.

    Args:
        whole: The training split is there, not a fraction of it.
    """
    counts = Counter(record.split for record in records)
    have = tuple(counts[split] for split in SPLITS)
    part = slice(None) if whole else slice(1, None)
    told: tuple[int, ...] = protocol.counts or ()
    if told and have[part] != told[part]:
        here, there = (" / ".join(f"{n:,}" for n in c[part]) for c in (have, told))
        yield f"{here} images in {' / '.join(SPLITS[part])}, the protocol has {there}"
    elif protocol.hash and whole:
        digest = split_hash([r.id for r in records], [r.split for r in records])
        if digest != protocol.hash:
            yield f"other images than the protocol's: split {digest}, not {protocol.hash}"


def overlaps(records: Sequence[Record]) -> Iterator[str]:
    """Patients that a protocol has in two splits, as it stands in the files."""
    patients = {s: {r.patient for r in records if r.split == s} for s in SPLITS}
    for held, other in (("test", "train"), ("test", "val"), ("val", "train")):
        shared = patients[held] & patients[other]
        if shared:
            images = [record for record in records if record.split == held]
            count = sum(record.patient in shared for record in images)
            yield (
                f"{count:,} of {len(images):,} {held} images: the image or its patient is in {other} too"
            )
