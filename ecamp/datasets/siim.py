"""SIIM-ACR Pneumothorax: 12,047 films, masks as run lengths relative to the previous run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.data.splits import scikit_split
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import DEFAULT_FRACTIONS, ImagePayload, PublicDataset
from ecamp.errors import DataError
from ecamp.io.folders import image_name
from ecamp.io.images import fit_mask, read_mask
from ecamp.io.rle import decode_rle
from ecamp.io.table import read_table

TABLES = ("train-rle*.csv", "stage_2_train.csv")
FRAME = 1024  # side of the films; runs are in their pixels


class SIIM(PublicDataset):
    """Pneumothorax or not, and its mask."""

    summary = "SIIM-ACR Pneumothorax: films with masks"
    licence = "SIIM-ACR: non-commercial research (competition rules)"
    citation = "SIIM-ACR Pneumothorax Segmentation, Kaggle 2019"
    layout = """
get: https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation (the films are at the Cloud Healthcare
  API), for BenchX https://www.kaggle.com/datasets/vbookshelf/pneumothorax-chest-xray-images-and-masks
root contains train-rle.csv (or stage_2_train.csv) and dicom-images-train/STUDY/SERIES/ImageId.dcm, or the
  films as PNG (ecamp data prepare siim) in train/images/1024/dicom/ImageId.png
  BenchX: siim_labels.csv (new_filename, has_pneumo), images/*.png and masks/*.png
lists: of ECAMP or MGCA (csv `ImageId,EncodedPixels`, one row per mask), MRM or LoVT (ids, with train-rle.csv in
  root)
"""
    name = "siim"
    folders = ("train", "test", "images", "png_images", "dicom-images-train", "dicom-images-test")
    prepared: ClassVar[Mapping[str, str]] = {
        "dicom-images-train": "train/images/1024/dicom/{}.png",
        "dicom-images-test": "test/images/1024/dicom/{}.png",
    }
    tables = TABLES
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the images with and of those without a mask, by hash of ImageId.",
        ),
        "mrm": NamedSplits(
            "lists of MRM, MaCo and ECAMP; ECAMP ships only 1 % and 10 % (percent=10).",
            (7_969, 1_898, 1_904), "9999199b249bfa98",
            flaws=("618 of 672 positive test images are in training or validation too (92 %)",),
            leaks=True,
            lists=(
                "ECAMP/Fine-tuning/Segmentation/datasets/SIIM", "Fine-tuning/Segmentation/datasets/SIIM",
                "DatasetsSplits/SIIM-ACR_Pneumothorax",
            ),
        ),
        "benchx": NamedSplits(
            "BenchX's ids of the PNG release; the test is Kaggle's stage 1 test.",
            (9_303, 1_372, 1_372), "dd8c9f9038fc42ce",
            lists=("preprocess/datasets/SIIM", "."),
        ),
        "lovt": NamedSplits(
            "LoVT's lists of ImageId.", (7_229, 2_409, 2_409), "15db5521cfe4fa40",
            lists=("datasets/siim-acr-pneumothorax-segmentation", "."),
        ),
        "gloria": NamedSplits(
            "rows of train-rle.csv drawn as in GLoRIA and MGCA (from the csv, or MGCA's own csv files).",
            flaws=("rows are drawn, not images: parts of the mask of one image can be in all splits",),
            leaks=True, lists=(".",), needs_lists=False,
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=("pneumothorax",), mask_classes=("pneumothorax",))

    def _read(self) -> Iterable[Record]:
        if self.splits_name == "ecamp":
            yield from self.split_by_hash(self._films(), DEFAULT_FRACTIONS)
        elif self.splits_name == "benchx":
            yield from self._benchx()
        elif self.from_lists:
            yield from self._joined(self._listed())
        else:
            yield from self._joined(self._drawn_rows())

    def _films(self) -> Iterator[Record]:
        for name, (runs, location) in self._runs.items():
            with self.bad:
                yield self._record(
                    name, "", location, ImagePayload(self._film_path(name, location), runs=runs)
                )

    def _listed(self) -> Iterator[tuple[str, str, list[str], str]]:
        """Read split, ImageId, runs and location of each row of the lists; runs of ids are from the csv."""
        for split, row, location in self.listed_rows():
            with self.bad:
                name = image_name(row.image)
                if row.rle is None and name not in self._runs:
                    raise DataError(
                        f"{location}: '{name}' is not in train-rle.csv.",
                        "Download both files again.",
                    )
                runs = [*self._runs[name][0]] if row.rle is None else [row.rle]
                yield split, name, runs, location

    def _drawn_rows(self) -> Iterator[tuple[str, str, list[str], str]]:
        """Draw the rows of the csv instead; bad rows take part in the draw, as in the published one."""
        path = self.source(*TABLES)
        rows = list(read_table(path, ("ImageId", "EncodedPixels"), self.bad))
        splits = scikit_split(range(len(rows)), 0.3)
        seen: set[tuple[str, str]] = set()
        for k, row in enumerate(rows):
            name, text = row.values["ImageId"], row.values["EncodedPixels"]
            location = f"{path.name} line {row.line}"
            with self.bad:
                if not text:
                    raise DataError(f"{location}: EncodedPixels is empty.", "Write -1 for no mask.")
                if (name, text) in seen:
                    raise DataError(
                        f"{location}: duplicate row of '{name}'.", "Remove one of them."
                    )
                seen.add((name, text))
                yield splits[k], name, [text] if text != "-1" else [], location

    def _joined(self, rows: Iterable[tuple[str, str, list[str], str]]) -> Iterator[Record]:
        """Join rows to one record per image and split, with the masks of its rows in that split."""
        listed: dict[tuple[str, str], tuple[list[str], str]] = {}
        for split, name, runs, location in rows:
            with self.bad:
                masks, new = [text for text in runs if text], (split, name) not in listed
                previous, first = listed.setdefault((split, name), ([], location))
                if not new and (not masks or not previous or set(masks) & set(previous)):
                    raise DataError(
                        f"{location}: duplicate row of '{name}' (first in {first}).",
                        "Remove one of them.",
                    )
                previous += masks
        for (split, name), (joined, location) in listed.items():
            with self.bad:
                film = ImagePayload(self._film_path(name, location), runs=tuple(joined))
                yield self._record(name, split, location, film)

    def _benchx(self) -> Iterable[Record]:
        path = self.source("siim_labels.csv")
        table: dict[str, str] = {}
        for line in read_table(path, ("new_filename", "has_pneumo"), self.bad):
            with self.bad:
                name = image_name(line.values["new_filename"])
                if name in table:
                    raise DataError(
                        f"{path.name} line {line.line}: duplicate file '{name}'.", "Remove one row."
                    )
                table[name] = line.values["has_pneumo"]
        for split, row, location in self.listed_rows():
            with self.bad:
                name = image_name(row.image)
                if table.get(name) not in ("0", "1"):
                    raise DataError(
                        f"{location}: '{name}' has no 0 or 1 in {path.name}.",
                        "has_pneumo must be 0 or 1 for each image.",
                    )
                image = self.resolve_path(f"images/{name}.png", location)
                mask = image.replace("images/", "masks/", 1)
                film = ImagePayload(image, runs=() if table[name] == "0" else None, mask=mask)
                yield self._record(name, split, location, film)

    def _film_path(self, name: str, location: str) -> str:
        return self.resolve_path(f"train/images/1024/dicom/{name}.png", location)

    def _record(self, name: str, split: str, location: str, film: ImagePayload) -> Record:
        label = int(film.runs is None or bool(film.runs))
        return Record(name, name, split, location, (label,), has_mask=True, payload=film)

    @cached_property
    def _runs(self) -> dict[str, tuple[tuple[str, ...], str]]:
        """ImageId -> its runs, one string per row, and its first row; -1 = no mask."""
        path = self.source(*TABLES)
        by_name: dict[str, tuple[list[str], str]] = {}
        broken = set()
        for row in read_table(path, ("ImageId", "EncodedPixels"), self.bad):
            name, text = row.values["ImageId"], row.values["EncodedPixels"]
            location = f"{path.name} line {row.line}"
            with self.bad:
                if not text:
                    raise DataError(f"{location}: EncodedPixels is empty.", "Write -1 for no mask.")
                new = name not in by_name
                runs = by_name.setdefault(name, ([], location))[0]
                if not new and (text == "-1" or not runs or text in runs):
                    raise DataError(
                        f"{location}: duplicate row of '{name}'.", "Remove one of them."
                    )
                runs += [text] if text != "-1" else []
                continue
            broken.add(name)
        return {name: (tuple(r), w) for name, (r, w) in by_name.items() if name not in broken}

    def load(self, record: Record, size: int) -> Sample:
        image = super().load(record, size).image
        film: ImagePayload = record.payload
        if film.runs is None and film.mask:
            return Sample(image, read_mask(self.root / film.mask, record.row)[None])
        mask = np.zeros((FRAME, FRAME), bool)
        for runs in film.runs or ():
            mask |= decode_rle(runs, FRAME, FRAME, relative=True, location=record.row)
        return Sample(image, fit_mask(mask, *image.shape[:2])[None])
