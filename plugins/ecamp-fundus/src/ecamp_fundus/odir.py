"""ODIR-5K: both eyes of 5,000 patients, eight classes of disease."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field

from ecamp.api import (
    DEFAULT_FRACTIONS,
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
    """Choice of labels."""

    labels: Literal["eye", "patient"] = Field(
        default="eye", description="eye: one class per eye; patient: all classes of both eyes"
    )


class ODIR(FundusDataset[ODIRConfig]):
    """ODIR-5K: diseases per eye or per patient."""

    summary = "ODIR-5K: both eyes of 5,000 patients, 8 classes"
    licence = "as the challenge's: research use"
    citation = (
        "Peking University International Competition on Ocular Disease Intelligent Recognition 2019"
    )
    layout = """
get: https://www.kaggle.com/datasets/andrewmvd/ocular-disease-recognition-odir5k, or
  https://odir2019.grand-challenge.org
root contains full_df.csv (one row per eye) and preprocessed_images/, or the annotation by patient (save the
  xlsx as ODIR-5K_Training_Annotations.csv) and the images in ODIR-5K/ODIR-5K/Training Images/, Training
  Images/ or images/; the first of these folders that exists is read
labels=eye: column `target` of full_df.csv, exactly one class per eye, as in the published lists
labels=patient: columns N D G C A H M O, several classes, the same for both eyes
lists: of ECAMP (`1085_left.jpg 0 0 0 0 1 0 0 0`, images flat in root or in the folders above)
"""
    name = "odir"
    folders = ("preprocessed_images", "ODIR-5K/ODIR-5K/Training Images", "ODIR-5K/Training Images",
               "Training Images", "ODIR-5K_Training_Dataset", "images")  # fmt: skip
    named_splits: ClassVar[SplitsByName] = {
        # By hash only, not stratified, so that labels=eye and labels=patient share the split.
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
        """Index of the first folder with images: Kaggle has each eye twice, original and cropped."""
        for folder in self.folders:
            index = ImageIndex(self.root, (folder,))
            if index.paths:
                return index
        return ImageIndex(self.root, ())

    def _version_suffix(self) -> tuple[str, ...]:
        return () if self.config.labels == "eye" else ("patient-labels",)

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            if self.config.labels == "patient":
                raise UsageError(
                    "odir: the published lists have labels per eye.", "Use labels=eye."
                )
            for split, row, location in self.listed_rows():
                with self.bad:
                    yield self._record(row.image, split, row.labels or (), location)
        elif self.config.labels == "eye":
            path = self.source("full_df.csv")
            for eye in read_table(path, ("filename", "target"), self.bad):
                location = f"{path.name} line {eye.line}"
                with self.bad:
                    name = eye.values["filename"]
                    yield self._record(name, None, _target(eye, location), location)
        else:
            yield from self._patients()

    def _patients(self) -> Iterable[Record]:
        """Read both eyes of each patient; full_df.csv repeats the patient's row for each eye."""
        path = self.source("*Annotation*.csv", "data.csv", "full_df.csv")
        seen = set()
        for row in read_table(path, (*EYES, *LETTERS), self.bad):
            location = f"{path.name} line {row.line}"
            with self.bad:
                labels = tuple(_binary(row.values[letter], letter, location) for letter in LETTERS)
                for column in EYES:
                    name = row.values[column]
                    if name and name not in seen:
                        seen.add(name)
                        yield self._record(name, None, labels, location)

    def _record(
        self, path: str, split: str | None, labels: tuple[int, ...], location: str
    ) -> Record:
        name = path.rsplit("/", 1)[-1]
        patient = patient_of(name)
        if patient is None:
            raise DataError(
                f"{location}: '{name}' is not an image name of ODIR.",
                "Names are like 1085_left.jpg.",
            )
        if len(labels) != len(CLASSES):
            raise DataError(
                f"{location}: {len(labels)} labels, expected {len(CLASSES)}.",
                f"Labels are {' '.join(LETTERS)}.",
            )
        split = split or self.split_of(patient, DEFAULT_FRACTIONS)
        return Record(
            name,
            patient,
            split,
            location,
            labels,
            payload=ImagePayload(self.resolve_path(path, location)),
        )


def _target(row: TableRow, location: str) -> tuple[int, ...]:
    """Parse `[0, 1, 0, 0, 0, 0, 0, 0]`."""
    try:
        values = ast.literal_eval(row.values["target"])
        labels = tuple(int(value) for value in values)
        if sorted(labels) != [0] * (len(CLASSES) - 1) + [1]:
            raise ValueError("not one of eight")
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(
            f"{location}: 'target' is {row.values['target'][:40]}.",
            "It needs eight numbers, one of them 1.",
        ) from error
    return labels


def _binary(text: str, column: str, location: str) -> int:
    if text not in ("0", "1"):
        raise DataError(
            f"{location}: '{text}' in '{column}' is not a label.", "Labels are 0 and 1."
        )
    return int(text)
