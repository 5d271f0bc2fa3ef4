"""Estimates decoding cost from a few images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ecamp.api.dataset import Dataset, Record
from ecamp.api.encoder import AS_STORED, InputSpec
from ecamp.data.arrays import Arrays, arrays_key, assemble
from ecamp.data.decoding import check_records, check_sample
from ecamp.data.letterbox import fit_square
from ecamp.data.normalise import adapt_info
from ecamp.data.splits import split_hash
from ecamp.errors import DataError, MissingError


@dataclass(frozen=True)
class DatasetSample:
    """A data set before it is decoded.

    Attributes:
        arrays: Real records (texts, labels), each with the same decoded image; no masks, no boxes.
        count: Selected images of the whole data set.
        seconds: Time to decode one image.
        bytes: Size of all decoded arrays.
    """

    arrays: Arrays
    count: int
    seconds: float
    bytes: int


def sample_dataset(
    dataset: Dataset,
    records: Sequence[Record],
    size: int,
    *,
    splits: Sequence[str],
    expected: InputSpec = AS_STORED,
    on_bad_image: str = "fail",
    keep: Callable[[Record], bool] = lambda record: True,
    images: int = 4,
    max_records: int | None = None,
) -> DatasetSample:
    """Decode a few images, spread over the data set.

    Args:
        records: All records of the data set.
        expected: Input of the encoder that the images are for.
        keep: Selects the records that count.
        images: Number of images to decode.
        max_records: Upper bound of the records that the arrays hold.

    Raises:
        DataError: One of them is bad, under `fail`.
        MissingError: No image is wanted.
    """
    check_records(records, dataset.info)
    wanted = [record for record in records if record.split in splits and keep(record)]
    if not wanted:
        raise MissingError(f"{dataset.info.name}: no image in split {' or '.join(splits)}.")
    chosen = np.unique(np.linspace(0, len(wanted) - 1, images).round().astype(int))
    image, seconds = None, []
    for at in chosen:
        began = time.perf_counter()
        try:
            sample = check_sample(dataset, wanted[at], size)
            image = fit_square(sample, size, expected.fit).image
        except DataError:
            if on_bad_image == "fail":
                raise
        seconds.append(time.perf_counter() - began)
    if image is None:
        raise DataError(f"{dataset.info.name}: none of {len(chosen)} images can be read.")
    rows = wanted[:max_records]
    layers = len(dataset.info.mask_classes)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(len(rows) + 1, np.int64)
    arrays = assemble(
        adapt_info(dataset.info, expected),
        rows,
        np.broadcast_to(image, (len(rows), *image.shape)),
        np.broadcast_to(np.zeros((), bool), (len(rows), layers, size, size)),
        none,
        {truth.name: (None,) * len(rows) for truth in dataset.info.truths},
        (),
        split_hash([r.id for r in records], [r.split for r in records]),
        arrays_key(
            dataset,
            [r.id for r in records if r.split in splits],
            size,
            splits,
            on_bad_image,
            expected.fit,
        ),
    )
    # The first one also pays for imports and the disk's seek.
    typical = float(np.median(seconds[1:] or seconds))
    return DatasetSample(
        arrays, len(wanted), typical, len(wanted) * (image.nbytes + layers * size**2)
    )
