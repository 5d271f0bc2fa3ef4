"""A data set decoded once, at one size, as memory-mapped arrays keyed by content.

Decoding JPEG or DICOM costs more than a small encoder's forward pass, and every cell of a bench
reads the same images; so they are read once and every later reader maps the file.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from ecamp.api.dataset import Dataset, DatasetInfo, Record, Sample
from ecamp.config import identity
from ecamp.data.letterbox import letterbox
from ecamp.data.splits import split_hash
from ecamp.errors import DataError, EcampError, MissingError
from ecamp.storage.cache import EntryLease, write_meta
from ecamp.storage.files import atomic_folder, cache_root, locked

FORMAT = 2  # bump when the arrays' layout or the resizing changes
CHUNK = 64


@dataclass(frozen=True)
class Arrays:
    """All images and truths of a data set (or some of its rows), in record order.

    Attributes:
        info: The data set's names.
        ids, patients, splits, reports, distilled: One string an image.
        images: uint8 (n, size, size, channels).
        labels: float32 (n, K), NaN = unknown; K may be 0.
        masks: bool (n, M, size, size); rows without truth are all False.
        has_mask, has_boxes: bool (n,).
        boxes: float32 (all boxes, 4) x1, y1, x2, y2 in pixels; `box_start[i]:box_start[i+1]` are
            image i's.
        box_classes: int64 (all boxes,).
        box_start: int64 (n + 1,).
        skipped: `row: reason` of images left out under `--on-bad-image skip`.
        split_hash: Hash of all ids and splits of the whole data set.
        key: Identity of the arrays.
        use: Keeps the mapped cache entry from being collected; None where nothing is mapped.
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
    skipped: tuple[str, ...]
    split_hash: str
    key: str
    use: EntryLease | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, split: str) -> np.ndarray:
        """Return the int64 indices of the images of one split."""
        return np.array([i for i, s in enumerate(self.splits) if s == split], np.int64)

    def known(self, need: str) -> np.ndarray:
        """Mark the images that have a truth: bool (n,).

        Args:
            need: `labels`, `mask`, `boxes` or `report`, as in `TaskPlugin.needs`.
        """
        if need == "labels":
            labelled: np.ndarray = np.isfinite(self.labels).any(1)
            return labelled
        if need == "report":
            return np.array([bool(report.strip()) for report in self.reports], bool)
        return {"mask": self.has_mask, "boxes": self.has_boxes}[need]

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
        )


def materialise(
    dataset: Dataset,
    size: int,
    *,
    splits: Sequence[str],
    on_bad_image: str = "fail",
    cache: Path | None = None,
    workers: int | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Arrays:
    """Decode the named splits at `size`, or map what was decoded before.

    Args:
        splits: Which splits are wanted.
        on_bad_image: `fail` raises at the first bad image, `skip` leaves it out and counts it.
        workers: Processes for decoding; default one a core.

    Raises:
        DataError: A bad image under `fail`; a patient in two splits; an empty data set.
    """
    records = list(dataset.records())
    check_records(records, dataset.info)
    whole = split_hash([r.id for r in records], [r.split for r in records])
    wanted = [record for record in records if record.split in splits]
    if not wanted:
        raise MissingError(
            f"{dataset.info.name}: no image in split {' or '.join(splits)}.",
            f"It has: {', '.join(sorted({r.split for r in records}))}.",
        )
    key = arrays_key(dataset, size, splits, on_bad_image)
    folder = cache_root(cache) / "arrays" / key
    with locked(folder.with_suffix(".lock")):
        if not (folder / "meta.json").exists():
            log(f"decoding {len(wanted)} images of {dataset.info.name} at {size} px")
            _decode(dataset, wanted, size, on_bad_image, folder, workers or os.cpu_count() or 1)
        use = EntryLease(folder)
    return _open(folder, dataset.info, wanted, whole, key, use)


def arrays_key(dataset: Dataset, size: int, splits: Sequence[str], on_bad_image: str) -> str:
    """Identity of what `materialise` gives; the name of its cache folder."""
    return identity(
        [FORMAT, dataset.fingerprint(), size, sorted(splits), on_bad_image, dataset.info.colour]
    )


def check_records(records: Sequence[Record], info: DatasetInfo) -> None:
    """Refuse a table that cannot be trusted.

    A protocol that is known to leak, and says so, may name an image or a patient in several splits.

    Raises:
        DataError: No rows; an id twice; a patient in two splits; names the rows.
    """
    if not records:
        raise DataError(f"{info.name}: no rows.", "Check `table` and `where` of the data set.")
    seen: dict[tuple[str, str], Record] = {}
    home: dict[str, Record] = {}
    for record in records:
        key = (record.id, record.split if info.leaks else "")
        if key in seen:
            raise DataError(
                f"{info.name}: id '{record.id}' stands twice ({seen[key].row} and {record.row}).",
                "Ids must be unique; remove one row.",
            )
        seen[key] = record
        first = home.setdefault(record.patient, record)
        if first.split != record.split and not info.leaks:
            raise DataError(
                f"{info.name}: patient '{record.patient}' is in {first.split} ({first.row}) and in "
                f"{record.split} ({record.row}).",
                "A patient belongs to one split, else the test leaks; fix the split column.",
            )


def _load(dataset: Dataset, record: Record, size: int) -> tuple[object, ...] | str:
    """Load and fit one image; a bad one comes back as its message (errors cross processes badly)."""
    try:
        sample = letterbox(check_sample(dataset, record, size), size)
    except DataError as error:
        return str(error)
    return sample.image, sample.mask, sample.boxes, sample.box_classes


def check_sample(dataset: Dataset, record: Record, size: int) -> Sample:
    """Load one sample and check its truth against the image.

    Raises:
        DataError: Mask of another size, box outside the image or empty, class out of range.
    """
    sample = dataset.load(record, size)
    height, width = sample.image.shape[:2]
    where = f"{dataset.info.name}: {record.id} ({record.row})"
    if sample.mask is not None and sample.mask.shape[1:] != (height, width):
        raise DataError(
            f"{where}: mask is {sample.mask.shape[2]}x{sample.mask.shape[1]}, image {width}x{height}.",
            "Mask and image must have one size.",
        )
    if sample.boxes is not None and sample.box_classes is not None:
        for box, kind in zip(sample.boxes, sample.box_classes, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            # One pixel of slack: annotators and rounding put edges on the border.
            if not (-1 <= x1 < x2 <= width + 1 and -1 <= y1 < y2 <= height + 1):
                raise DataError(
                    f"{where}: box {[x1, y1, x2, y2]} lies outside the image ({width}x{height}) or is empty.",
                    "Boxes are x1, y1, x2, y2 in pixels of the stored image.",
                )
            if not 0 <= kind < len(dataset.info.box_classes):
                raise DataError(f"{where}: box class {kind} is out of range.")
    return sample


def _decode(
    dataset: Dataset, records: list[Record], size: int, on_bad: str, folder: Path, workers: int
) -> None:
    try:
        with atomic_folder(folder) as work:
            _decode_into(work, dataset, records, size, on_bad, workers)
    except OSError as error:
        raise EcampError(
            f"{folder}: cannot be written: {error.strerror or error}.",
            "Make room (`ecamp cache gc`), or choose another cache folder with --cache.",
        ) from error


def _decode_into(
    work: Path, dataset: Dataset, records: list[Record], size: int, on_bad: str, workers: int
) -> None:
    channels = 1 if dataset.info.colour == "grey" else 3
    count, layers = len(records), len(dataset.info.mask_classes)
    images = np.lib.format.open_memmap(
        work / "images.npy", "w+", np.uint8, (count, size, size, channels)
    )
    masks = np.lib.format.open_memmap(work / "masks.npy", "w+", bool, (count, layers, size, size))
    boxes: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    kept: list[int] = []
    skipped: list[str] = []
    chunks = [records[i : i + CHUNK] for i in range(0, count, CHUNK)]
    tasks = (delayed(_load_chunk)(dataset, chunk, size) for chunk in chunks)
    results = Parallel(n_jobs=min(workers, len(chunks)), return_as="generator")(tasks)
    position = 0
    for chunk_result in results:
        for result in chunk_result:
            index, position = position, position + 1
            if isinstance(result, str):
                if on_bad == "fail":
                    raise DataError(result)
                skipped.append(result.splitlines()[0])
                continue
            image, mask, box, kind = result
            at = len(kept)
            images[at] = image
            if mask is not None and layers:
                masks[at] = mask
            boxes.append(np.zeros((0, 4), np.float32) if box is None else box.reshape(-1, 4))
            classes.append(np.zeros(0, np.int64) if kind is None else kind)
            kept.append(index)
    images.flush()
    masks.flush()
    starts = np.cumsum([0] + [len(b) for b in boxes]).astype(np.int64)
    np.savez(
        work / "truth.npz",
        kept=np.array(kept, np.int64),
        boxes=np.concatenate([*boxes, np.zeros((0, 4), np.float32)]),
        classes=np.concatenate([*classes, np.zeros(0, np.int64)]),
        starts=starts,
    )
    label = f"{dataset.info.split_id}, {len(kept)} images of {size} px"
    files = ("images.npy", "masks.npy", "truth.npz")
    write_meta(work, label, files, skipped=skipped, size=size)


def _load_chunk(dataset: Dataset, chunk: list[Record], size: int) -> list[tuple[object, ...] | str]:
    return [_load(dataset, record, size) for record in chunk]


def _open(
    folder: Path, info: DatasetInfo, records: list[Record], whole: str, key: str, use: EntryLease
) -> Arrays:
    try:
        truth = np.load(folder / "truth.npz")
        images = np.load(folder / "images.npy", mmap_mode="r")
        masks = np.load(folder / "masks.npy", mmap_mode="r")
        skipped = json.loads((folder / "meta.json").read_text())["skipped"]
        boxes = truth["boxes"], truth["classes"], truth["starts"]
        rows = [records[i] for i in truth["kept"]]
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise EcampError(
            f"{folder}: damaged cache: {error}.",
            "Remove it: ecamp cache verify --kind arrays --delete",
        ) from error
    images, masks = images[: len(rows)], masks[: len(rows)]
    return assemble(info, rows, images, masks, boxes, tuple(skipped), whole, key, use)


def assemble(
    info: DatasetInfo,
    rows: Sequence[Record],
    images: np.ndarray,
    masks: np.ndarray,
    boxes: tuple[np.ndarray, np.ndarray, np.ndarray],
    skipped: tuple[str, ...],
    whole: str,
    key: str,
    use: EntryLease | None = None,
) -> Arrays:
    """Arrays from records and their pixels.

    Args:
        images, masks: One a record, as in `Arrays`.
        boxes: `boxes`, `box_classes`, `box_start` of `Arrays`.
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
        skipped=skipped,
        split_hash=whole,
        key=key,
        use=use,
    )
