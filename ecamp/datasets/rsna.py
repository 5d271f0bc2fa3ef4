"""RSNA Pneumonia Detection Challenge, stage 2: 26,684 films, boxes of opacities; labels and masks from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.data.splits import scikit_split
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import DEFAULT_FRACTIONS, ImagePayload, PublicConfig, PublicDataset
from ecamp.datasets.published_lists import ListRow, list_files
from ecamp.errors import DataError, did_you_mean
from ecamp.io.boxes import Box, fill_boxes, scale_boxes
from ecamp.io.folders import image_name
from ecamp.io.table import read_table

FRAME = 1024  # side of the films; boxes are in their pixels, whatever the size of a file
COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
DETAILED = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
FINE_TUNING = ("ECAMP/Fine-tuning", "Fine-tuning")


def mgca_split(ids: Sequence[str]) -> dict[str, str]:
    """Repeat the detection split of MGCA and ECAMP: scikit-learn's draws from the sorted ids.

    Returns:
        id -> split; for 26,684 ids: 16,010 train, 5,337 val, 5,337 test.
    """
    # With any other number of ids it is not the published split.
    return scikit_split(sorted(ids), 10_674 if len(ids) == 26_684 else 0.4)


class RSNAConfig(PublicConfig):
    """Choice of labels."""

    detailed: bool = Field(
        default=False,
        description="three classes of stage_2_detailed_class_info.csv instead of one",
    )


class RSNA(PublicDataset[RSNAConfig]):
    """Opacity or not, boxes, and masks as the union of filled boxes."""

    summary = "RSNA Pneumonia: 26,684 films with boxes; labels, masks from boxes"
    licence = "RSNA: non-commercial research, attribution (Kaggle competition rules)"
    citation = "Shih et al., Radiology: Artificial Intelligence 2019"
    layout = """
get: https://www.kaggle.com/c/rsna-pneumonia-detection-challenge
root contains stage_2_train_labels.csv and stage_2_train_images/*.dcm, or the films as PNG
  (ecamp data prepare rsna) in train_images/ or images/; stage_2_detailed_class_info.csv for detailed=true;
  stage_2_test_images/ (or test_images/) for splits=mrm-cls
a patientId is one film; films of the same person cannot be identified
lists: of ECAMP (csv `image_path,bbox` for mgca-det, `train_images/ID.png 0` for mrm-cls), MRM, BenchX,
  MGCA (train.csv, val.csv, test.csv: `patientId,bbox,Target`), LoVT (csv `ID,boxes,classes`), MaCo (COCO
  json of its test)
"""
    name = "rsna"
    folders = (
        "train_images",
        "test_images",
        "images",
        "stage_2_train_images",
        "stage_2_test_images",
    )
    prepared: ClassVar[Mapping[str, str]] = {
        "stage_2_train_images": "train_images/{}.png",
        "stage_2_test_images": "test_images/{}.png",
    }
    tables = ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of films with and of films without a box, by hash of the patientId.",
            (18_678, 2_670, 5_336), "119eeac5404a4b8c",
        ),
        "mgca-det": NamedSplits(
            "drawn from the sorted ids as in MGCA (from the csv, or the lists of ECAMP's det and seg).",
            (16_010, 5_337, 5_337), "e4c8c39e4b417da2",
            lists=tuple(
                f"{home}/{task}/datasets/RSNA"
                for home in FINE_TUNING for task in ("Detection", "Segmentation")
            ),
            needs_lists=False,
        ),
        "mrm-cls": NamedSplits(
            "lists of MRM, MaCo and ECAMP; the test is Kaggle's stage 2 test, labels are only in the lists.",
            (25_184, 1_500, 3_000),
            "db81d2eb58bee866",
            flaws=("validation is the last 1,500 ids, not random: 14.9 % positive, the test 36.5 %",),
            lists=(
                *(f"{home}/Classification/datasets/RSNA" for home in FINE_TUNING),
                "DatasetsSplits/RSNA_Pneumonia",
            ),
        ),
        "benchx": NamedSplits(
            "BenchX's ids, with stage_2_train_labels.csv in root.", (18_678, 4_003, 4_003),
            "83c3b1ceb5042f47",
            lists=("preprocess/datasets/RSNA", "."),
        ),
        "gloria-cls": NamedSplits(
            "drawn from the sorted ids as in GLoRIA and MGCA for cls (from the csv, or MGCA's own csv files).",
            (18_678, 4_003, 4_003), "88c423472aa6902b", lists=(".",), needs_lists=False,
        ),
        "lovt": NamedSplits(
            "LoVT's lists.", (16_010, 5_337, 5_337), "114d8d3cc04b378b",
            lists=("datasets/RSNA-Pneunomia-Detection", "."),
        ),
        "maco-det": NamedSplits(
            "MaCo's test as COCO json; its train and val are pickled arrays, which are not read.",
            (0, 0, 1_218),
            flaws=("only films with a box: false positives on films without one are never counted",),
            lists=("detectron2/projects/ViTDet/out_valid", "."), listed=("test",),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        opacity = () if self._labels_only else ("opacity",)
        labels = DETAILED if self.config.detailed else ("pneumonia",)
        return self.describe(
            labels=labels, label_kind="multiclass" if self.config.detailed else "multilabel",
            mask_classes=opacity, box_classes=opacity,
        )  # fmt: skip

    @property
    def _labels_only(self) -> bool:
        return self.splits_name == "mrm-cls"

    def _version_suffix(self) -> tuple[str, ...]:
        return ("detailed",) if self.config.detailed else ()

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            for split, row, location in self.listed_rows():
                with self.bad:
                    name, path = image_name(row.image), row.image
                    if self.splits_name == "maco-det":
                        path = ""  # a path on the authors' disk
                    boxes = row.boxes
                    if boxes is None and not row.labels:  # ids only
                        if name not in self._boxes:
                            raise DataError(
                                f"{location}: '{name}' is not in stage_2_train_labels.csv.",
                                "Download both files again.",
                            )
                        boxes = self._boxes[name][0]
                    label = row.labels[0] if row.labels else int(bool(boxes))
                    if boxes is not None and label != bool(boxes):
                        raise DataError(
                            f"{location}: Target {label} with {len(boxes)} boxes.",
                            "Target is 1 with boxes and 0 without.",
                        )
                    yield self._record(name, split, location, label, boxes, path)
            return
        if self.splits_name == "ecamp":
            yield from self.split_by_hash(self._films({}), DEFAULT_FRACTIONS)
        elif self.splits_name == "mgca-det":
            yield from self._films(mgca_split(list(self._boxes)))
        else:
            yield from self._films(scikit_split(sorted(self._boxes), 0.3))

    def _films(self, splits: Mapping[str, str]) -> Iterator[Record]:
        """Read the films of the csv; films not in `splits` have the split ""."""
        for name, (boxes, location) in self._boxes.items():
            with self.bad:
                yield self._record(name, splits.get(name, ""), location, int(bool(boxes)), boxes)

    def listed_rows(self) -> Iterator[tuple[str, ListRow, str]]:
        given = Path(self.config.lists or "auto").expanduser()
        if any(given.glob("*.pkl")) and not any(True for _ in list_files(given)):
            raise DataError(
                f"{given}: pickles are not read: opening one can run arbitrary code.",
                "splits=mgca-det without lists draws MGCA's split from stage_2_train_labels.csv.",
            )
        return super().listed_rows()

    def _record(
        self, name: str, split: str, location: str, label: int, boxes: tuple[Box, ...] | None,
        path: str = "",
    ) -> Record:  # fmt: skip
        labels: tuple[int, ...] = (label,)
        if self.config.detailed:
            if name not in self._details:
                raise DataError(
                    f"{location}: '{name}' is not in stage_2_detailed_class_info.csv.",
                    "Download both tables again.",
                )
            labels = tuple(int(self._details[name] == class_name) for class_name in DETAILED)
        known = boxes is not None
        film = ImagePayload(
            self.resolve_path(path or f"{self.folders[0]}/{name}.png", location), boxes
        )
        return Record(
            name, name, split, location, labels, has_mask=known, has_boxes=known, payload=film
        )

    @cached_property
    def _boxes(self) -> dict[str, tuple[tuple[Box, ...], str]]:
        """patientId -> its boxes, and its first row; an id with a bad row is skipped."""
        path = self.source("stage_2_train_labels.csv")
        by_name: dict[str, tuple[list[Box], str]] = {}
        broken = set()
        for row in read_table(path, COLUMNS, self.bad):
            name, location = row.values["patientId"], f"{path.name} line {row.line}"
            with self.bad:
                box = _box(row.values, location)
                boxes = by_name.setdefault(name, ([], location))[0]
                if box in boxes or (boxes and box is None):
                    raise DataError(
                        f"{location}: duplicate row of '{name}'.", "Remove one of them."
                    )
                boxes += [box] if box else []
                continue
            broken.add(name)
        return {
            name: (tuple(boxes), location)
            for name, (boxes, location) in by_name.items()
            if name not in broken
        }

    @cached_property
    def _details(self) -> dict[str, str]:
        path = self.source("stage_2_detailed_class_info.csv")
        details = {}
        for row in read_table(path, ("patientId", "class"), self.bad):
            with self.bad:
                class_name = row.values["class"]
                if class_name not in DETAILED:
                    raise DataError(
                        f"{path.name} line {row.line}: unknown class '{class_name}'.",
                        did_you_mean(class_name, DETAILED),
                    )
                details[row.values["patientId"]] = class_name
        return details

    def load(self, record: Record, size: int) -> Sample:
        image = super().load(record, size).image
        if not record.has_boxes:
            return Sample(image)
        height, width = image.shape[:2]
        boxes = scale_boxes(record.payload.boxes, FRAME, width, height)
        mask = fill_boxes(boxes, height, width)[None]
        return Sample(image, mask, boxes, np.zeros(len(boxes), np.int64))


def _box(values: dict[str, str], location: str) -> Box | None:
    """Parse the box of a row; None if Target is 0.

    Raises:
        DataError: A target without a box, a box without a target, or not numbers; names the row.
    """
    numbers = [values[key] for key in ("x", "y", "width", "height")]
    if values["Target"] == "0" and not any(numbers):
        return None
    try:
        x, y, width, height = (float(number) for number in numbers)
    except ValueError:
        x = y = width = height = 0.0
    if values["Target"] != "1" or width <= 0 or height <= 0:
        raise DataError(
            f"{location}: Target '{values['Target']}' with box {', '.join(numbers)}.",
            "Target 1 needs x, y, width and height, Target 0 must have none.",
        )
    return x, y, x + width, y + height
