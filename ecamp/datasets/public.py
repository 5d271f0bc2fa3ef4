"""A public data set in the folder that its users have after the download: what all of them share.

A set says what its files mean (`_read`); root, splits, published lists, images in other places than a
list says, bad rows, fingerprints and flaws are the same for all and stand here.

Why: docs/decisions.md#flaws-are-measured-on-your-files, #films-are-found-by-name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import TypeVar

from ecamp.api.dataset import Dataset, DatasetInfo, Record, Sample
from ecamp.api.plugin import PluginConfig
from ecamp.config import identity
from ecamp.data.splits import strata_of, stratified_split
from ecamp.datasets.clones import find_lists
from ecamp.datasets.named_splits import NamedSplits, SplitsByName, differences, overlaps
from ecamp.datasets.published_lists import PublishedList, Row, list_files, read_list
from ecamp.errors import DataError, MissingError, UsageError, did_you_mean
from ecamp.io.boxes import Box
from ecamp.io.folders import (
    ImageIndex,
    check_images,
    find_file,
    missing_file_error,
    resolve_below_root,
)
from ecamp.io.images import read_image
from ecamp.io.table import BadRows
from ecamp.storage.files import content_hash

# The published code's grey values of chest films.
MEAN, STD = (0.4722,), (0.3028,)
# Of our own splits, where the owner drew no split.
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
NO_PATIENTS = "the files name no patients: intervals count each image as a patient"


@dataclass(frozen=True)
class ImagePayload:
    """Payload of a record: the image below root, and its truth as the table has it.

    Attributes:
        boxes: In the table's coordinates; None = not known.
        runs: Encoded masks, to be joined; None = not known, () = known to be empty.
        mask: A mask image below root, instead of runs.
    """

    path: str
    boxes: tuple[Box, ...] | None = None
    runs: tuple[str, ...] | None = None
    mask: str | None = None


class PublicConfig(PluginConfig):
    """Options of every public data set."""

    root: str = Field(
        description="folder of the download; `ecamp data info NAME` says what is in it"
    )
    splits: str | None = Field(
        default=None, description="how images get into splits; `ecamp data info NAME` lists them"
    )
    lists: str | None = Field(
        default=None,
        description="folder of published lists, or a clone with them; auto looks around",
    )
    percent: Literal[1, 10, 100] = Field(
        default=100, description="which published training list is the training split"
    )
    on_bad_row: Literal["fail", "skip"] = Field(
        default="fail",
        description="skip: leave rows out that cannot be used, and say so in results",
    )


PublicConfigT = TypeVar("PublicConfigT", bound=PublicConfig, default=PublicConfig, covariant=True)


class PublicDataset(Dataset[PublicConfigT]):
    """Base of the public data sets."""

    name: ClassVar[str]
    named_splits: ClassVar[SplitsByName]
    # Folders that hold images, as patterns below root; empty = every path stands as written.
    folders: ClassVar[tuple[str, ...]] = ()
    # For `ecamp data prepare`: folder of DICOM files -> path of the PNG, and tables to copy.
    prepared: ClassVar[Mapping[str, str]] = {}
    tables: ClassVar[tuple[str, ...]] = ()

    def __getstate__(self) -> dict[str, Any]:
        # Readers in other processes need the options; tables of 200,000 rows stay here.
        return {"config": self.config, "variant": self.variant, "ref": self.ref}

    @classmethod
    def help_text(cls) -> str:
        lines = [cls.layout.strip(), "", "splits:"]
        for name, protocol in cls.named_splits.items():
            counts = protocol.counts and " / ".join(f"{n:,}" for n in protocol.counts)
            lines.append(f"  {name}: {protocol.says}" + (f" {counts}." if counts else ""))
            lines += [f"    flaw: {flaw}" for flaw in protocol.flaws]
        return "\n".join(lines)

    # --- what a set fills in ----------------------------------------------------------------------

    @abstractmethod
    def _read(self) -> Iterable[Record]:
        """All records of the protocol; a row that cannot be used raises inside `with self.bad`."""

    def _usual(self) -> str:
        """The protocol where none is asked for: the first, unless root tells another."""
        return next(iter(self.named_splits))

    def _choices(self) -> tuple[str, ...]:
        """Options that make other splits or labels, as short words; they join the version."""
        return ()

    # --- what they share --------------------------------------------------------------------------

    @cached_property
    def root(self) -> Path:
        """The folder."""
        return Path(self.config.root).expanduser()

    @cached_property
    def bad(self) -> BadRows:
        """Rows that were left out."""
        return BadRows(self.config.on_bad_row == "skip")

    @cached_property
    def sources(self) -> list[Path]:
        """Tables and lists that were read."""
        return []

    @cached_property
    def splits_name(self) -> str:
        """The protocol asked for; without one the first, or with lists the first read from lists."""
        known, asked = self.named_splits, self.config.splits
        of_lists = [name for name, protocol in known.items() if protocol.lists]
        if asked is None:
            asked = of_lists[0] if self.config.lists and of_lists else self._usual()
        if asked not in known:
            raise UsageError(f"{self.name}: no protocol '{asked}'.", did_you_mean(asked, known))
        listed = bool(self.config.lists) or self.config.percent != 100
        if listed and not known[asked].lists:
            raise UsageError(
                f"{self.name}: protocol '{asked}' is not read from lists.",
                f"Leave lists and percent out, or take splits={' or '.join(of_lists) or 'nothing else'}.",
            )
        return str(asked)

    @property
    def splits(self) -> NamedSplits:
        """What is known of it."""
        return self.named_splits[self.splits_name]

    @property
    def from_lists(self) -> bool:
        """Whether splits come from the authors' lists."""
        protocol = self.splits
        asked = bool(self.config.lists) or self.config.percent != 100
        return bool(protocol.lists) and (asked or protocol.needs_lists)

    def source(self, *patterns: str) -> Path:
        """An index file of the release.

        Raises:
            MissingError: Says what was looked for and what the folder holds.
        """
        path = find_file(self.root, *patterns)
        if path is None:
            raise missing_file_error(
                self.root, patterns, f"ecamp data info {self.name} says what it holds."
            )
        self.sources.append(path)
        return path

    @cached_property
    def images(self) -> ImageIndex:
        """Images below `folders`."""
        return ImageIndex(self.root, self.folders)

    def place(self, text: str, where: str) -> str:
        """Where the image of a table's row lies below root."""
        return self.images.place(resolve_below_root(self.root, text, where))

    def published(self) -> Iterator[tuple[str, Row, str]]:
        """Rows of the lists: split, row, where it stands; training rows of `percent` only."""
        for lst in self._lists:
            for row in lst.rows:
                yield lst.split, row, f"{lst.path.name} line {row.line}"

    @cached_property
    def _lists(self) -> list[PublishedList]:
        folder = find_lists(
            self.config.lists or "auto", self.root, self.splits.lists,
            f"{self.name}/{self.splits_name}", {*self.splits.listed} - {"train"},
        )  # fmt: skip
        percent = self.config.percent
        files = list(list_files(folder))
        wanted = {
            split: [
                p for p, (s, n) in files if s == split and n == (percent if s == "train" else 100)
            ]
            for split in ("train", "val", "test")
        }
        for split, paths in wanted.items():
            if len(paths) > 1:
                raise DataError(
                    f"{folder}: two lists for {split}: {paths[0].name} and {paths[1].name}.",
                    "Move one of them away.",
                )
            if split not in self.splits.listed:
                continue
            if not paths and (split != "train" or not self._can_derive_train()):
                there = ", ".join(path.name for path, _ in files)
                which = f" of {percent} %" if split == "train" else ""
                raise MissingError(
                    f"{folder}: no {split} list{which}; it holds {there}.",
                    "Say percent=1 or percent=10 for the training list that is there."
                    if split == "train" else "Take the lists of another repository.",
                )  # fmt: skip
        read = [read_list(paths[0], s, bad=self.bad) for s, paths in wanted.items() if paths]
        self.sources.extend(lst.path for lst in read)
        return read

    def drawn(
        self, records: Iterable[Record], shares: Mapping[str, float], salt: str = "",
        together: Callable[[Record], str] = attrgetter("patient"),
    ) -> Iterator[Record]:  # fmt: skip
        """Records with the split of our own rules: by patient, stratified by label, from hashes.

        Args:
            salt: As in `stratified_split`; by default name and protocol.
            together: What shares a split; all records of a patient must have one value.
        """
        held = list(records)
        strata = strata_of([together(r) for r in held], [r.labels or () for r in held])
        salt = salt or f"{self.name}/{self.splits_name}"
        splits = stratified_split(list(strata), list(strata.values()), shares, salt)
        for record in held:
            yield replace(record, split=splits[together(record)])

    def _can_derive_train(self) -> bool:
        """Whether the training images are known without a list: all that are in no other one."""
        return False

    def records(self) -> Sequence[Record]:
        return self._records

    @cached_property
    def _records(self) -> list[Record]:
        seen: dict[tuple[str, str], Record] = {}
        for record in self._read():
            with self.bad:
                key = (record.id, record.split)
                if key in seen:
                    raise DataError(
                        f"{self.name}: '{record.id}' stands twice ({seen[key].row} and {record.row}).",
                        "Remove one row, or on_bad_row=skip.",
                    )
                seen[key] = record
        records = list(seen.values())
        if not records:
            raise MissingError(f"{self.name}: no row is left.", "Check the tables in root.")
        self._check_images(records)
        return records

    def _check_images(self, records: list[Record]) -> None:
        check_images(
            self.root, [(record.payload.path, record.row) for record in records], self.folders,
            f"ecamp data info {self.name} says what root holds.",
        )  # fmt: skip

    def describe(self, **facts: Any) -> DatasetInfo:
        """`info` with name, protocol and flaws filled in."""
        facts = {"name": self.name, "mean": MEAN, "std": STD, **facts}
        return DatasetInfo(
            version=self.version, flaws=self._flaws, leaks=self.splits.leaks, **facts
        )

    @property
    def version(self) -> str:
        """Protocol and the choices that change it: `mrm+10%`, `official-test+frontal`."""
        percent = self.config.percent
        fraction = (f"{percent}%",) if percent != 100 else ()
        return "+".join((self.splits_name, *fraction, *self._choices()))

    @cached_property
    def _flaws(self) -> tuple[str, ...]:
        """What is known of the protocol, and what is seen of these files."""
        flaws = [*self.splits.flaws, *overlaps(self._records)]
        if not self._choices():
            flaws += differences(self._records, self.splits, whole=self.config.percent == 100)
        return (*flaws, *self.bad.flaws)

    def load(self, record: Record, size: int) -> Sample:
        return Sample(read_image(self.root / record.payload.path, "grey", record.row))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """Tables by content; images by size, since a hundred thousand files are not hashed each time."""
        sizes = sorted({(p, _size(self.root / p)) for p in self._files()})
        options = self.config.model_dump(exclude={"root", "lists", "splits"})
        tables = sorted((path.name, content_hash(path)) for path in set(self.sources))
        return identity(
            [self.name, 1, self.variant, self.version, options, tables, identity(sizes)]
        )

    def _files(self) -> Iterator[str]:
        for record in self._records:
            yield record.payload.path
            if record.payload.mask:
                yield record.payload.mask


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
