"""Shenzhen Hospital: 662 chest films, tuberculosis or not, 566 with a mask of the lungs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.organ_masks import (
    NO_PATIENTS,
    OrganMaskDataset,
    OrganMaskFilm,
    nested,
)
from ecamp.datasets.public import SHARES


class Shenzhen(OrganMaskDataset):
    """Both lungs in one mask; a film without one is of unknown lungs, not of none."""

    summary = "Shenzhen: 662 films, tuberculosis or not, lungs outlined in 566"
    licence = "films: free with attribution to the NLM; masks: CC BY-NC-SA 4.0"
    citation = "Jaeger et al., QIMS 2014; masks: Stirenko et al., IEEE ELNANO 2018"
    layout = """
get: https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/ (Shenzhen-Hospital-CXR-Set);
  masks https://www.kaggle.com/datasets/yoctoman/shcxr-lung-mask, or both (with those of montgomery) at
  https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels
root holds CXR_png/CHNCXR_0001_0.png (0 normal, 1 tuberculosis) and mask/ or masks/CHNCXR_0001_0_mask.png
ClinicalReadings/ is not opened
"""
    name = "shenzhen"
    film = re.compile(r"CHNCXR_\d{4}_[01]")
    folders = nested("CXR_png", "images")
    looked_for = ("CXR_png/CHNCXR_*", "images/CHNCXR_*")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the films with and of those without tuberculosis, by hash of the film's name.",
            (463, 67, 132), "45c812a8399d4b71", flaws=(NO_PATIENTS,),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        lung = ("lung",) if self._parts else ()
        return self.describe(labels=("tuberculosis",), mask_classes=lung)

    @property
    def _folders_of_parts(self) -> Mapping[str, Sequence[str]]:
        return {"lung": nested("masks", "mask")}

    def _read(self) -> Iterable[Record]:
        yield from self.drawn(self._films(), SHARES)

    def _films(self) -> Iterator[Record]:
        for name, path in self._found():
            with self.bad:
                film = OrganMaskFilm(path, masks=self._outlines(name, path))
                label, known = (int(name[-1]),), bool(film.masks)
                yield Record(name, name, "", path, label, has_mask=known, payload=film)
