"""VinDr-CXR: 18,000 films read by radiologists; 22 findings with boxes, 6 labels of the whole film.

Why: docs/decisions.md#two-of-three-radiologists-must-agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.datasets.annotator_consensus import count_votes, merge_boxes
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import (
    DEFAULT_FRACTIONS,
    NO_PATIENTS,
    ImagePayload,
    PublicConfig,
    PublicDataset,
)
from ecamp.datasets.vindr_annotations import (
    KAGGLE,
    LOCAL,
    WHOLE,
    FilmAnnotations,
    read_kaggle,
    read_release,
    read_sizes,
)
from ecamp.errors import DataError, MissingError
from ecamp.export.png import MANIFEST, ConvertedFile
from ecamp.io.boxes import Box
from ecamp.io.dicom import DICOM_SUFFIXES
from ecamp.io.folders import find_file
from ecamp.storage.files import read_lines

MAJORITY, OVERLAP = 2, 0.5  # defaults: two of three radiologists, IoU of boxes of one finding


@dataclass(frozen=True)
class VinDrFilm(ImagePayload):
    """Payload of a record; boxes are in pixels of the original film.

    Attributes:
        classes: Class of each box.
        size: Width and height of the original film; None = those of the image file.
    """

    classes: tuple[int, ...] = ()
    size: tuple[int, int] | None = None


class VinDrCXRConfig(PublicConfig):
    """Rules of the consensus."""

    agree: int = Field(
        default=MAJORITY, ge=1, le=3,
        description="how many of three radiologists must name a finding or draw a box",
    )  # fmt: skip
    overlap: float = Field(
        default=OVERLAP, gt=0, le=1,
        description="smallest IoU at which boxes of two radiologists are one finding",
    )  # fmt: skip
    boxes: bool = Field(default=True, description="false: only labels; images may have any size")


class VinDrCXR(PublicDataset[VinDrCXRConfig]):
    """Labels and boxes by consensus of the radiologists of a film."""

    summary = "VinDr-CXR: 18,000 films, 28 labels, boxes of 22 findings by radiologists"
    licence = "PhysioNet: credentialed access, data use agreement; Kaggle: rules of the competition"
    citation = "Nguyen et al., Scientific Data 9, 429 (2022); doi 10.13026/3akn-b287"
    layout = """
get: https://physionet.org/content/vindr-cxr/1.0.0 (credentialed), or for splits=kaggle
  https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection
root contains annotations/image_labels_train.csv, image_labels_test.csv, annotations_train.csv and
  annotations_test.csv (also without the folder), train/*.dicom and test/*.dicom; or train.csv and train/*.dicom
  of Kaggle, which select splits=kaggle; or the films as PNG (ecamp data prepare vindr-cxr)
boxes are in pixels of the original film. For images of another size, or PNG made elsewhere, root must also
  contain train_meta.csv and test_meta.csv: image_id, dim0 (height of the film), dim1 (width)
three radiologists read each training film: a finding counts if `agree` of them name it, a box if as many
  drew it (IoU `overlap`), as the mean of theirs; each test film has one consensus reading
"""
    name = "vindr-cxr"
    folders = ("train", "test", "images")
    prepared: ClassVar[Mapping[str, str]] = {"train": "train/{}.png", "test": "test/{}.png"}
    tables = (
        *(
            f"{folder}{kind}_{part}.csv"
            for folder in ("annotations/", "")
            for kind in ("image_labels", "annotations")
            for part in ("train", "test")
        ),
        "train.csv",
    )
    named_splits: ClassVar[SplitsByName] = {
        "official": NamedSplits(
            "the 15,000 training films of the release, a tenth of each stratum for validation by hash; "
            "the test is its own of 3,000.",
            flaws=(NO_PATIENTS,),
        ),
        "kaggle": NamedSplits(
            "70 / 10 / 20 % of each stratum of the films of Kaggle's train.csv, by hash; "
            "Kaggle's test has no labels.",
            flaws=(
                NO_PATIENTS,
                "the test is read by three radiologists, not by a consensus of five as the official one",
            ),
        ),
    }

    @property
    def info(self) -> DatasetInfo:
        kaggle = self.splits_name == "kaggle"
        boxes = (KAGGLE if kaggle else LOCAL) if self.config.boxes else ()
        return self.describe(labels=KAGGLE if kaggle else LOCAL + WHOLE, box_classes=boxes)

    def _default_splits(self) -> str:
        """Use `kaggle` if root has only its table."""
        release = find_file(
            self.root, "annotations/image_labels_train.csv", "image_labels_train.csv"
        )
        kaggle_only = release is None and find_file(self.root, "train.csv") is not None
        return "kaggle" if kaggle_only else "official"

    def _version_suffix(self) -> tuple[str, ...]:
        config, chosen = self.config, []
        if config.agree != MAJORITY:
            chosen.append(f"agree{config.agree}")
        if config.overlap != OVERLAP and config.boxes:
            chosen.append(f"iou{config.overlap:g}")
        return (*chosen, *(() if config.boxes else ("labels",)))

    def _read(self) -> Iterable[Record]:
        if self.splits_name == "kaggle":
            yield from self._consensus(
                read_kaggle(self.source("train.csv"), self.bad), "train", DEFAULT_FRACTIONS
            )
        else:
            yield from self._consensus(self._official("train"), "train", {"train": 0.9, "val": 0.1})
            yield from self._consensus(self._official("test"), "test", {})

    def _official(self, part: str) -> dict[str, FilmAnnotations]:
        names = ("image_labels", "annotations") if self.config.boxes else ("image_labels",)
        tables = [self.source(f"annotations/{n}_{part}.csv", f"{n}_{part}.csv") for n in names]
        boxes = tables[1] if self.config.boxes else None
        return read_release(tables[0], boxes, consensus=part == "test", bad=self.bad)

    def _consensus(
        self, films: dict[str, FilmAnnotations], part: str, fractions: Mapping[str, float]
    ) -> Iterator[Record]:
        """Read a part with splits by `fractions`; without fractions the part is the split."""
        records = list(self._unsplit(films, part))
        if fractions:
            # Stratified by the majority's labels always, so that options change no split.
            records = list(self.split_by_hash(records, fractions))
        for record in records:
            labels = self._labels(films[record.id], self.config.agree)
            yield replace(record, labels=labels)

    def _unsplit(self, films: dict[str, FilmAnnotations], part: str) -> Iterator[Record]:
        for name, film in films.items():
            with self.bad:
                path = self.resolve_path(f"{part}/{name}.dicom", film.location)
                has_boxes = self.config.boxes
                boxes, classes = self._boxes(film) if has_boxes else ((), ())
                size = self._size(name, path, film.location) if boxes else None
                payload = VinDrFilm(path, boxes if has_boxes else None, None, None, classes, size)
                labels = self._labels(film, MAJORITY)
                yield Record(
                    name, name, part, film.location, labels, has_boxes=has_boxes, payload=payload
                )

    def _labels(self, film: FilmAnnotations, agree: int) -> tuple[int, ...]:
        votes = list(film.votes.values())
        labels = count_votes(votes, agree)
        if self.splits_name == "official":
            # `No finding` if too few radiologists found anything, so that no finding contradicts it.
            abnormal = [(1 - vote[-1],) for vote in votes]
            return (*labels[:-1], 1 - count_votes(abnormal, agree)[0])
        return labels

    def _boxes(self, film: FilmAnnotations) -> tuple[tuple[Box, ...], tuple[int, ...]]:
        agree = min(self.config.agree, len(film.votes))
        drawn = film.boxes_by_class()
        merged = [
            (box, class_id)
            for class_id in sorted(drawn)
            for box in merge_boxes(drawn[class_id], self.config.overlap, agree)
        ]
        return tuple(box for box, _ in merged), tuple(class_id for _, class_id in merged)

    def _size(self, name: str, path: str, location: str) -> tuple[int, int] | None:
        """Return width and height of the original film; None = those of the image file.

        Raises:
            MissingError: There is no meta table, and the image may have another size.
            DataError: The film is not in the meta tables; names the row.
        """
        if path.lower().endswith(DICOM_SUFFIXES) or path in self._prepared:
            return None
        if name in self._sizes:
            return self._sizes[name]
        if not self._sizes:
            raise MissingError(
                f"{location}: {path} is not a DICOM file, and boxes are in pixels of the film of unknown size.",
                "Put train_meta.csv (image_id,dim0,dim1: height and width of the film) into root, "
                "test_meta.csv for the test; make PNG with `ecamp data prepare vindr-cxr`; or use boxes=false.",
            )
        raise DataError(
            f"{location}: '{name}' is not in the meta tables, so the size of the film is unknown.",
            "Add its image_id, dim0 and dim1.",
        )

    @cached_property
    def _prepared(self) -> set[str]:
        """Images that `ecamp data prepare` wrote, in the size of the film."""
        return {file.png for file in read_lines(self.root / MANIFEST, ConvertedFile)}

    @cached_property
    def _sizes(self) -> dict[str, tuple[int, int]]:
        """image_id -> width and height of the film, if root has meta tables."""
        sizes: dict[str, tuple[int, int]] = {}
        for name in ("train_meta.csv", "test_meta.csv"):
            path = find_file(self.root, name, f"annotations/{name}")
            if path is not None:
                self.sources.append(path)
                sizes |= read_sizes(path, self.bad)
        return sizes

    def load(self, record: Record, size: int) -> Sample:
        image = super().load(record, size).image
        if not record.has_boxes:
            return Sample(image)
        film = record.payload
        height, width = image.shape[:2]
        boxes = np.array(film.boxes, np.float64).reshape(-1, 4)
        if film.size is not None:
            boxes *= np.array([width, height] * 2) / np.array(film.size * 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        if ((centres < 0) | (centres > (width, height))).any():
            raise DataError(
                f"{self.root / film.path} ({record.row}): a box is outside the film of "
                f"{'x'.join(map(str, film.size or (width, height)))} pixels.",
                "Is the image smaller than the film, or dim0 of the meta table not its height?",
            )
        # Some boxes extend beyond the edge of the film.
        boxes = boxes.clip(0, [width, height] * 2).astype(np.float32)
        return Sample(image, None, boxes, np.array(film.classes, np.int64))
