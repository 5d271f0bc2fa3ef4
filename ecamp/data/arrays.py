"""Decoded data sets: memory-mapped arrays at one size, keyed by content.

Decoding JPEG or DICOM costs more than a small encoder's forward pass, and every cell of a bench
reads the same images; so they are decoded once and every later reader maps the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecamp.api.dataset import Dataset, DatasetInfo, Record, Sample, Truth
from ecamp.api.encoder import AS_STORED, InputSpec
from ecamp.config import identity
from ecamp.data.decoding import BadImage, check_records, decode
from ecamp.data.normalise import adapt_info
from ecamp.data.splits import split_hash
from ecamp.errors import DataError, EcampError, MissingError
from ecamp.progress import Progress, no_progress
from ecamp.storage.cache import EntryLease, write_meta
from ecamp.storage.files import atomic_folder, cache_root, locked

_log = logging.getLogger(__name__)

FORMAT = 2  # bump when the arrays' layout or the resizing changes


@dataclass(frozen=True)
class Arrays:
    """Images and truths of a data set (or of some of its rows), in record order.

    Attributes:
        info: The data set's names; channels, mean and std of what an encoder sees (`adapt_info`).
        ids, patients, splits, reports, distilled: One string per image.
        images: uint8 (n, size, size, channels), channels as stored.
        labels: float32 (n, K), NaN = unknown; K may be 0.
        masks: bool (n, M, size, size); all False for images without truth.
        has_mask, has_boxes: bool (n,).
        boxes: float32 (all boxes, 4) x1, y1, x2, y2 in pixels; those of image i are
            `box_start[i]:box_start[i+1]`.
        box_classes: int64 (all boxes,).
        box_start: int64 (n + 1,).
        truths: Truths of the data set's own by name: number float64 (n,), vector float64 (n, length),
            NaN = unknown; text, n strings, empty = unknown; points, per image float32 (k, 2) in
            pixels, or None = unknown.
        skipped: `row: reason` of images skipped under `--on-bad-image skip`.
        split_hash: Hash of all ids and splits of the whole data set.
        key: Identity of the arrays.
        use: Lease that protects the mapped cache entry from eviction; None if nothing is mapped.
    """

    info: DatasetInfo
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    splits: tuple[str, ...]
    reports: tuple[str, ...]
    distilled: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    has_mask: np.ndarray
    has_boxes: np.ndarray
    boxes: np.ndarray
    box_classes: np.ndarray
    box_start: np.ndarray
    truths: Mapping[str, Any]
    skipped: tuple[str, ...]
    split_hash: str
    key: str
    use: EntryLease | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def channels(self) -> int:
        """Number of channels that an encoder sees."""
        return self.info.channels

    def where(self, split: str) -> np.ndarray:
        """Return the int64 indices of the images of one split."""
        return np.array([i for i, s in enumerate(self.splits) if s == split], np.int64)

    def known(self, need: str) -> np.ndarray:
        """Mark the images that have a truth: bool (n,).

        Args:
            need: `labels`, `mask`, `boxes`, `report` or a name of `truths`, as in `TaskPlugin.needs`.
        """
        if need == "labels":
            labelled: np.ndarray = np.isfinite(self.labels).any(1)
            return labelled
        if need in ("mask", "boxes"):
            return {"mask": self.has_mask, "boxes": self.has_boxes}[need]
        values = self.reports if need == "report" else self.truths[need]
        if isinstance(values, np.ndarray):
            return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
        return np.array([_is_known(value) for value in values], bool)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the reports, or a truth of kind `text`: one string per image."""
        return self.reports if name == "report" else tuple(self.truths[name])

    def truths_of(self, rows: np.ndarray) -> dict[str, Any]:
        """Select the data set's own truths of some rows."""
        return {name: _select(values, rows) for name, values in self.truths.items()}

    def boxes_of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (k, 4) and classes (k,) of one image."""
        start, end = self.box_start[index], self.box_start[index + 1]
        return self.boxes[start:end], self.box_classes[start:end]

    def subset(self, rows: np.ndarray) -> Arrays:
        """Copy some rows, boxes re-indexed; images and masks are read into memory."""
        pairs = [self.boxes_of(int(i)) for i in rows]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            patients=tuple(self.patients[i] for i in rows),
            splits=tuple(self.splits[i] for i in rows),
            reports=tuple(self.reports[i] for i in rows),
            distilled=tuple(self.distilled[i] for i in rows),
            images=self.images[rows],
            labels=self.labels[rows],
            masks=self.masks[rows],
            has_mask=self.has_mask[rows],
            has_boxes=self.has_boxes[rows],
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *(b for b, _ in pairs)]),
            box_classes=np.concatenate([np.zeros(0, np.int64), *(k for _, k in pairs)]),
            box_start=np.cumsum([0] + [len(b) for b, _ in pairs]).astype(np.int64),
            truths=self.truths_of(rows),
        )


def _is_known(value: str | np.ndarray | None) -> bool:
    """Whether a text or points are known; an image may be known to have no point."""
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _select(values: Any, rows: np.ndarray) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else tuple(values[i] for i in rows)


def materialise(
    dataset: Dataset,
    size: int,
    *,
    splits: Sequence[str],
    expected: InputSpec = AS_STORED,
    on_bad_image: str = "fail",
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Arrays:
    """Decode the named splits at `size`, or map arrays that were decoded before.

    Args:
        size: Side of the images in pixels.
        splits: The splits to decode.
        expected: Input of the encoder that the images are for.
        on_bad_image: `fail` raises at the first bad image, `skip` skips and records it.
        cache: Cache folder; default as `cache_root`.
        workers: Processes for decoding; default one per core.
        progress: Receives images as they are decoded.

    Raises:
        DataError: A bad image under `fail`; a patient in two splits; an empty data set.
        EcampError: The cache cannot be written, or is damaged.
        MissingError: No image in these splits.
    """
    records = list(dataset.records())
    check_records(records, dataset.info)
    whole = split_hash([r.id for r in records], [r.split for r in records])
    chosen = [record for record in records if record.split in splits]
    if not chosen:
        raise MissingError(
            f"{dataset.info.name}: no image in split {' or '.join(splits)}.",
            f"It has: {', '.join(sorted({r.split for r in records}))}.",
        )
    ids = [record.id for record in chosen]
    key = arrays_key(dataset, ids, size, splits, on_bad_image, expected.fit)
    folder = cache_root(cache) / "arrays" / key
    with locked(folder.with_suffix(".lock")):
        if not (folder / "meta.json").exists():
            _log.info("decoding %d images of %s at %d px", len(chosen), dataset.info.name, size)
            samples = decode(dataset, chosen, size, workers, expected.fit)
            _write_arrays(dataset, samples, len(chosen), size, on_bad_image, folder, progress)
        use = EntryLease(folder)
    return _open(folder, adapt_info(dataset.info, expected), chosen, whole, key, use)


def arrays_key(
    dataset: Dataset, ids: Sequence[str], size: int, splits: Sequence[str], on_bad_image: str,
    fit: str,
) -> str:  # fmt: skip
    """Compute the identity of the arrays that `materialise` returns; it names their cache folder.

    Args:
        ids: Of the images, in the order of the records: pixels are stored in it, labels are not, and
            a data set that lists its records in another order must not get other images' pixels.
    """
    order = hashlib.sha256("\0".join(ids).encode()).hexdigest()[:16]
    parts = [
        FORMAT, dataset.identity, order, size, sorted(splits), on_bad_image, dataset.info.channels,
    ]  # fmt: skip
    return identity(parts if fit == "pad" else [*parts, fit])


def _write_arrays(
    dataset: Dataset, samples: Iterable[Sample | BadImage], count: int, size: int, on_bad: str,
    folder: Path, progress: Progress,
) -> None:  # fmt: skip
    try:
        with atomic_folder(folder) as work:
            _fill(work, dataset, samples, count, size, on_bad, progress)
    except OSError as error:
        raise EcampError(
            f"{folder}: cannot be written: {error.strerror or error}.",
            "Free disk space (`ecamp cache gc`), or choose another cache folder with --cache.",
        ) from error


def _fill(
    work: Path, dataset: Dataset, samples: Iterable[Sample | BadImage], count: int, size: int,
    on_bad: str, progress: Progress,
) -> None:  # fmt: skip
    channels, classes = dataset.info.channels, len(dataset.info.mask_classes)
    images = np.lib.format.open_memmap(
        work / "images.npy", "w+", np.uint8, (count, size, size, channels)
    )
    masks = np.lib.format.open_memmap(work / "masks.npy", "w+", bool, (count, classes, size, size))
    boxes: list[np.ndarray] = []
    box_classes: list[np.ndarray] = []
    points: list[Mapping[str, np.ndarray]] = []
    kept: list[int] = []
    skipped: list[str] = []
    no_boxes, no_classes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    progress(0, count, "images")
    for index, sample in enumerate(samples):
        progress(index + 1, count, "images")
        if isinstance(sample, BadImage):
            if on_bad == "fail":
                raise DataError(sample.message)
            skipped.append(sample.message.splitlines()[0])
            continue
        position = len(kept)
        images[position] = sample.image
        if sample.mask is not None and classes:
            masks[position] = sample.mask
        boxes.append(no_boxes if sample.boxes is None else sample.boxes.reshape(-1, 4))
        box_classes.append(no_classes if sample.box_classes is None else sample.box_classes)
        points.append(sample.points)
        kept.append(index)
    images.flush()
    masks.flush()
    starts = np.cumsum([0] + [len(b) for b in boxes]).astype(np.int64)
    truth: dict[str, Any] = {
        "kept": np.array(kept, np.int64),
        "boxes": np.concatenate([*boxes, no_boxes]),
        "classes": np.concatenate([*box_classes, no_classes]),
        "starts": starts,
        **_packed_points(dataset.info, points),
    }
    np.savez(work / "truth.npz", **truth)
    label = f"{dataset.info.split_id}, {len(kept)} images of {size} px"
    files = ("images.npy", "masks.npy", "truth.npz")
    write_meta(work, label, files, skipped=skipped, size=size)


def _open(
    folder: Path, info: DatasetInfo, records: list[Record], whole: str, key: str, use: EntryLease
) -> Arrays:
    try:
        truth = np.load(folder / "truth.npz")
        images = np.load(folder / "images.npy", mmap_mode="r")
        masks = np.load(folder / "masks.npy", mmap_mode="r")
        skipped = json.loads((folder / "meta.json").read_text())["skipped"]
        boxes = truth["boxes"], truth["classes"], truth["starts"]
        points = {t.name: _points(truth, t.name) for t in info.truths if t.kind == "points"}
        rows = [records[i] for i in truth["kept"]]
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise EcampError(
            f"{folder}: damaged cache: {error}.",
            "Delete it: ecamp cache verify --kind arrays --delete",
        ) from error
    images, masks = images[: len(rows)], masks[: len(rows)]
    return assemble(info, rows, images, masks, boxes, points, tuple(skipped), whole, key, use)


def _packed_points(
    info: DatasetInfo, points: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Lay the points of all images behind one another; -1 points where they are unknown."""
    packed = {}
    for name in (truth.name for truth in info.truths if truth.kind == "points"):
        known = [image[name] for image in points if name in image]
        packed[f"points/{name}"] = np.concatenate([np.zeros((0, 2), np.float32), *known])
        packed[f"counts/{name}"] = np.array([len(p[name]) if name in p else -1 for p in points])
    return packed


def _points(truth: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray | None, ...]:
    """Undo `_packed_points` for one name."""
    counts = truth[f"counts/{name}"]
    parts = np.split(truth[f"points/{name}"], np.cumsum(np.maximum(counts, 0)))
    return tuple(part if count >= 0 else None for part, count in zip(parts, counts, strict=False))


def assemble(
    info: DatasetInfo,
    rows: Sequence[Record],
    images: np.ndarray,
    masks: np.ndarray,
    boxes: tuple[np.ndarray, np.ndarray, np.ndarray],
    points: Mapping[str, Any],
    skipped: tuple[str, ...],
    whole: str,
    key: str,
    use: EntryLease | None = None,
) -> Arrays:
    """Build arrays from records and their pixels.

    Args:
        images, masks: One per record, as in `Arrays`.
        boxes: `boxes`, `box_classes`, `box_start` of `Arrays`.
        points: Truths of kind `points`, as in `Arrays.truths`.
        whole: Split hash of the whole data set.
    """
    unknown = [None] * len(info.labels)
    labels = np.array(
        [[np.nan if v is None else v for v in row.labels or unknown] for row in rows], np.float32
    ).reshape(len(rows), len(info.labels))
    return Arrays(
        info=info,
        ids=tuple(row.id for row in rows),
        patients=tuple(row.patient for row in rows),
        splits=tuple(row.split for row in rows),
        reports=tuple(row.report or "" for row in rows),
        distilled=tuple(row.distilled or "" for row in rows),
        images=images,
        labels=labels,
        masks=masks,
        has_mask=np.array([row.has_mask for row in rows], bool),
        has_boxes=np.array([row.has_boxes for row in rows], bool),
        boxes=boxes[0],
        box_classes=boxes[1],
        box_start=boxes[2],
        truths={
            truth.name: points[truth.name] if truth.kind == "points" else _values(truth, rows)
            for truth in info.truths
        },
        skipped=skipped,
        split_hash=whole,
        key=key,
        use=use,
    )


def _values(truth: Truth, rows: Sequence[Record]) -> Any:
    """Collect a truth of the records, as `Arrays.truths` describes it."""
    values = [row.truths.get(truth.name) for row in rows]
    if truth.kind == "text":
        return tuple(value or "" for value in values)
    if truth.kind == "number":
        return np.array([np.nan if value is None else value for value in values], np.float64)
    unknown = [np.nan] * truth.length
    numbers = np.array([unknown if value is None else list(value) for value in values], np.float64)
    return numbers.reshape(len(rows), truth.length)
