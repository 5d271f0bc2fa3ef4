"""APTOS 2019: grades of diabetic retinopathy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from ecamp.api import (
    DEFAULT_FRACTIONS,
    DataError,
    DatasetInfo,
    ImagePayload,
    NamedSplits,
    Record,
    SplitsByName,
    image_name,
    read_table,
)
from ecamp_fundus.base import NO_PATIENTS, FundusDataset

GRADES = ("none", "mild", "moderate", "severe", "proliferative")  # 0..4: kappa depends on the order


class APTOS(FundusDataset):
    """APTOS 2019: one grade per image; the classes are ordered."""

    summary = "APTOS 2019: 3,662 photographs, 5 ordered grades of diabetic retinopathy"
    licence = "competition rules: non-commercial research"
    citation = "APTOS 2019 Blindness Detection, Kaggle 2019"
    layout = """
get: https://www.kaggle.com/c/aptos2019-blindness-detection
root contains train.csv (id_code, diagnosis) and train_images/*.png; the competition's test has no labels
lists: of ECAMP (`001639a390f0.png 4`, images flat in root or in train_images/)
"""
    name = "aptos"
    folders = ("train_images", "images")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of each grade in train.csv, by hash of id_code.",
            (2_563, 366, 733), "3fdaf8d9896ee99e", flaws=(NO_PATIENTS,),
        ),
        "ecamp-published": NamedSplits(
            "lists of ECAMP: blocks of the sorted ids.",
            (2_563, 366, 733),
            flaws=(NO_PATIENTS,),
            lists=(
                "ECAMP/Fine-tuning/Classification/datasets/Aptos",
                "Fine-tuning/Classification/datasets/Aptos", "datasets/Aptos", ".",
            ),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=GRADES, label_kind="multiclass")

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            for split, row, location in self.listed_rows():
                with self.bad:
                    if row.labels is None or len(row.labels) != 1:
                        raise DataError(
                            f"{location}: not one grade.", "Rows are like `001639a390f0.png 4`."
                        )
                    yield self._record(row.image, split, str(row.labels[0]), location)
            return
        yield from self.split_by_hash(self._graded(), DEFAULT_FRACTIONS)

    def _graded(self) -> Iterator[Record]:
        path = self.source("train.csv")
        for line in read_table(path, ("id_code", "diagnosis"), self.bad):
            location = f"{path.name} line {line.line}"
            with self.bad:
                name = line.values["id_code"]
                if not name:
                    raise DataError(
                        f"{location}: 'id_code' is empty.", "Fill it, or remove the row."
                    )
                grade = line.values["diagnosis"]
                yield self._record(f"{name}.png", "", grade, location)

    def _record(self, path: str, split: str, grade: str, location: str) -> Record:
        if grade not in ("0", "1", "2", "3", "4"):
            raise DataError(f"{location}: '{grade}' is not a grade.", "Grades are 0 to 4.")
        labels = tuple(int(k == int(grade)) for k in range(len(GRADES)))
        name = image_name(path)
        return Record(
            name,
            name,
            split,
            location,
            labels,
            payload=ImagePayload(self.resolve_path(path, location)),
        )
