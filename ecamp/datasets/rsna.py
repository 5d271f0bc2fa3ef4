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
from ecamp.datasets.public import SHARES, ImagePayload, PublicConfig, PublicDataset
from ecamp.datasets.published_lists import Row, list_files
from ecamp.errors import DataError, did_you_mean
from ecamp.io.boxes import Box, fill_boxes, scale_boxes
from ecamp.io.folders import image_name
from ecamp.io.table import read_table

FRAME = 1024  # side of the films, in whose pixels boxes are given whatever the size of a file
COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
DETAILED = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
FINE_TUNING = ("ECAMP/Fine-tuning", "Fine-tuning")


def mgca_split(ids: Sequence[str]) -> dict[str, str]:
    """MGCA's and ECAMP's detection split: scikit-learn's draws from the sorted ids; id -> split.

    At 26,684 ids: 16,010 train, 5,337 val, 5,337 test.
    """
    # Any other number of ids is not the published set.
    return scikit_split(sorted(ids), 10_674 if len(ids) == 26_684 else 0.4)


class RSNAConfig(PublicConfig):
    """Which labels."""

    detailed: bool = Field(
        default=False,
        description="three classes of stage_2_detailed_class_info.csv instead of one",
    )


class RSNA(PublicDataset[RSNAConfig]):
    """Opacity yes or no, boxes, and masks as the union of filled boxes."""

    summary = "RSNA Pneumonia: 26,684 films with boxes; labels, masks from boxes"
    licence = "RSNA: non-commercial research, attribution (Kaggle competition rules)"
    citation = "Shih et al., Radiology: Artificial Intelligence 2019"
    layout = """
get: https://www.kaggle.com/c/rsna-pneumonia-detection-challenge
root holds stage_2_train_labels.csv and stage_2_train_images/*.dcm, or the films as PNG
  (ecamp data prepare rsna) in train_images/ or images/; stage_2_detailed_class_info.csv for detailed=true;
  stage_2_test_images/ (or test_images/) for protocol mrm-cls
a patientId is one film; films of one person are not known as such
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
            "drawn from the sorted ids as MGCA does (from the csv, or the lists of ECAMP's det and seg).",
            (16_010, 5_337, 5_337), "e4c8c39e4b417da2",
            lists=tuple(
                f"{home}/{task}/datasets/RSNA"
                for home in FINE_TUNING for task in ("Detection", "Segmentation")
            ),
            needs_lists=False,
        ),
        "mrm-cls": NamedSplits(
            "lists of MRM, MaCo and ECAMP; the test is Kaggle's stage 2 test, labels are in the lists only.",
            (25_184, 1_500, 3_000),
            "db81d2eb58bee866",
            flaws=("validation is the last 1,500 ids, not a draw: 14.9 % positive, the test 36.5 %",),
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
            "drawn from the sorted ids as GLoRIA and MGCA do for cls (from the csv, or MGCA's own csv files).",
            (18_678, 4_003, 4_003), "88c423472aa6902b", lists=(".",), needs_lists=False,
        ),
        "lovt": NamedSplits(
            "LoVT's lists.", (16_010, 5_337, 5_337), "114d8d3cc04b378b",
            lists=("datasets/RSNA-Pneunomia-Detection", "."),
        ),
        "maco-det": NamedSplits(
            "MaCo's test as COCO json; its train and val are pickled arrays, which are not read.",
            (0, 0, 1_218),
            flaws=("films with a box alone: no false alarm on a film without one is ever counted",),
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

    def _choices(self) -> tuple[str, ...]:
        return ("detailed",) if self.config.detailed else ()

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            for split, row, where in self.published():
                with self.bad:
                    name, path = image_name(row.image), row.image
                    if self.splits_name == "maco-det":
                        path = ""  # of the authors' disk
                    boxes = row.boxes
                    if boxes is None and not row.labels:  # ids alone
                        if name not in self._boxes:
                            raise DataError(
                                f"{where}: '{name}' is not in stage_2_train_labels.csv."
                            )
                        boxes = self._boxes[name][0]
                    label = row.labels[0] if row.labels else int(bool(boxes))
                    if boxes is not None and label != bool(boxes):
                        raise DataError(f"{where}: Target {label} with {len(boxes)} boxes.")
                    yield self._record(name, split, where, label, boxes, path)
            return
        if self.splits_name == "ecamp":
            yield from self.drawn(self._unsplit({}), SHARES)
        elif self.splits_name == "mgca-det":
            yield from self._unsplit(mgca_split(list(self._boxes)))
        else:
            yield from self._unsplit(scikit_split(sorted(self._boxes), 0.3))

    def _unsplit(self, splits: Mapping[str, str]) -> Iterator[Record]:
        """Films of the csv; "" is the split of those that `splits` does not name."""
        for name, (boxes, where) in self._boxes.items():
            with self.bad:
                yield self._record(name, splits.get(name, ""), where, int(bool(boxes)), boxes)

    def published(self) -> Iterator[tuple[str, Row, str]]:
        given = Path(self.config.lists or "auto").expanduser()
        if any(given.glob("*.pkl")) and not any(True for _ in list_files(given)):
            raise DataError(
                f"{given}: pickles are not read: opening one can run anything.",
                "splits=mgca-det without lists draws MGCA's split from stage_2_train_labels.csv.",
            )
        return super().published()

    def _record(
        self, name: str, split: str, where: str, label: int, boxes: tuple[Box, ...] | None,
        path: str = "",
    ) -> Record:  # fmt: skip
        labels: tuple[int, ...] = (label,)
        if self.config.detailed:
            if name not in self._details:
                raise DataError(f"{where}: '{name}' is not in stage_2_detailed_class_info.csv.")
            labels = tuple(int(kind == self._details[name]) for kind in DETAILED)
        known = boxes is not None
        film = ImagePayload(self.place(path or f"{self.folders[0]}/{name}.png", where), boxes)
        return Record(
            name, name, split, where, labels, has_mask=known, has_boxes=known, payload=film
        )

    @cached_property
    def _boxes(self) -> dict[str, tuple[tuple[Box, ...], str]]:
        """patientId -> its boxes, and its first row; an id with a bad row is left out whole."""
        path = self.source("stage_2_train_labels.csv")
        found: dict[str, tuple[list[Box], str]] = {}
        broken = set()
        for row in read_table(path, COLUMNS, self.bad):
            name, where = row.values["patientId"], f"{path.name} line {row.line}"
            with self.bad:
                box = _box(row.values, where)
                boxes = found.setdefault(name, ([], where))[0]
                if box in boxes or (boxes and box is None):
                    raise DataError(f"{where}: '{name}' has this row twice.", "Remove one of them.")
                boxes += [box] if box else []
                continue
            broken.add(name)
        return {
            name: (tuple(boxes), where)
            for name, (boxes, where) in found.items()
            if name not in broken
        }

    @cached_property
    def _details(self) -> dict[str, str]:
        path = self.source("stage_2_detailed_class_info.csv")
        found = {}
        for row in read_table(path, ("patientId", "class"), self.bad):
            with self.bad:
                kind = row.values["class"]
                if kind not in DETAILED:
                    raise DataError(
                        f"{path.name} line {row.line}: '{kind}' is no class.",
                        did_you_mean(kind, DETAILED),
                    )
                found[row.values["patientId"]] = kind
        return found

    def load(self, record: Record, size: int) -> Sample:
        image = super().load(record, size).image
        if not record.has_boxes:
            return Sample(image)
        height, width = image.shape[:2]
        boxes = scale_boxes(record.payload.boxes, FRAME, width, height)
        mask = fill_boxes(boxes, height, width)[None]
        return Sample(image, mask, boxes, np.zeros(len(boxes), np.int64))


def _box(values: dict[str, str], where: str) -> Box | None:
    """The box of a row; None where Target is 0.

    Raises:
        DataError: A target without box, a box without target, numbers that are none.
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
            f"{where}: Target '{values['Target']}' with box {', '.join(numbers)}.",
            "Target 1 needs x, y, width and height, Target 0 has none.",
        )
    return x, y, x + width, y + height
