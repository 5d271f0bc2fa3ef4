"""Base class of public data sets, read in the folder layout of their download.

A data set implements `_read`, which interprets its files. Root, splits, published lists, images at other
paths than a list gives, bad rows, fingerprints and flaws are handled here for all of them.

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
from ecamp.data.splits import patient_strata, stratified_split
from ecamp.datasets.named_splits import (
    NamedSplits,
    SplitsByName,
    find_differences,
    find_overlaps,
)
from ecamp.datasets.published_lists import (
    ListRow,
    PublishedList,
    find_lists,
    list_files,
    read_list,
)
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

# Mean and standard deviation of chest films in the published code.
MEAN, STD = (0.4722,), (0.3028,)
# Of our own splits, for data sets without official ones.
DEFAULT_FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
NO_PATIENTS = "the files name no patients: each image (or examination) counts as one patient"


@dataclass(frozen=True)
class ImagePayload:
    """Payload of a record: path of the image below root, and its truth as in the table.

    Attributes:
        path: Of the image, below root.
        boxes: In the coordinates of the table; None = not known.
        runs: Run-length encoded masks, to be united; None = not known, () = known to be empty.
        mask: Path of a mask image below root, instead of runs.
    """

    path: str
    boxes: tuple[Box, ...] | None = None
    runs: tuple[str, ...] | None = None
    mask: str | None = None


class PublicConfig(PluginConfig):
    """Options of every public data set."""

    root: str = Field(
        description="folder of the download; `ecamp data info NAME` describes its layout"
    )
    splits: str | None = Field(
        default=None, description="which splits to use; `ecamp data info NAME` lists them"
    )
    lists: str | None = Field(
        default=None,
        description="folder of published lists, or a clone with them; auto searches near root",
    )
    percent: Literal[1, 10, 100] = Field(
        default=100, description="which published training list to use: 1, 10 or 100 %"
    )
    on_bad_row: Literal["fail", "skip"] = Field(
        default="fail",
        description="skip: skip rows that cannot be used, and report them in results",
    )


PublicConfigT = TypeVar("PublicConfigT", bound=PublicConfig, default=PublicConfig, covariant=True)


class PublicDataset(Dataset[PublicConfigT]):
    """Base of the public data sets."""

    name: ClassVar[str]
    named_splits: ClassVar[SplitsByName]
    # Folders of images, as patterns below root; empty = paths are used as written.
    folders: ClassVar[tuple[str, ...]] = ()
    # For `ecamp data prepare`: folder of DICOM files -> path of the PNG, and tables to copy.
    prepared: ClassVar[Mapping[str, str]] = {}
    tables: ClassVar[tuple[str, ...]] = ()

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes need only the options, not tables of 200,000 rows.
        kept = ("config", "variant", "ref", "origin")
        return {name: getattr(self, name) for name in kept}

    @classmethod
    def help_text(cls) -> str:
        lines = [cls.layout.strip(), "", "splits:"]
        for name, splits in cls.named_splits.items():
            counts = splits.counts and " / ".join(f"{n:,}" for n in splits.counts)
            lines.append(f"  {name}: {splits.description}" + (f" {counts}." if counts else ""))
            lines += [f"    flaw: {flaw}" for flaw in splits.flaws]
        return "\n".join(lines)

    # --- implemented by data sets -----------------------------------------------------------------

    @abstractmethod
    def _read(self) -> Iterable[Record]:
        """Read all records; an unusable row raises DataError inside `with self.bad`."""

    def _default_splits(self) -> str:
        """Name the splits to use by default: the first, unless the content of root decides."""
        return next(iter(self.named_splits))

    def _version_suffix(self) -> tuple[str, ...]:
        """Name the options that change splits or labels, as short words that join the version."""
        return ()

    # --- shared -----------------------------------------------------------------------------------

    @cached_property
    def root(self) -> Path:
        """Folder of the download."""
        return Path(self.config.root).expanduser()

    @cached_property
    def bad(self) -> BadRows:
        """Policy for bad rows, and those that were skipped."""
        return BadRows(self.config.on_bad_row == "skip")

    @cached_property
    def sources(self) -> list[Path]:
        """Tables and lists read so far."""
        return []

    @cached_property
    def splits_name(self) -> str:
        """Name of the requested splits; by default the first, or with lists the first from lists."""
        known, name = self.named_splits, self.config.splits
        from_lists = [key for key, splits in known.items() if splits.lists]
        if name is None:
            name = from_lists[0] if self.config.lists and from_lists else self._default_splits()
        if name not in known:
            raise UsageError(f"{self.name}: no splits '{name}'.", did_you_mean(name, known))
        if self._wants_lists and not known[name].lists:
            others = (
                f"use splits={' or '.join(from_lists)}" if from_lists else "it has none with lists"
            )
            raise UsageError(
                f"{self.name}: splits '{name}' are not read from lists.",
                f"Remove the options lists and percent, or {others}.",
            )
        return str(name)

    @property
    def _wants_lists(self) -> bool:
        return bool(self.config.lists) or self.config.percent != 100

    @property
    def splits(self) -> NamedSplits:
        """The requested splits."""
        return self.named_splits[self.splits_name]

    @property
    def from_lists(self) -> bool:
        """Whether splits are read from the authors' lists."""
        splits = self.splits
        return bool(splits.lists) and (self._wants_lists or splits.needs_lists)

    def source(self, *patterns: str) -> Path:
        """Find a table of the release and record it as a source.

        Raises:
            MissingError: Names the patterns and the content of the folder.
        """
        path = find_file(self.root, *patterns)
        if path is None:
            raise missing_file_error(
                self.root, patterns, f"See ecamp data info {self.name} for its layout."
            )
        self.sources.append(path)
        return path

    @cached_property
    def images(self) -> ImageIndex:
        """Index of the images below `folders`."""
        return ImageIndex(self.root, self.folders)

    def resolve_path(self, text: str, location: str) -> str:
        """Return the path below root of the image that a row names."""
        return self.images.resolve(resolve_below_root(self.root, text, location))

    def listed_rows(self) -> Iterator[tuple[str, ListRow, str]]:
        """Read the lists: split, row and its location; training rows only of `percent`."""
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
        chosen = {
            split: [
                p for p, (s, n) in files if s == split and n == (percent if s == "train" else 100)
            ]
            for split in ("train", "val", "test")
        }
        for split, paths in chosen.items():
            if len(paths) > 1:
                raise DataError(
                    f"{folder}: two lists for {split}: {paths[0].name} and {paths[1].name}.",
                    "Move one of them elsewhere.",
                )
            if split not in self.splits.listed:
                continue
            if not paths and (split != "train" or not self._can_derive_train()):
                names = ", ".join(path.name for path, _ in files)
                which = f" of {percent} %" if split == "train" else ""
                raise MissingError(
                    f"{folder}: no {split} list{which}; it contains {names}.",
                    "Use percent=1 or percent=10 for a training list that exists."
                    if split == "train" else "Use the lists of another repository.",
                )  # fmt: skip
        lists = [read_list(paths[0], s, bad=self.bad) for s, paths in chosen.items() if paths]
        self.sources.extend(lst.path for lst in lists)
        return lists

    def split_by_hash(
        self, records: Iterable[Record], fractions: Mapping[str, float], salt: str = "",
        group: Callable[[Record], str] = attrgetter("patient"),
    ) -> Iterator[Record]:  # fmt: skip
        """Assign splits by our own rule: by patient, stratified by label, from hashes.

        Args:
            fractions: Split -> fraction of the patients.
            salt: As in `stratified_split`; default the names of data set and splits.
            group: Record -> key of the records that share its split; the same for all records of a
                patient.
        """
        records = list(records)
        strata = patient_strata([group(r) for r in records], [r.labels or () for r in records])
        salt = salt or f"{self.name}/{self.splits_name}"
        splits = stratified_split(list(strata), list(strata.values()), fractions, salt)
        for record in records:
            yield replace(record, split=splits[group(record)])

    def _can_derive_train(self) -> bool:
        """Tell whether training is all images that no other list has, so that it needs no list."""
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
                        f"{self.name}: duplicate image '{record.id}' ({seen[key].row} and {record.row}).",
                        "Remove one row, or use on_bad_row=skip.",
                    )
                seen[key] = record
        records = list(seen.values())
        if not records:
            raise MissingError(f"{self.name}: no usable row.", "Check the tables in root.")
        self._check_images(records)
        return records

    def _check_images(self, records: list[Record]) -> None:
        check_images(
            self.root, [(record.payload.path, record.row) for record in records], self.folders,
            f"See ecamp data info {self.name} for its layout.",
        )  # fmt: skip

    def describe(self, **facts: Any) -> DatasetInfo:
        """Build `info`, with name, version and flaws filled in."""
        facts = {"name": self.name, "mean": MEAN, "std": STD, **facts}
        return DatasetInfo(
            version=self.version, flaws=self._flaws, leaks=self.splits.leaks, **facts
        )

    @property
    def version(self) -> str:
        """Splits and the options that change them: `mrm+10%`, `official-test+frontal`."""
        percent = self.config.percent
        fraction = (f"{percent}%",) if percent != 100 else ()
        return "+".join((self.splits_name, *fraction, *self._version_suffix()))

    @cached_property
    def _flaws(self) -> tuple[str, ...]:
        """Known flaws of the splits, and those found in the user's files."""
        flaws = [*self.splits.flaws, *find_overlaps(self._records)]
        if not self._version_suffix():
            flaws += find_differences(self._records, self.splits, whole=self.config.percent == 100)
        return (*flaws, *self.bad.flaws)

    def load(self, record: Record, size: int) -> Sample:
        return Sample(read_image(self.root / record.payload.path, "grey", record.row))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """Hash of tables by content and images by size: hashing 100,000 files would take too long."""
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
