"""JSRT: 247 chest films with and without a nodule, and masks of five organs (SCR)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.organ_masks import (
    OrganMaskDataset,
    OrganMaskFilm,
    nested_patterns,
    right_first,
    union_mask,
)
from ecamp.datasets.public import DEFAULT_FRACTIONS, NO_PATIENTS, PublicConfig
from ecamp.errors import DataError
from ecamp.io.boxes import Box, scale_boxes
from ecamp.io.folders import find_file, image_name
from ecamp.io.raw_film import read_optical_density
from ecamp.io.table import read_table

ORGANS = ("right lung", "left lung", "heart", "right clavicle", "left clavicle")
SIDE, BITS = 2048, 12  # pixels per side of a film, bits per pixel
PIXEL = 0.175  # side of a pixel in millimetres


class JSRTConfig(PublicConfig):
    """Choice of organs."""

    lungs: Literal["apart", "together"] = Field(
        default="apart",
        description="apart: all five organs; together: both lungs as one class, as in shenzhen",
    )


class JSRT(OrganMaskDataset[JSRTConfig]):
    """Label from the film's name, box around the nodule's centre, organs if SCR's masks are there."""

    summary = "JSRT: 247 films, boxes of 154 nodules, masks of lungs, heart and clavicles (SCR)"
    licence = "research with citation (JSRT, on registration); SCR masks: research and education"
    citation = "Shiraishi et al., AJR 2000; masks: van Ginneken et al., Medical Image Analysis 2006"
    layout = """
get: http://db.jsrt.or.jp/eng.php (registration), or as PNG
  https://www.kaggle.com/datasets/raddar/nodules-in-chest-xrays-jsrt
  masks (SCR): https://zenodo.org/records/7056076
root contains films in All247images/ or images/: JPCLN001 to 154 with a nodule, JPCNN001 to 093 without; .IMG
    (2,048 x 2,048 pixels of 12 bit without header, inverted: bone is white), or .png, .jpg as they are
  centres and sizes of nodules in CLNDAT_EN.txt (also in Clinical_Information/) or jsrt_metadata.csv
  masks in scratch/fold1/masks/ and scratch/fold2/masks/, or in masks/: `right lung`, `left lung`, heart, `right
    clavicle`, `left clavicle`, also with _ instead of the space
without a table there are no boxes, without masks no organs; age, sex and diagnosis are not kept
box of a nodule: the square around its centre with side size in millimetres / 0.175, clipped to the film
"""
    name = "jsrt"
    name_pattern = re.compile(r"JPC[LN]N\d{3}")
    folders = nested_patterns(
        "All247images", "Nodule154images", "NonNodule93images", "images", "jpg"
    )
    looked_for = ("All247images/JPC*", "images/JPC*")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the films with and of those without a nodule, by hash of the film's name.",
            (173, 24, 50), "bd0aeb258227604e", flaws=(NO_PATIENTS,),
        ),
        "scr": NamedSplits(
            "SCR's folds: training on odd numbers, test on even ones; validation is a tenth of the odd "
            "ones, by hash.",
            (111, 13, 123), "7fe4c9c282e59f34", flaws=(NO_PATIENTS,),
        ),
        "scr-reverse": NamedSplits(
            "SCR's folds reversed: training on even numbers, test on odd ones.",
            (110, 13, 124), "3829443ac3dace7c", flaws=(NO_PATIENTS,),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        organs = ("lung",) if self.config.lungs == "together" else ORGANS
        return self.describe(
            labels=("nodule",), mask_classes=organs if self._mask_indexes else (),
            box_classes=("nodule",) if self._table else (),
        )  # fmt: skip

    @property
    def version(self) -> str:
        return super().version + ("+together" if self.config.lungs == "together" else "")

    @property
    def _mask_folders(self) -> Mapping[str, Sequence[str]]:
        organs = ORGANS[:2] if self.config.lungs == "together" else ORGANS
        folders = ("fold1/masks", "fold2/masks", "masks")
        return {
            organ: nested_patterns(
                *(f"{f}/{name}" for f in folders for name in (organ, organ.replace(" ", "_")))
            )
            for organ in organs
        }

    def _read(self) -> Iterable[Record]:
        if self.splits_name == "ecamp":
            yield from self.split_by_hash(self._films(), DEFAULT_FRACTIONS)
            return
        train_on_odd = self.splits_name == "scr"
        train: list[Record] = []
        test: list[Record] = []
        for record in self._films():
            (train if int(record.id[-3:]) % 2 == train_on_odd else test).append(record)
        yield from self.split_by_hash(train, {"train": 0.9, "val": 0.1})
        yield from (replace(record, split="test") for record in test)

    def _films(self) -> Iterator[Record]:
        for name, path in self._films_in_root():
            nodule = has_nodule(name)
            boxes = self._boxes.get(name, None if nodule else ()) if self._table else None
            if boxes is None and name in self._boxes:
                continue  # skipped with its row
            with self.bad:
                film = OrganMaskFilm(path, boxes, masks=self._mask_paths(name, path))
                yield Record(
                    name, name, "", path, (int(nodule),), has_mask=bool(film.masks),
                    has_boxes=boxes is not None, payload=film,
                )  # fmt: skip

    @cached_property
    def _table(self) -> Path | None:
        path = find_file(
            self.root, *nested_patterns("CLNDAT_EN.txt", "CLNDAT_EN.TXT", "jsrt_metadata.csv")
        )
        if path:
            self.sources.append(path)
        return path

    @cached_property
    def _boxes(self) -> dict[str, tuple[Box, ...] | None]:
        """Film of the table -> its boxes in pixels of the film; None if its row was skipped."""
        boxes: dict[str, tuple[Box, ...] | None] = {}
        for name, nodule, location in self._rows():
            with self.bad:
                if name in boxes:
                    raise DataError(f"{location}: duplicate film '{name}'.", "Remove one row.")
                if bool(nodule) != has_nodule(name):
                    state = "with" if nodule else "without"
                    raise DataError(
                        f"{location}: '{name}' {state} a nodule contradicts its name.",
                        "JPCLN films have a nodule, JPCNN films have none.",
                    )
                boxes[name] = (nodule_box(*nodule, location),) if nodule else ()
                continue
            boxes[name] = None
        return boxes

    def _rows(self) -> Iterator[tuple[str, tuple[str, str, str] | None, str]]:
        """Read film, (x, y, size) of its nodule or None, and location of each row."""
        if self._table is None:
            return
        read = self._rows_of_csv if self._table.suffix == ".csv" else self._rows_of_jsrt
        yield from read(self._table)

    def _rows_of_csv(self, path: Path) -> Iterator[tuple[str, tuple[str, str, str] | None, str]]:
        for row in read_table(path, ("study_id", "state", "x", "y", "size"), self.bad):
            values = row.values
            nodule = (values["x"], values["y"], values["size"])
            yield (
                image_name(values["study_id"]), None if values["state"] == "non-nodule" else nodule,
                f"{path.name} line {row.line}",
            )  # fmt: skip

    def _rows_of_jsrt(self, path: Path) -> Iterator[tuple[str, tuple[str, str, str], str]]:
        text = path.read_text(
            "utf-8-sig", errors="replace"
        )  # diagnoses contain bytes that are not UTF-8
        for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
            # Some copies lack an end of line: a film's name starts the next row nevertheless.
            for part in filter(str.strip, re.split(r"(?=JPC[LN]N\d{3})", line)):
                location, words = f"{path.name} line {number}", part.split()
                name = image_name(words[0])
                with self.bad:
                    if not self.name_pattern.fullmatch(name) or len(words) < 7:
                        raise DataError(
                            f"{location}: '{part.strip()[:40]}' is not a row of a nodule.",
                            "Rows are JPCLN001.IMG, subtlety, size, age, sex, x, y, ..., separated by tabs.",
                        )
                    yield name, (words[5], words[6], words[2]), location

    def load(self, record: Record, size: int) -> Sample:
        sample = super().load(record, size)
        if not record.has_boxes:
            return sample
        height, width = sample.image.shape[:2]
        boxes = scale_boxes(record.payload.boxes, SIDE, width, height)
        return replace(sample, boxes=boxes, box_classes=np.zeros(len(boxes), np.int64))

    def _image(self, record: Record) -> np.ndarray:
        path = self.root / record.payload.path
        if path.suffix.lower() == ".img":
            return read_optical_density(path, SIDE, SIDE, BITS, record.row)
        return super()._image(record)

    def _classes(self, masks: list[np.ndarray]) -> Sequence[np.ndarray]:
        if self.config.lungs == "together":
            return union_mask(masks)
        right, left, heart, right_clavicle, left_clavicle = masks
        lungs, clavicles = right_first(right, left), right_first(right_clavicle, left_clavicle)
        return (*lungs, heart, *clavicles)


def has_nodule(name: str) -> bool:
    """Tell from a film's name whether it shows a nodule: JPCLN does, JPCNN does not."""
    return name.startswith("JPCLN")


def nodule_box(x: str, y: str, size: str, location: str) -> Box:
    """Compute the square around a nodule's centre whose side is its size, clipped to the film.

    Args:
        x, y: Centre in pixels of a film of 2,048 x 2,048.
        size: In millimetres.

    Returns:
        x1, y1, x2, y2 in these pixels.

    Raises:
        DataError: Not numbers, a centre outside the film, or no size; names the row.
    """
    try:
        column, line, half = float(x), float(y), float(size) / PIXEL / 2
    except ValueError:
        column = line = half = -1.0
    if not (0 <= column <= SIDE and 0 <= line <= SIDE and 0 < half < SIDE):
        raise DataError(
            f"{location}: a nodule of {size} mm at {x}, {y} is not in a film of {SIDE:,} x {SIDE:,}.",
            "The centre is in pixels, the size in millimetres.",
        )
    edges = (column - half, line - half, column + half, line + half)
    x1, y1, x2, y2 = (min(max(edge, 0.0), float(SIDE)) for edge in edges)
    return x1, y1, x2, y2
