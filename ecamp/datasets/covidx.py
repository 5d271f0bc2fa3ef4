"""COVIDx: chest films from many sources; version 9A with three classes, CXR-4 with two."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.data.splits import hash_split
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import ImagePayload, PublicDataset
from ecamp.datasets.published_lists import ListRow, patient_of, read_list
from ecamp.errors import DataError, did_you_mean
from ecamp.io.folders import find_file, resolve_below_root

THREE = ("normal", "pneumonia", "COVID-19")
TWO = ("negative", "positive")
TRAIN, TEST = ("train_COVIDx9A.txt", "train.txt"), ("test_COVIDx9A.txt", "test.txt")


class COVIDx(PublicDataset):
    """One class per film; patients from the index files, else from file names that contain them."""

    summary = "COVIDx: normal, pneumonia or COVID-19 (9A); COVID-19 or not (CXR-4)"
    licence = "as of its sources; CXR-4: CC BY-NC-SA 4.0"
    citation = "Wang et al., COVID-Net, Scientific Reports 2020; Wu et al., COVIDx CXR-4, 2023"
    layout = """
get: https://www.kaggle.com/datasets/andyczhao/covidx-cxr2 (CXR-4; 9A, its version 7, is no longer offered)
root contains train/ and test/ (CXR-4: also val/) and train.txt, test.txt: `patient file class source`; or
  train_COVIDx9A.txt and test_COVIDx9A.txt of the COVID-Net repository
lists: of ECAMP (`train/FILE 2`: 0 normal, 1 pneumonia, 2 COVID-19) or MGCA (csv `filename,class,labels`)
most sources have one class only: a model can recognise the site instead of the disease (ecamp data audit)
"""
    name = "covidx"
    folders = ("train", "test", "val")
    named_splits: ClassVar[SplitsByName] = {
        "official": NamedSplits(
            "train.txt and test.txt of 9A; validation is a tenth of the patients of train.txt, by hash.",
            (27_319, 2_811, 400), "158b7d0bdfa08e62",
        ),
        "published": NamedSplits(
            "lists of ECAMP, images of 9A.", (27_117, 3_013, 400), "ab8aab9e92da6582", leaks=True,
            flaws=(
                "validation was drawn by image: 1,499 of 3,013 are of patients in training, by the index of 9A",
            ),
            lists=(
                "ECAMP/Fine-tuning/Classification/datasets/COVIDx",
                "Fine-tuning/Classification/datasets/COVIDx",
            ),
        ),
        "mgca": NamedSplits(
            "drawn from the rows of 9A as MGCA does (from its index, or MGCA's own csv files).",
            (24_104, 6_026, 400), "aac982bb6acc307c", leaks=True,
            flaws=(
                "validation was drawn by image: 3,036 of 6,026 are of patients in training, by the index of 9A",
            ),
            lists=(".",), needs_lists=False,
        ),
        "cxr-4": NamedSplits("train.txt, val.txt and test.txt of CXR-4, two classes."),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=self._classes, label_kind="multiclass")

    @property
    def _classes(self) -> tuple[str, ...]:
        return TWO if self.splits_name == "cxr-4" else THREE

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            for split, row, location in self.listed_rows():
                with self.bad:
                    if not row.labels or len(row.labels) != 1 or row.labels[0] not in range(3):
                        raise DataError(
                            f"{location}: '{row.labels}' is not a class.", "Classes are 0, 1 and 2."
                        )
                    word = THREE[row.labels[0]]
                    if row.word not in (None, word):
                        raise DataError(
                            f"{location}: class '{row.word}' does not match label {row.labels[0]}, {word}.",
                            "Correct one of them.",
                        )
                    name = row.image.rsplit("/", 1)[-1]
                    path = row.image
                    if self.splits_name == "mgca":
                        path = f"{'test' if split == 'test' else 'train'}/{name}"
                    patient = self._patients.get(name) or patient_of(name) or name
                    yield self._record(path, patient, split, word, location)
        elif self.splits_name == "cxr-4":
            for split in ("train", "val", "test"):
                for row, location in self._index(f"{split}.txt"):
                    yield from self._indexed(row, location, split, split)
        elif self.splits_name == "mgca":
            yield from self._mgca()
        else:
            for row, location in self._index(*TRAIN):
                fractions = {"train": 0.9, "val": 0.1}
                split = hash_split(row.patient or row.image, fractions, "covidx/official")
                yield from self._indexed(row, location, split, "train")
            for row, location in self._index(*TEST):
                yield from self._indexed(row, location, "test", "test")

    def _mgca(self) -> Iterable[Record]:
        from sklearn.model_selection import train_test_split

        train, val = train_test_split(list(self._index(*TRAIN)), train_size=0.8, random_state=0)
        test = list(self._index(*TEST))
        for split, rows in (("train", train), ("val", val), ("test", test)):
            for row, location in rows:
                yield from self._indexed(
                    row, location, split, "test" if split == "test" else "train"
                )

    def _index(self, *names: str) -> Iterable[tuple[ListRow, str]]:
        path = self.source(*names)
        lst = read_list(path, "train", bad=self.bad)
        if lst.form != "covidx":
            raise DataError(
                f"{path}: rows are not `patient file class source`.",
                "To read lists of ECAMP, use splits=published&lists=FOLDER.",
            )
        seen: dict[str, str] = {}
        for row in lst.rows:
            location = f"{path.name} line {row.line}"
            with self.bad:
                if row.image in seen:
                    raise DataError(
                        f"{location}: duplicate file '{row.image}' (first in {seen[row.image]}).",
                        "Remove one row, or use on_bad_row=skip.",
                    )
                seen[row.image] = location
                yield row, location

    def _indexed(self, row: ListRow, location: str, split: str, folder: str) -> Iterable[Record]:
        with self.bad:
            word, patient = row.word or "", row.patient or row.image
            yield self._record(f"{folder}/{row.image}", patient, split, word, location)

    def _record(self, path: str, patient: str, split: str, word: str, location: str) -> Record:
        if word not in self._classes:
            raise DataError(
                f"{location}: unknown class '{word}'.", did_you_mean(word, self._classes)
            )
        labels = tuple(int(word == name) for name in self._classes)
        name = resolve_below_root(self.root, path, location)
        return Record(
            name, patient, split, location, labels, payload=ImagePayload(self.images.resolve(name))
        )

    @cached_property
    def _patients(self) -> dict[str, str]:
        """File -> patient, from the index of 9A if root has it."""
        if find_file(self.root, *TRAIN) is None:
            return {}
        return {row.image: row.patient for row, _ in self._index(*TRAIN) if row.patient}
