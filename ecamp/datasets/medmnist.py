"""MedMNIST+: PneumoniaMNIST, ChestMNIST and RetinaMNIST at 28 to 224 pixels, from their npz files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.config import identity
from ecamp.datasets.chestxray14 import FINDINGS, NOT_OFFICIAL
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import NO_PATIENTS, PublicConfig, PublicDataset
from ecamp.errors import DataError
from ecamp.io.npz import map_array, members

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Set:
    labels: tuple[str, ...]
    label_kind: str
    counts: tuple[int, int, int]
    colour: str = "grey"
    flaws: tuple[str, ...] = ()


SETS = {
    "pneumoniamnist": _Set(("pneumonia",), "multilabel", (4_708, 524, 624)),
    # Made from the images of chestxray14, in the splits of chestxray14/mrm.
    "chestmnist": _Set(FINDINGS, "multilabel", (78_468, 11_219, 22_433), flaws=(NOT_OFFICIAL,)),
    "retinamnist": _Set(
        ("no DR", "mild", "moderate", "severe", "proliferative"), "multiclass", (1_080, 120, 400), "rgb"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ArrayIndex:
    """Payload of a record: array and index of its image."""

    split: str
    index: int


class MedMNISTConfig(PublicConfig):
    """Choice of the file."""

    size: Literal[28, 64, 128, 224] = Field(default=28, description="side of the images in pixels")


class MedMNIST(PublicDataset[MedMNISTConfig]):
    """Small images of three sets, in the splits of the file."""

    summary = "MedMNIST+ pneumoniamnist, chestmnist, retinamnist: small images, no account needed"
    licence = "CC BY 4.0"
    citation = "Yang et al., MedMNIST v2, Scientific Data 2023"
    layout = """
get: https://zenodo.org/records/10519652, for example pneumoniamnist_224.npz
use: medmnist/pneumoniamnist?root=FOLDER&size=224 (or chestmnist, retinamnist; 28, 64, 128, 224)
root contains the npz file as downloaded: NAME.npz for 28 pixels, NAME_64.npz, NAME_128.npz, NAME_224.npz
images are unpacked once into the cache and mapped from there
"""
    name = "medmnist"
    family = True
    named_splits: ClassVar[SplitsByName] = {
        "official": NamedSplits(
            "the splits of the file.",
            flaws=(NO_PATIENTS,),
        )
    }

    @classmethod
    def variants(cls) -> Sequence[str]:
        return tuple(SETS)

    @property
    def splits(self) -> NamedSplits:
        splits, facts = super().splits, SETS[self.variant or ""]
        return NamedSplits(splits.description, facts.counts, flaws=(*facts.flaws, *splits.flaws))

    @property
    def info(self) -> DatasetInfo:
        facts = SETS[self.variant or ""]
        channels = 1 if facts.colour == "grey" else 3
        return self.describe(
            name=f"{self.name}-{self.variant}", labels=facts.labels, label_kind=facts.label_kind,
            channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels,
        )  # fmt: skip

    @property
    def version(self) -> str:
        return f"{super().version}+{self.config.size}px"

    @property
    def _file(self) -> Path:
        suffix = "" if self.config.size == 28 else f"_{self.config.size}"
        return self.source(f"{self.variant}{suffix}.npz")

    def _read(self) -> Iterable[Record]:
        path, facts = self._file, SETS[self.variant or ""]
        for split in SPLITS:
            images = map_array(path, f"{split}_images")
            labels = np.asarray(map_array(path, f"{split}_labels"))
            size, channels = self.config.size, 1 if facts.colour == "grey" else 3
            if images.shape[1:3] != (size, size) or images.shape[3:] not in ((channels,), ()):
                raise DataError(
                    f"{path}: {split}_images is {images.shape}, not (n, {size}, {size}).",
                    "Is this another file under the same name?",
                )
            multiclass = facts.label_kind == "multiclass"
            columns, values = (1, len(facts.labels)) if multiclass else (len(facts.labels), 2)
            if labels.shape != (len(images), columns) or not np.isin(labels, range(values)).all():
                raise DataError(
                    f"{path}: {split}_labels is {labels.shape}, values {np.unique(labels)[:6]}; expected "
                    f"({len(images)}, {columns}) of 0 to {values - 1}.",
                    "Download the file again.",
                )
            if multiclass:
                labels = np.eye(len(facts.labels), dtype=int)[labels[:, 0]]
            for k, row in enumerate(labels.astype(int).tolist()):
                yield Record(
                    f"{split}/{k}", f"{split}/{k}", split, f"{path.name} {split} {k}", tuple(row),
                    payload=ArrayIndex(split, k),
                )  # fmt: skip

    def _check_images(self, records: list[Record]) -> None:
        pass  # the images are in the same file as the records

    def load(self, record: Record, size: int) -> Sample:
        image = np.array(
            map_array(self._file, f"{record.payload.split}_images")[record.payload.index]
        )
        return Sample(image if image.ndim == 3 else image[..., None])

    def fingerprint(self) -> str:
        # The archive contains a checksum of each array: gigabytes need not be read.
        sums = sorted((info.filename, info.CRC, info.file_size) for info in members(self._file))
        return identity([self.name, 1, self.variant, self.version, sums])
