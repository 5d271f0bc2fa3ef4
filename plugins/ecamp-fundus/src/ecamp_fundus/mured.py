"""MuReD: 2,208 photographs from three collections, twenty diseases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from pydantic import Field

from ecamp.api import (
    DataError,
    DatasetInfo,
    ImagePayload,
    NamedSplits,
    PublicConfig,
    Record,
    SplitsByName,
    few_shot,
    image_name,
    read_table,
)
from ecamp_fundus.base import NO_PATIENTS, FundusDataset

CLASSES = (
    "DR", "NORMAL", "MH", "ODC", "TSLN", "ARMD", "DN", "MYA", "BRVO", "ODP", "CRVO", "CNV", "RS",
    "ODE", "LS", "CSR", "HTR", "ASR", "CRS", "OTHER",
)  # fmt: skip


class MuReDConfig(PublicConfig):
    """Number of training images."""

    shots: int = Field(
        default=5, ge=1, description="training images per class, for splits=few-shot"
    )


class MuReD(FundusDataset[MuReDConfig]):
    """MuReD: diseases of an eye, several per image."""

    summary = "MuReD: 2,208 photographs, 20 diseases"
    licence = "CC BY 4.0"
    citation = (
        "Rodriguez et al., Multi-Label Retinal Disease Classification using Transformers, 2022"
    )
    layout = """
get: https://data.mendeley.com/datasets/pc4mb3h8hz
root contains train_data.csv and val_data.csv (ID and 20 columns) and images/, with images/*.png and *.tif;
  images/images/ is read too
lists: of ECAMP (`aria_c_28_19.tif 0 1 0 ...`, images flat in root or in images/)
"""
    name = "mured"
    folders = ("images",)
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "val_data.csv is the test; validation is an eighth of each class of train_data.csv, by hash.",
            (1_542, 222, 444), "a6fd22a23a122417", flaws=(NO_PATIENTS,),
        ),
        "few-shot": NamedSplits(
            "as ecamp, but training on a few images per class (shots=5), the rarest class first, by hash.",
            flaws=(NO_PATIENTS,),
        ),
        "ecamp-published": NamedSplits(
            "lists of ECAMP: val_data.csv is the test.",
            (1_542, 222, 444),
            flaws=(NO_PATIENTS, "CRS has two positive validation images; 1 % has 7 of 20 classes"),
            lists=(
                "ECAMP/Fine-tuning/Classification/datasets/MURED",
                "Fine-tuning/Classification/datasets/MURED", "datasets/MURED", ".",
            ),
        ),
    }  # fmt: skip

    def _version_suffix(self) -> tuple[str, ...]:
        return (f"{self.config.shots}-shot",) if self.splits_name == "few-shot" else ()

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=CLASSES)

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            for split, row, location in self.listed_rows():
                with self.bad:
                    yield self._record(row.image, split, row.labels or (), location)
            return
        fractions = {"train": 0.875, "val": 0.125}
        records = list(
            self.split_by_hash(self._table("train_data.csv", ""), fractions, "mured/ecamp")
        )
        if self.splits_name == "few-shot":
            train = [r for r in records if r.split == "train"]
            labels = [r.labels or () for r in train]
            chosen = few_shot([r.id for r in train], labels, self.config.shots, "mured/few-shot")
            records = [r for r in records if r.split != "train" or r.id in chosen]
        yield from records
        yield from self._table("val_data.csv", "test")

    def _table(self, table: str, split: str) -> Iterator[Record]:
        path = self.source(table)
        for line in read_table(path, ("ID", *CLASSES), self.bad):
            location = f"{path.name} line {line.line}"
            with self.bad:
                name = line.values["ID"]
                values = [line.values[column] for column in CLASSES]
                if not name or not set(values) <= {"0", "1"}:
                    raise DataError(
                        f"{location}: not an ID and twenty labels of 0 or 1.", "Correct the row."
                    )
                yield self._record(name, split, tuple(int(value) for value in values), location)

    def _record(self, path: str, split: str, labels: tuple[int, ...], location: str) -> Record:
        if len(labels) != len(CLASSES):
            raise DataError(
                f"{location}: {len(labels)} labels, expected {len(CLASSES)}.", "Correct the row."
            )
        name = image_name(path)
        return Record(
            name,
            name,
            split,
            location,
            labels,
            payload=ImagePayload(self.resolve_path(path, location)),
        )
