"""ODIR-5K: both eyes of 5,000 patients, eight classes of disease."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field

from ecamp.api import (
    SHARES,
    DataError,
    DatasetInfo,
    ImageIndex,
    ImagePayload,
    NamedSplits,
    PublicConfig,
    Record,
    SplitsByName,
    TableRow,
    UsageError,
    patient_of,
    read_table,
)
from ecamp_fundus.base import FundusDataset

LETTERS = tuple("NDGCAHMO")
CLASSES = ("normal", "diabetes", "glaucoma", "cataract", "AMD", "hypertension", "myopia", "other")
EYES = ("Left-Fundus", "Right-Fundus")


class ODIRConfig(PublicConfig):
    """Whose diseases."""

    labels: Literal["eye", "patient"] = Field(
        default="eye", description="eye: one class an eye; patient: all of both eyes"
    )


class ODIR(FundusDataset[ODIRConfig]):
    """Diseases of an eye."""

    summary = "ODIR-5K: both eyes of 5,000 patients, 8 classes"
    licence = "as the challenge's: research use"
    citation = (
        "Peking University International Competition on Ocular Disease Intelligent Recognition 2019"
    )
    layout = """
get: https://www.kaggle.com/datasets/andrewmvd/ocular-disease-recognition-odir5k, or
  https://odir2019.grand-challenge.org
root holds full_df.csv (one row an eye) and preprocessed_images/, or the annotation of patients (save the
  xlsx as ODIR-5K_Training_Annotations.csv) and the images in ODIR-5K/ODIR-5K/Training Images/, Training
  Images/ or images/; the first of these folders that is there is read
labels=eye: column `target` of full_df.csv, exactly one class an eye, as the published lists have it
labels=patient: columns N D G C A H M O, several classes, the same for both eyes
lists: of ECAMP (`1085_left.jpg 0 0 0 0 1 0 0 0`, images flat in root or in the folders above)
"""
    name = "odir"
    folders = ("preprocessed_images", "ODIR-5K/ODIR-5K/Training Images", "ODIR-5K/Training Images",
               "Training Images", "ODIR-5K_Training_Dataset", "images")  # fmt: skip
    named_splits: ClassVar[SplitsByName] = {
        # By hash alone, not stratified: labels=eye and labels=patient share the split.
        "patient": NamedSplits(
            "70 / 10 / 20 % of the patients, by hash of the patient's number.",
            (4_455, 560, 1_377), "1f6dfb2ac9e5d898"
        ),
        "ecamp-published": NamedSplits(
            "lists of ECAMP, which split eyes, not patients.",
            (4_474, 639, 1_279),
            flaws=(
                "split by eye: the fellow eye of 861 of 1,279 test and of 425 of 639 validation images "
                "is in training",
            ),
            leaks=True,
            lists=(
                "ECAMP/Fine-tuning/Classification/datasets/ODIR5K",
                "Fine-tuning/Classification/datasets/ODIR5K", "datasets/ODIR5K", ".",
            ),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=CLASSES)

    @cached_property
    def images(self) -> ImageIndex:
        """The first folder with images: Kaggle has each eye twice, as taken and cropped."""
        for folder in self.folders:
            index = ImageIndex(self.root, (folder,))
            if index.paths:
                return index
        return ImageIndex(self.root, ())

    def _choices(self) -> tuple[str, ...]:
        return () if self.config.labels == "eye" else ("patient-labels",)

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            if self.config.labels == "patient":
                raise UsageError("odir: the published lists hold labels of eyes.", "labels=eye")
            for split, row, where in self.published():
                with self.bad:
                    yield self._record(row.image, split, row.labels or (), where)
        elif self.config.labels == "eye":
            path = self.source("full_df.csv")
            for eye in read_table(path, ("filename", "target"), self.bad):
                where = f"{path.name} line {eye.line}"
                with self.bad:
                    yield self._record(eye.values["filename"], None, _target(eye, where), where)
        else:
            yield from self._patients()

    def _patients(self) -> Iterable[Record]:
        """Both eyes of each patient; full_df.csv repeats the patient's row for each eye."""
        path = self.source("*Annotation*.csv", "data.csv", "full_df.csv")
        seen = set()
        for row in read_table(path, (*EYES, *LETTERS), self.bad):
            where = f"{path.name} line {row.line}"
            with self.bad:
                labels = tuple(_binary(row.values[letter], letter, where) for letter in LETTERS)
                for column in EYES:
                    name = row.values[column]
                    if name and name not in seen:
                        seen.add(name)
                        yield self._record(name, None, labels, where)

    def _record(self, path: str, split: str | None, labels: tuple[int, ...], where: str) -> Record:
        name = path.rsplit("/", 1)[-1]
        patient = patient_of(name)
        if patient is None:
            raise DataError(f"{where}: '{name}' is no image of ODIR (1085_left.jpg).")
        if len(labels) != len(CLASSES):
            raise DataError(
                f"{where}: {len(labels)} labels, not {len(CLASSES)}: {' '.join(LETTERS)}."
            )
        split = split or self.draw(patient, SHARES)
        return Record(
            name, patient, split, where, labels, payload=ImagePayload(self.place(path, where))
        )


def _target(row: TableRow, where: str) -> tuple[int, ...]:
    """`[0, 1, 0, 0, 0, 0, 0, 0]`."""
    try:
        values = ast.literal_eval(row.values["target"])
        labels = tuple(int(value) for value in values)
        if sorted(labels) != [0] * (len(CLASSES) - 1) + [1]:
            raise ValueError("not one of eight")
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(
            f"{where}: 'target' is {row.values['target'][:40]}.", "Eight numbers, one of them 1."
        ) from error
    return labels


def _binary(text: str, column: str, where: str) -> int:
    if text not in ("0", "1"):
        raise DataError(f"{where}: '{text}' in '{column}' is no label.", "Labels are 0 and 1.")
    return int(text)
