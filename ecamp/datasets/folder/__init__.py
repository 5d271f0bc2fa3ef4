"""Your own images without code: a table and a `dataset.yaml` (docs/add-a-data-set.md)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ecamp.api.dataset import SPLITS, Dataset, DatasetInfo, Record, Sample, Truth
from ecamp.api.plugin import PluginConfig
from ecamp.config import identity
from ecamp.data.splits import hash_split
from ecamp.datasets.folder.layout import Layout, read_layout, resolve
from ecamp.distill.sinks import read_distilled
from ecamp.errors import DataError, MissingError, did_you_mean
from ecamp.io.coco import CocoBoxes, read_coco
from ecamp.io.folders import resolve_below_root
from ecamp.io.images import read_image, read_mask
from ecamp.io.table import BadRows, TableRow, read_table


@dataclass(frozen=True)
class RowFiles:
    """Payload of a record.

    Attributes:
        paths: Paths of the image, as in the table; several are stacked as channels.
        masks: Class -> path of its mask.
        boxes: float32 (n, 4) x1, y1, x2, y2 and int64 (n,) classes; None = not known.
    """

    paths: tuple[str, ...]
    masks: dict[str, str]
    boxes: tuple[np.ndarray, np.ndarray] | None

    @property
    def path(self) -> str:
        """The first path; names the image for audits and exports."""
        return self.paths[0]


class FolderConfig(PluginConfig):
    """Location of `dataset.yaml`."""

    path: str = Field(description="path/to/dataset.yaml")
    on_bad_row: Literal["fail", "skip"] = Field(
        default="fail",
        description="skip: skip rows that cannot be used, and report them in results",
    )


class FolderDataset(Dataset[FolderConfig]):
    """A table of images with labels, masks, boxes and reports, described by `dataset.yaml`."""

    summary = "your own images: a CSV table and a dataset.yaml, no code"
    licence = "as the data's"
    citation = "docs/add-a-data-set.md"
    layout = """
use: path/to/dataset.yaml, which names a CSV or TSV table, its columns, the folder of the images, masks,
  a COCO file and reports (docs/add-a-data-set.md)
"""

    @cached_property
    def described(self) -> Layout:
        """The parsed `dataset.yaml`."""
        return read_layout(Path(self.config.path))

    @cached_property
    def _base(self) -> Path:
        return Path(self.config.path).resolve().parent

    @cached_property
    def _table(self) -> Path:
        return resolve(self.described.table, self._base, self.config.path)

    @cached_property
    def _root(self) -> Path:
        given = self.described.root
        return resolve(given, self._base, self.config.path) if given else self._table.parent

    @cached_property
    def _coco(self) -> CocoBoxes | None:
        if self.described.boxes is None:
            return None
        return read_coco(resolve(self.described.boxes, self._base, self.config.path))

    @property
    def info(self) -> DatasetInfo:
        layout, labels = self.described, self.described.labels
        multiclass = labels is not None and labels.multiclass is not None
        names = () if labels is None else tuple(labels.classes if multiclass else labels.multilabel)
        channels = 3 if layout.colour == "rgb" else len(layout.images)
        return DatasetInfo(
            name=layout.name,
            version=layout.version,
            labels=names,
            label_kind="multiclass" if multiclass else "multilabel",
            mask_classes=tuple(layout.masks),
            box_classes=self._coco.classes if self._coco else (),
            has_reports=bool(layout.reports),
            truths=(
                *(Truth(name, "number") for name in layout.numbers),
                *(Truth(name, "vector", len(columns)) for name, columns in layout.vectors.items()),
                *(Truth(name, "text") for name in layout.texts),
            ),
            channels=channels,
            mean=tuple(layout.mean or [0.5] * channels),
            std=tuple(layout.std or [0.25] * channels),
            flaws=self._flaws,
        )

    @cached_property
    def _rows(self) -> list[TableRow]:
        rows = list(read_table(self._table, _columns(self.described), self._bad))
        allowed = {
            name: {value} if isinstance(value, str) else set(value)
            for name, value in self.described.where.items()
        }
        kept = [
            r for r in rows if all(r.values[name] in values for name, values in allowed.items())
        ]
        if not kept:
            raise MissingError(
                f"{self._table}: none of {len(rows)} rows remains.", "Check `where` and the table."
            )
        return kept

    @cached_property
    def _bad(self) -> BadRows:
        return BadRows(self.config.on_bad_row == "skip")

    @property
    def _flaws(self) -> tuple[str, ...]:
        if self.config.on_bad_row == "fail":
            return ()
        self.records()
        return self._bad.flaws

    def records(self) -> Sequence[Record]:
        return self._records

    @cached_property
    def _records(self) -> list[Record]:
        records: list[Record] = []
        rows: dict[str, str] = {}
        for row in self._rows:
            with self._bad:
                record = self._record(row)
                # Without `skip`, `check_records` refuses the table.
                if self._bad.skip and record.id in rows:
                    raise DataError(
                        f"{record.row}: duplicate id '{record.id}' (first in {rows[record.id]}).",
                        "Ids must be unique; remove one row.",
                    )
                rows[record.id] = record.row
                records.append(record)
        if not records:
            raise MissingError(f"{self._table}: no usable row.", self._bad.messages[0])
        return records

    def _record(self, row: TableRow) -> Record:
        layout, location = self.described, f"{self._table.name} line {row.line}"
        for column in (layout.id, *layout.images, layout.patient):
            if not row.values[column]:
                raise DataError(f"{location}: '{column}' is empty.", "Every image needs one.")
        patient = row.values[layout.patient]
        texts = (row.values[name] for name in layout.reports)
        masks = {name: row.values[column] for name, column in layout.masks.items()}
        boxes = self._boxes_of(row)
        return Record(
            id=row.values[layout.id],
            patient=patient,
            split=self._split(row, patient, location),
            row=location,
            labels=self._labels(row, location),
            report=" ".join(filter(None, texts)) or None,
            distilled=self._distilled_of(row),
            # With several masks per image the truth is known only if all of them are given.
            has_mask=bool(masks) and all(masks.values()),
            has_boxes=boxes is not None,
            truths=self._truths(row, location),
            payload=RowFiles(tuple(row.values[name] for name in layout.images), masks, boxes),
        )

    @cached_property
    def _distilled_path(self) -> Path | None:
        file = self.described.distilled_file
        return resolve(file, self._base, self.config.path) if file else None

    @cached_property
    def _distilled(self) -> dict[str, str]:
        return read_distilled(self._distilled_path) if self._distilled_path else {}

    def _distilled_of(self, row: TableRow) -> str | None:
        layout = self.described
        if layout.distilled:
            return row.values[layout.distilled] or None
        return self._distilled.get(row.values[layout.distilled_id or layout.id]) or None

    def _split(self, row: TableRow, patient: str, location: str) -> str:
        rule = self.described.split
        if rule.column is None:
            return hash_split(patient, rule.hash, f"{self.described.name}/{self.described.version}")
        value = row.values[rule.column]
        split = rule.names.get(value, value)
        if split not in SPLITS:
            raise DataError(
                f"{location}: unknown split '{value}' in '{rule.column}'.",
                did_you_mean(value, [*SPLITS, *rule.names]) + " Or map it with `split.names`.",
            )
        return split

    def _labels(self, row: TableRow, location: str) -> tuple[int | None, ...] | None:
        rule = self.described.labels
        if rule is None:
            return None
        if rule.multiclass is not None:
            value = row.values[rule.multiclass]
            if not value:
                return (None,) * len(rule.classes)
            if value not in rule.classes:
                raise DataError(
                    f"{location}: unknown class '{value}' in '{rule.multiclass}'.",
                    did_you_mean(value, rule.classes),
                )
            return tuple(int(value == name) for name in rule.classes)
        values = []
        for column in rule.multilabel.values():
            text = row.values[column]
            if text not in ("", "0", "1", "0.0", "1.0"):
                raise DataError(
                    f"{location}: '{text}' in '{column}' is not a label.",
                    "Labels are 0, 1, or empty for unknown.",
                )
            values.append(int(float(text)) if text else None)
        return tuple(values)

    def _truths(self, row: TableRow, location: str) -> dict[str, Any]:
        layout = self.described
        truths: dict[str, Any] = {
            name: _number(row, column, location) for name, column in layout.numbers.items()
        }
        for name, columns in layout.vectors.items():
            values = [_number(row, column, location) for column in columns]
            if None in values and any(value is not None for value in values):
                empty = columns[values.index(None)]
                raise DataError(
                    f"{location}: '{empty}' is empty, other columns of '{name}' are not.",
                    "Give all numbers of a vector, or none.",
                )
            truths[name] = None if None in values else tuple(values)
        truths |= {name: row.values[column] or None for name, column in layout.texts.items()}
        return truths

    def _boxes_of(self, row: TableRow) -> tuple[np.ndarray, np.ndarray] | None:
        """Find the boxes of an image by its path, its file name, or its id."""
        if self._coco is None:
            return None
        path = row.values[self.described.images[0]]
        for name in (path, Path(path).name, row.values[self.described.id]):
            if name in self._coco.by_name:
                return self._coco.by_name[name]
        return None

    def _resolve(self, text: str, location: str) -> Path:
        return self._root / resolve_below_root(self._root, text, location)

    def _image(self, paths: tuple[str, ...], location: str) -> np.ndarray:
        images = [
            read_image(self._resolve(path, location), self.described.colour, location)
            for path in paths
        ]
        for path, image in zip(paths[1:], images[1:], strict=True):
            if image.shape != images[0].shape:
                raise DataError(
                    f"{location}: '{path}' is {image.shape[1]}x{image.shape[0]}, "
                    f"'{paths[0]}' {images[0].shape[1]}x{images[0].shape[0]}.",
                    "Images that are stacked as channels must have one size.",
                )
        return np.concatenate(images, axis=2)

    def load(self, record: Record, size: int) -> Sample:
        files: RowFiles = record.payload
        image = self._image(files.paths, record.row)
        layers = None
        if record.has_mask:
            masks = [
                read_mask(self._resolve(path, record.row), record.row)
                for path in files.masks.values()
            ]
            for (name, path), layer in zip(files.masks.items(), masks, strict=True):
                if layer.shape != image.shape[:2]:
                    raise DataError(
                        f"{record.row}: mask '{name}' ({path}) is {layer.shape[1]}x{layer.shape[0]}, "
                        f"image {image.shape[1]}x{image.shape[0]}.",
                        "Mask and image must have the same size.",
                    )
            layers = np.stack(masks)
        return Sample(image, layers, *(files.boxes or (None, None)))

    @cached_property
    def _hash(self) -> str:
        files: dict[str, str] = {}
        for row in self._rows:
            paths = [row.values[name] for name in self.described.images]
            paths += [row.values[column] for column in self.described.masks.values()]
            for path in filter(None, paths):
                files[path] = _file_hash(self._root / path)
        boxes = self.described.boxes
        coco = _file_hash(resolve(boxes, self._base, self.config.path)) if boxes else ""
        hashed_by_content = {"table", "root", "boxes", "distilled_file", "distilled_id"}
        layout = self.described.model_dump(exclude=hashed_by_content)
        parts = ["folder", 1, layout, _file_hash(self._table), coco, sorted(files.items())]
        if self._distilled_path:
            parts += [_file_hash(self._distilled_path), self.described.distilled_id]
        return identity(parts)

    def fingerprint(self) -> str:
        return self._hash


def _columns(layout: Layout) -> dict[str, str]:
    """Map each column to the field of `dataset.yaml` that asks for it."""
    columns = {layout.id: "id", layout.patient: "patient"}
    columns |= dict.fromkeys(layout.images, "image")
    if layout.split.column:
        columns[layout.split.column] = "split.column"
    if layout.labels is not None:
        columns |= {c: f"labels.multilabel.{n}" for n, c in layout.labels.multilabel.items()}
        if layout.labels.multiclass:
            columns[layout.labels.multiclass] = "labels.multiclass"
    columns |= {c: f"masks.{n}" for n, c in layout.masks.items()}
    columns |= dict.fromkeys(layout.reports, "reports")
    if layout.distilled:
        columns[layout.distilled] = "distilled"
    if layout.distilled_id:
        columns[layout.distilled_id] = "distilled_id"
    columns |= {column: f"numbers.{name}" for name, column in layout.numbers.items()}
    columns |= {c: f"vectors.{name}" for name, several in layout.vectors.items() for c in several}
    columns |= {column: f"texts.{name}" for name, column in layout.texts.items()}
    columns |= dict.fromkeys(layout.where, "where")
    return columns


def _number(row: TableRow, column: str, location: str) -> float | None:
    """Read a number; None where the field is empty.

    Raises:
        DataError: Not a finite number; names the row and column.
    """
    text = row.values[column].strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{location}: '{text}' in '{column}' is not a number.",
            "Write 12.5, or leave the field empty where the value is unknown.",
        )
    return value


def _file_hash(path: Path) -> str:
    """Hash the bytes of a file; `missing` if there is none (loading it then names the row)."""
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return _hash_bytes(path, state.st_mtime_ns, state.st_size)


@cache
def _hash_bytes(path: Path, mtime: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
