"""A look at a data set that decodes a few images: enough to measure what the whole will cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ecamp.data.arrays import Arrays, arrays_key, assemble, check_records, check_sample
from ecamp.data.fit import fit_square
from ecamp.data.splits import split_hash
from ecamp.errors import DataError, MissingError
from ecamp.plugin.protocols import Dataset, Record


@dataclass(frozen=True)
class Glimpse:
    """A data set before it is decoded.

    Attributes:
        arrays: Real records (texts, labels), each with the same decoded image; no masks, no boxes.
        count: Images that are wanted of the whole data set.
        seconds: To decode one image.
        bytes: Of all decoded arrays.
    """

    arrays: Arrays
    count: int
    seconds: float
    bytes: int


def glimpse(
    dataset: Dataset,
    every: Sequence[Record],
    size: int,
    *,
    splits: Sequence[str],
    on_bad_image: str = "fail",
    keep: Callable[[Record], bool] = lambda record: True,
    images: int = 4,
    most: int | None = None,
) -> Glimpse:
    """Decode a few images, spread over the data set.

    Args:
        every: All records of the data set.
        keep: Which of them count.
        images: How many are decoded.
        most: How many records the arrays hold at most.

    Raises:
        DataError: One of them is bad, under `fail`.
        MissingError: No image is wanted.
    """
    check_records(every, dataset.info)
    wanted = [record for record in every if record.split in splits and keep(record)]
    if not wanted:
        raise MissingError(f"{dataset.info.name}: no image in split {' or '.join(splits)}.")
    chosen = np.unique(np.linspace(0, len(wanted) - 1, images).round().astype(int))
    image, seconds = None, []
    for at in chosen:
        began = time.perf_counter()
        try:
            image = fit_square(check_sample(dataset, wanted[at], size), size).image
        except DataError:
            if on_bad_image == "fail":
                raise
        seconds.append(time.perf_counter() - began)
    if image is None:
        raise DataError(f"{dataset.info.name}: none of {len(chosen)} images can be read.")
    rows = wanted[:most]
    layers = len(dataset.info.mask_classes)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(len(rows) + 1, np.int64)
    arrays = assemble(
        dataset.info,
        rows,
        np.broadcast_to(image, (len(rows), *image.shape)),
        np.broadcast_to(np.zeros((), bool), (len(rows), layers, size, size)),
        none,
        (),
        split_hash([r.id for r in every], [r.split for r in every]),
        arrays_key(dataset, size, splits, on_bad_image),
    )
    # The first one also pays for imports and the disk's seek.
    typical = float(np.median(seconds[1:] or seconds))
    return Glimpse(arrays, len(wanted), typical, len(wanted) * (image.nbytes + layers * size**2))
