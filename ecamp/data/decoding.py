"""Records to samples: checks of a table and of each image's truth, and decoding in parallel."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from joblib import Parallel, delayed

from ecamp.api.dataset import SPLITS, Dataset, DatasetInfo, Record, Sample
from ecamp.data.letterbox import fit_square
from ecamp.errors import DataError
from ecamp.plugin.blame import blamed

CHUNK = 64  # images per task of a worker process


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used.

    Attributes:
        message: The reason with its hint; errors themselves do not always survive pickling.
    """

    message: str


def check_records(records: Sequence[Record], info: DatasetInfo) -> None:
    """Check ids and patients of a table.

    Splits that are known to leak, and declare it, may have an image or a patient in several splits.

    Raises:
        DataError: No rows; a duplicate id; a patient in two splits; a truth that the data set does
            not declare, or of another kind; names the rows.
    """
    if not records:
        raise DataError(f"{info.name}: no rows.", "Check `table` and `where` of the data set.")
    seen: dict[tuple[str, str], Record] = {}
    first_of: dict[str, Record] = {}
    for record in records:
        key = (record.id, record.split if info.leaks else "")
        if key in seen:
            raise DataError(
                f"{info.name}: duplicate id '{record.id}' ({seen[key].row} and {record.row}).",
                "Ids must be unique; remove one row.",
            )
        seen[key] = record
        _check_labels(record, info)
        _check_truths(record, info)
        first = first_of.setdefault(record.patient, record)
        if first.split != record.split and not info.leaks:
            raise DataError(
                f"{info.name}: patient '{record.patient}' is in {first.split} ({first.row}) and in "
                f"{record.split} ({record.row}).",
                "A patient must be in one split, otherwise the test leaks; fix the split column.",
            )


def _check_labels(record: Record, info: DatasetInfo) -> None:
    location = f"{info.name}: {record.id} ({record.row})"
    if record.split not in SPLITS:
        raise DataError(f"{location}: unknown split '{record.split}'.", f"Use {', '.join(SPLITS)}.")
    if record.labels is None:
        return
    if len(record.labels) != len(info.labels) or not set(record.labels) <= {0, 1, None}:
        raise DataError(
            f"{location}: labels are {record.labels}, not {len(info.labels)} of 0, 1 or None.",
            "One value per class of DatasetInfo.labels.",
        )


def _check_truths(record: Record, info: DatasetInfo) -> None:
    declared = {truth.name: truth for truth in info.truths}
    for name, value in record.truths.items():
        location = f"{info.name}: {record.id} ({record.row})"
        truth = declared.get(name)
        if truth is None:
            raise DataError(
                f"{location}: truth '{name}' is not declared.",
                f"DatasetInfo.truths has {', '.join(declared) or 'none'}.",
            )
        if value is None:
            continue
        if truth.kind == "points":
            raise DataError(f"{location}: truth '{name}': points come with Sample.points.")
        if truth.kind == "text":
            if not isinstance(value, str):
                raise DataError(f"{location}: truth '{name}' is {value!r}, not a text.")
            continue
        numbers = [value] if truth.kind == "number" else list(value)
        if len(numbers) != (truth.length or 1) or not all(map(_is_finite, numbers)):
            expected = "a finite number" if truth.kind == "number" else f"{truth.length} numbers"
            raise DataError(
                f"{location}: truth '{name}' is {value!r}, not {expected}.",
                "Use None for an unknown value.",
            )


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def load_sample(dataset: Dataset, record: Record, size: int) -> Sample:
    """Load one sample as it is; what a plugin of another package raises names that plugin."""
    origin = getattr(dataset, "origin", None)  # a stranger's __getstate__ may leave it behind
    with blamed(origin, f"{type(dataset).__qualname__}.load"):
        sample = dataset.load(record, size)
        if not isinstance(sample, Sample):
            raise TypeError(f"{type(sample).__name__} instead of a Sample")
    return sample


def check_sample(dataset: Dataset, record: Record, size: int) -> Sample:
    """Load one sample and check its truth against the image.

    Raises:
        DataError: A mask of another size, a box that is empty or outside the image, a class out of
            range, points that are not declared; names the row.
    """
    sample = load_sample(dataset, record, size)
    location = f"{dataset.info.name}: {record.id} ({record.row})"
    if sample.image.ndim != 3 or sample.image.shape[2] != dataset.info.channels:
        raise DataError(
            f"{location}: the image has shape {sample.image.shape}, not (height, width, "
            f"{dataset.info.channels}).",
            "Volumes are not read: give slices as images, or neighbouring slices as channels.",
        )
    if sample.image.dtype != np.uint8:
        raise DataError(
            f"{location}: pixels are {sample.image.dtype}, not uint8.",
            "Scale them to 0..255 in `load`, with a window where the range is wider.",
        )
    height, width = sample.image.shape[:2]
    if sample.mask is not None and sample.mask.dtype != bool:
        raise DataError(f"{location}: the mask is {sample.mask.dtype}, not bool.",
                        "Give True inside: `mask > 0`.")  # fmt: skip
    if sample.mask is not None and sample.mask.shape[1:] != (height, width):
        raise DataError(
            f"{location}: mask is {sample.mask.shape[2]}x{sample.mask.shape[1]}, image {width}x{height}.",
            "Mask and image must have the same size.",
        )
    if sample.boxes is not None and sample.box_classes is not None:
        for box, class_id in zip(sample.boxes, sample.box_classes, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            # One pixel of tolerance: annotators and rounding put edges on the border.
            if not (-1 <= x1 < x2 <= width + 1 and -1 <= y1 < y2 <= height + 1):
                raise DataError(
                    f"{location}: box {[x1, y1, x2, y2]} is empty or outside the image ({width}x{height}).",
                    "Boxes are x1, y1, x2, y2 in pixels of the stored image.",
                )
            if not 0 <= class_id < len(dataset.info.box_classes):
                raise DataError(
                    f"{location}: box class {class_id} is out of range.",
                    f"The data set has {len(dataset.info.box_classes)} box classes.",
                )
    declared = {truth.name for truth in dataset.info.truths if truth.kind == "points"}
    for name, xy in sample.points.items():
        if name not in declared or xy.ndim != 2 or xy.shape[1] != 2:
            raise DataError(
                f"{location}: points '{name}' of shape {xy.shape} are not declared or not (k, 2).",
                f"DatasetInfo.truths has the points {', '.join(sorted(declared)) or 'none'}.",
            )
    return sample


def decode(
    dataset: Dataset,
    records: Sequence[Record],
    size: int,
    workers: int | None = None,
    fit: str = "pad",
) -> Iterator[Sample | BadImage]:
    """Load, check and fit images to a square in parallel, in the order of records.

    Args:
        size: Side of the samples in pixels.
        workers: Processes; default one per core.
        fit: As in `InputSpec`.
    """
    chunks = [records[i : i + CHUNK] for i in range(0, len(records), CHUNK)]
    tasks = (delayed(_decode_chunk)(dataset, chunk, size, fit) for chunk in chunks)
    jobs = min(workers or os.cpu_count() or 1, len(chunks))
    for results in Parallel(n_jobs=jobs, return_as="generator")(tasks):
        yield from results


def _decode_chunk(
    dataset: Dataset, records: Sequence[Record], size: int, fit: str
) -> list[Sample | BadImage]:
    results: list[Sample | BadImage] = []
    for record in records:
        try:
            results.append(fit_square(check_sample(dataset, record, size), size, fit))
        except DataError as error:
            results.append(BadImage(str(error)))
    return results
