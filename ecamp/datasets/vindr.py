"""VinDr-CXR: 18,000 films read by radiologists, 22 findings with boxes and 6 labels of the whole film."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, nan
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from ecamp.data.agreement import count_votes, merge_boxes
from ecamp.data.boxes import Box
from ecamp.data.dicom import DICOM_SUFFIXES
from ecamp.data.folders import find_file
from ecamp.data.prepare import MANIFEST
from ecamp.data.table import open_table, read_table
from ecamp.datasets.released import Film, ReleasedConfig, ReleasedDataset
from ecamp.datasets.split_protocol import Protocols, SplitProtocol
from ecamp.errors import DataError, MissingError, did_you_mean
from ecamp.plugin.protocols import DatasetInfo, Record, Sample

# In the order of the columns of image_labels_*.csv: 22 with boxes, then 6 of the whole film.
LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
)  # fmt: skip
NONE = "No finding"
WHOLE = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", NONE)
# The test's tables say `Other disease`.
SPELT = {"Other disease": "Other diseases"}
# In the order of class_id of Kaggle's train.csv; 14 is `No finding`.
KAGGLE = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis",
)  # fmt: skip
CORNERS = ("x_min", "y_min", "x_max", "y_max")
MAJORITY, OVERLAP = 2, 0.5  # defaults: two of three radiologists, IoU of boxes of one finding
BIT = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
NO_PATIENTS = "the files name no patients: intervals count each image as a patient"


@dataclass(frozen=True)
class VinDrFilm(Film):
    """Payload: boxes of the film in pixels of the film.

    Attributes:
        classes: Of each box. size: Width and height of the film; None = those of the image file.
    """

    classes: tuple[int, ...] = ()
    size: tuple[int, int] | None = None


@dataclass
class Reading:
    """What a table says of one film.

    Attributes:
        where: Its first row. votes: Radiologist -> one 0 or 1 a label.
        rows: Class, radiologist and box of each row of boxes.
    """

    where: str
    votes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: set[tuple[int, str, Box | None]] = field(default_factory=set)


class VinDrCXR(ReleasedDataset):
    """Labels and boxes as the radiologists of a film agree upon them."""

    summary = "VinDr-CXR: 18,000 films, 28 labels, boxes of 22 findings by radiologists"
    licence = "PhysioNet Credentialed Health Data Licence 1.5.0; Kaggle: rules of the competition"
    citation = "Nguyen et al., Scientific Data 2022, doi 10.13026/3akn-b287"
    layout = """
get: https://physionet.org/content/vindr-cxr/1.0.0 (credentialed), or for protocol kaggle
  https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection
root holds annotations/image_labels_train.csv, image_labels_test.csv, annotations_train.csv and
  annotations_test.csv (also without the folder), train/*.dicom and test/*.dicom; for protocol kaggle train.csv
  and train/*.dicom; or the films as PNG (ecamp data prepare vindr-cxr)
boxes count in pixels of the original film. For images of another size, or PNG made elsewhere, root also holds
  train_meta.csv and test_meta.csv: image_id, dim0 (height of the film), dim1 (width)
three radiologists read each training film: a finding counts where `agree` of them name it, a box where as
  many drew it (IoU `overlap`), as the mean of theirs; the test is one consensus
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
    protocols: ClassVar[Protocols] = {
        "official": SplitProtocol(
            "the release's 15,000 training films, a tenth of them as validation (by hash, of each stratum), and "
            "its test of 3,000.",
            flaws=(NO_PATIENTS,),
        ),
        "kaggle": SplitProtocol(
            "70 / 10 / 20 % of the films of Kaggle's train.csv by hash, of each stratum; its test has no labels.",
            flaws=(
                NO_PATIENTS,
                "the test is read by three radiologists, not by the consensus of five of the official one",
            ),
        ),
    }

    class Config(ReleasedConfig):
        """What counts as a finding."""

        agree: int = Field(
            default=MAJORITY, ge=1, le=3,
            description="radiologists of three who must name a finding, or draw a box",
        )  # fmt: skip
        overlap: float = Field(
            default=OVERLAP, gt=0, le=1,
            description="IoU from which boxes of two radiologists are of one finding",
        )  # fmt: skip
        boxes: bool = Field(default=True, description="false: labels alone, images of any size")

    @property
    def info(self) -> DatasetInfo:
        kaggle = self.protocol_name == "kaggle"
        boxes = (KAGGLE if kaggle else LOCAL) if self.config.boxes else ()
        return self.describe(labels=KAGGLE if kaggle else LOCAL + WHOLE, box_classes=boxes)

    def _choices(self) -> tuple[str, ...]:
        config, chosen = self.config, []
        if config.agree != MAJORITY:
            chosen.append(f"agree{config.agree}")
        if config.overlap != OVERLAP and config.boxes:
            chosen.append(f"iou{config.overlap:g}")
        return (*chosen, *(() if config.boxes else ("labels",)))

    def _read(self) -> Iterable[Record]:
        if self.protocol_name == "kaggle":
            shares = {"train": 0.7, "val": 0.1, "test": 0.2}
            yield from self._agreed(self._kaggle(), "train", shares)
        else:
            yield from self._agreed(self._official("train"), "train", {"train": 0.9, "val": 0.1})
            yield from self._agreed(self._official("test"), "test", {})

    # --- tables -----------------------------------------------------------------------------------

    def _official(self, part: str) -> dict[str, Reading]:
        """Films of a part: votes from image_labels, boxes from annotations; a film with a bad row is left out."""
        reader = ("rad_id",) if part == "train" else ()  # the test is a consensus
        path = self._table(f"image_labels_{part}.csv")
        with open_table(path) as (header, _):
            spelt = {SPELT.get(name, name): name for name in header}
        columns = [spelt.get(name, name) for name in LOCAL + WHOLE]
        films: dict[str, Reading] = {}
        broken = set()
        for row in read_table(path, ("image_id", *reader, *columns), self.bad):
            name, where = row.values["image_id"], f"{path.name} line {row.line}"
            with self.bad:
                _vote(films.setdefault(name, Reading(where)), row.values, columns, where)
                continue
            broken.add(name)
        if self.config.boxes:
            labels, path = path.name, self._table(f"annotations_{part}.csv")
            for row in read_table(path, ("image_id", *reader, "class_name", *CORNERS), self.bad):
                name, where = row.values["image_id"], f"{path.name} line {row.line}"
                with self.bad:
                    if name not in films:
                        raise DataError(
                            f"{where}: '{name}' is not in {labels}.",
                            "Take both tables from one release.",
                        )
                    self._draw(films[name], row.values, LOCAL, WHOLE, where)
                    continue
                broken.add(name)
        return {name: film for name, film in films.items() if name not in broken}

    def _kaggle(self) -> dict[str, Reading]:
        """Films of train.csv; a radiologist names what he drew."""
        path = self.source("train.csv")
        films: dict[str, Reading] = {}
        broken = set()
        columns = ("image_id", "class_name", "class_id", "rad_id", *CORNERS)
        for row in read_table(path, columns, self.bad):
            name, where = row.values["image_id"], f"{path.name} line {row.line}"
            with self.bad:
                film = films.setdefault(name, Reading(where))
                kind, given = self._draw(film, row.values, KAGGLE, (NONE,), where), row.values["class_id"]
                if given != str(kind):
                    raise DataError(
                        f"{where}: class_id of '{row.values['class_name']}' is {kind}, not '{given}'."
                    )
                reader = row.values["rad_id"]
                before = film.votes.get(reader, (0,) * len(KAGGLE))
                film.votes[reader] = tuple(v | (k == kind) for k, v in enumerate(before))
                continue
            broken.add(name)
        return {name: film for name, film in films.items() if name not in broken}

    def _draw(
        self, film: Reading, values: dict[str, str], local: tuple[str, ...], whole: tuple[str, ...],
        where: str,
    ) -> int:  # fmt: skip
        """Add a row of boxes, and give the index of its class in `local + whole`.

        Raises:
            DataError: No class; a finding without box, a label of the whole film with one; a row twice.
        """
        classes, name = local + whole, SPELT.get(values["class_name"], values["class_name"])
        if name not in classes:
            raise DataError(f"{where}: '{name}' is no class.", did_you_mean(name, classes))
        kind, reader = classes.index(name), values.get("rad_id", "")
        box = _box(values, name in local, where)
        row = (kind, reader, box)
        with self.bad:  # the same thing said again changes nothing: this row alone is left out
            if row in film.rows:
                raise DataError(
                    f"{where}: '{values['image_id']}' has this row twice.",
                    "Remove one of them, or on_bad_row=skip.",
                )
            film.rows.add(row)
        return kind

    def _table(self, name: str) -> Path:
        return self.source(f"annotations/{name}", name)

    # --- records ----------------------------------------------------------------------------------

    def _agreed(
        self, films: dict[str, Reading], part: str, shares: Mapping[str, float]
    ) -> Iterator[Record]:
        """Records of a part; without shares it is the split itself."""
        records = list(self._records_of(films, part))
        if shares:
            # Drawn by the majority's labels whatever is asked for: the options change no split.
            records = list(self.drawn(records, shares))
        for record in records:
            labels = self._labels(films[record.id], self.config.agree)
            yield replace(record, labels=labels)

    def _records_of(self, films: dict[str, Reading], part: str) -> Iterator[Record]:
        for name, film in films.items():
            with self.bad:
                path = self.place(f"{part}/{name}.dicom", film.where)
                known = self.config.boxes
                boxes, classes = self._boxes(film) if known else ((), ())
                size = self._size(name, path, film.where) if boxes else None
                payload = VinDrFilm(path, boxes if known else None, None, None, classes, size)
                labels = self._labels(film, MAJORITY)
                yield Record(
                    name, name, part, film.where, labels, has_boxes=known, payload=payload
                )

    def _labels(self, film: Reading, agree: int) -> tuple[int, ...]:
        votes = list(film.votes.values())
        labels = count_votes(votes, agree)
        if self.protocol_name == "official":
            # Nothing is found where too few found anything: so it never stands beside a finding.
            found = [(1 - vote[-1],) for vote in votes]
            return (*labels[:-1], 1 - count_votes(found, agree)[0])
        return labels

    def _boxes(self, film: Reading) -> tuple[tuple[Box, ...], tuple[int, ...]]:
        agree = min(self.config.agree, len(film.votes))
        drawn: dict[int, list[tuple[str, Box]]] = {}
        for kind, reader, box in film.rows:
            if box is not None:
                drawn.setdefault(kind, []).append((reader, box))
        merged = [
            (box, kind)
            for kind in sorted(drawn)
            for box in merge_boxes(drawn[kind], self.config.overlap, agree)
        ]
        return tuple(box for box, _ in merged), tuple(kind for _, kind in merged)

    def _size(self, name: str, path: str, where: str) -> tuple[int, int] | None:
        """Width and height of the film, in whose pixels the boxes count; None = those of the image.

        Raises:
            MissingError: No meta table says, and the image may be of another size.
        """
        if path.lower().endswith(DICOM_SUFFIXES) or path in self._prepared:
            return None
        if name in self._sizes:
            return self._sizes[name]
        if not self._sizes:
            raise MissingError(
                f"{where}: {path} is no DICOM file: boxes count in pixels of the film, whose size is unknown.",
                "Put train_meta.csv (image_id,dim0,dim1: height and width of the film) into root, test_meta.csv "
                "for the test; make PNG with `ecamp data prepare vindr-cxr`; or say boxes=false.",
            )
        raise DataError(
            f"{where}: '{name}' is in no meta table: the size of the film is unknown.",
            "Add its image_id, dim0, dim1.",
        )

    @cached_property
    def _prepared(self) -> set[str]:
        """Images that `ecamp data prepare` made: of the size of the film."""
        path = self.root / MANIFEST
        if not path.is_file():
            return set()
        return {json.loads(line)["png"] for line in path.read_text(encoding="utf-8").splitlines()}

    @cached_property
    def _sizes(self) -> dict[str, tuple[int, int]]:
        """image_id -> width, height of the film; dim0 counts rows, as in the shape of an array."""
        sizes = {}
        for name in ("train_meta.csv", "test_meta.csv"):
            path = find_file(self.root, name, f"annotations/{name}")
            if path is None:
                continue
            self.sources.append(path)
            for row in read_table(path, ("image_id", "dim0", "dim1"), self.bad):
                with self.bad:
                    try:
                        height, width = (int(float(row.values[key])) for key in ("dim0", "dim1"))
                    except (ValueError, OverflowError):
                        height = width = 0
                    if height <= 0 or width <= 0:
                        raise DataError(
                            f"{path.name} line {row.line}: no size '{row.values['dim0']}' x "
                            f"'{row.values['dim1']}'.",
                            "dim0 and dim1 are height and width in pixels.",
                        )
                    sizes[row.values["image_id"]] = (width, height)
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
                f"{self.root / film.path} ({record.row}): a box lies outside the film of "
                f"{'x'.join(map(str, film.size or (width, height)))} pixels.",
                "Is the image smaller than the film, or dim0 of the meta table not its height?",
            )
        # Some reach beyond the edge of the film.
        boxes = boxes.clip(0, [width, height] * 2).astype(np.float32)
        return Sample(image, None, boxes, np.array(film.classes, np.int64))


def _vote(film: Reading, values: dict[str, str], columns: Iterable[str], where: str) -> None:
    """Add a row of image_labels.

    Raises:
        DataError: A label that is none; a radiologist twice.
    """
    reader = values.get("rad_id", "")
    if reader in film.votes:
        by = f" by '{reader}'" if reader else ""
        raise DataError(
            f"{where}: '{values['image_id']}' stands twice{by}.", "Remove one of the rows."
        )
    for column in columns:
        if values[column] not in BIT:
            raise DataError(
                f"{where}: {column} is '{values[column]}', no label.", "Labels are 0 or 1."
            )
    film.votes[reader] = tuple(BIT[values[column]] for column in columns)


def _box(values: dict[str, str], local: bool, where: str) -> Box | None:
    """The box of a row; None where the class is one of the whole film.

    Raises:
        DataError: A finding without box, a label of the whole film with one, numbers that are none.
    """
    corners = [values[key] for key in CORNERS]
    if not local and not any(corners):
        return None
    try:
        x1, y1, x2, y2 = (float(corner) for corner in corners)
    except ValueError:
        x1 = y1 = x2 = y2 = nan
    if not (local and -inf < x1 < x2 < inf and -inf < y1 < y2 < inf):
        raise DataError(
            f"{where}: '{values['class_name']}' with box {', '.join(corners)}.",
            "A finding needs x_min < x_max and y_min < y_max, a label of the whole film has no box.",
        )
    return x1, y1, x2, y2
