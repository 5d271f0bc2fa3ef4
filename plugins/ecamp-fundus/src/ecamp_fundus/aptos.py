"""APTOS 2019: grades of diabetic retinopathy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from ecamp.api import (
    SHARES,
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

GRADES = ("none", "mild", "moderate", "severe", "proliferative")  # 0..4: the order counts for kappa


class APTOS(FundusDataset):
    """One grade an image; the classes are ordered."""

    summary = "APTOS 2019: 3,662 photographs, 5 ordered grades of diabetic retinopathy"
    licence = "competition rules: non-commercial research"
    citation = "APTOS 2019 Blindness Detection, Kaggle 2019"
    layout = """
get: https://www.kaggle.com/c/aptos2019-blindness-detection
root holds train.csv (id_code, diagnosis) and train_images/*.png; the competition's test has no labels
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
            for split, row, where in self.published():
                with self.bad:
                    if row.labels is None or len(row.labels) != 1:
                        raise DataError(
                            f"{where}: not one grade.", "A row is `001639a390f0.png 4`."
                        )
                    yield self._record(row.image, split, str(row.labels[0]), where)
            return
        yield from self.drawn(self._graded(), SHARES)

    def _graded(self) -> Iterator[Record]:
        path = self.source("train.csv")
        for line in read_table(path, ("id_code", "diagnosis"), self.bad):
            where = f"{path.name} line {line.line}"
            with self.bad:
                name = line.values["id_code"]
                if not name:
                    raise DataError(f"{where}: 'id_code' is empty.")
                grade = line.values["diagnosis"]
                yield self._record(f"{name}.png", "", grade, where)

    def _record(self, path: str, split: str, grade: str, where: str) -> Record:
        if grade not in ("0", "1", "2", "3", "4"):
            raise DataError(f"{where}: '{grade}' is no grade.", "Grades are 0 to 4.")
        labels = tuple(int(k == int(grade)) for k in range(len(GRADES)))
        name = image_name(path)
        return Record(
            name, name, split, where, labels, payload=ImagePayload(self.place(path, where))
        )
