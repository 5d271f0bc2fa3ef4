"""RIGA+: optic disc and cup, from three sites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from ecamp.api import (
    DataError,
    DatasetInfo,
    ImagePayload,
    NamedSplits,
    Record,
    Sample,
    SplitsByName,
    missing_file_error,
    read_image,
    resolve_below_root,
)
from ecamp_fundus.base import NO_PATIENTS, FundusDataset

IMAGES, MASKS = "Image/", "FinalLabel/"
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")


class RIGA(FundusDataset):
    """RIGA+: masks of the disc and, within it, of the cup."""

    summary = "RIGA+: optic disc and cup of 750 photographs, tested on another site"
    licence = "as its sources: research use"
    citation = "Almazroa et al., RIGA, SPIE 2018; Hu et al., RIGA+, MICCAI 2022"
    layout = """
get: https://zenodo.org/records/6325549 (RIGA+, derived from https://doi.org/10.7302/Z23R0R29)
root contains Image/{BinRushed,Magrabia,MESSIDOR}/... and FinalLabel/ with a grey mask for each image at the
  same path: 0 outside, 128 rim of the disc, 255 cup (disc = not 0, cup = 255)
lists: of ECAMP (csv `img_path,mask_path`)
The raw release, with the marks of six graders drawn into copies of each image, is not read.
"""
    name = "riga"
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "the test is Magrabia, another site; validation is an eighth of the others, by hash.",
            (573, 82, 95), "c2b4eaf07c2ca478", flaws=(NO_PATIENTS,),
        ),
        "ecamp-published": NamedSplits(
            "lists of ECAMP: the test is Magrabia, another site.",
            (560, 95, 95),
            flaws=(NO_PATIENTS,),
            lists=(
                "ECAMP/Fine-tuning/Segmentation/datasets/RIGA",
                "Fine-tuning/Segmentation/datasets/RIGA", "datasets/RIGA", ".",
            ),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(mask_classes=("disc", "cup"))

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            for split, row, location in self.listed_rows():
                with self.bad:
                    if not row.mask:
                        raise DataError(
                            f"{location}: no mask_path.", "Columns are img_path, mask_path."
                        )
                    yield self._record(row.image, row.mask, split, location)
            return
        records = list(self._images_in_root())
        if not records:
            raise missing_file_error(
                self.root, (IMAGES + "**/*.tif",), "See ecamp data info riga for its layout."
            )
        without_split = (r for r in records if not r.split)
        yield from self.split_by_hash(without_split, {"train": 0.875, "val": 0.125})
        yield from (r for r in records if r.split)

    def _images_in_root(self) -> Iterator[Record]:
        """Read the images of the folder; images without a split yet have the split ""."""
        for path in sorted((self.root / IMAGES).glob("**/*")):
            image = path.relative_to(self.root).as_posix()
            if path.suffix.lower() not in SUFFIXES:
                continue
            mask = image.replace(IMAGES, MASKS, 1)
            yield self._record(image, mask, "test" if "/Magrab" in image else "", image)

    def _record(self, image: str, mask: str, split: str, location: str) -> Record:
        film = ImagePayload(
            resolve_below_root(self.root, image, location),
            mask=resolve_below_root(self.root, mask, location),
        )
        return Record(image, image, split, location, has_mask=True, payload=film)

    def load(self, record: Record, size: int) -> Sample:
        levels = read_image(self.root / record.payload.mask, "grey", f"mask, {record.row}")[..., 0]
        return Sample(super().load(record, size).image, np.stack([levels > 0, levels == 255]))
