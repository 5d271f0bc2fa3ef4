"""Montgomery County: 138 chest films, tuberculosis or not, both lungs outlined in each.

Why: docs/decisions.md#five-films-of-montgomery-are-of-two-people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.organ_masks import (
    OrganMaskDataset,
    OrganMaskFilm,
    nested,
    right_first,
    together,
)
from ecamp.datasets.public import SHARES, PublicConfig
from ecamp.errors import UsageError
from ecamp.io.folders import ImageIndex

APART = {side: nested(f"ManualMask/{side}Mask") for side in ("left", "right")}
JOINED = {"lung": nested("masks", "mask")}
# Films of one person, by the release's own readings ("same pt as"): number -> number of the first film.
AGAIN = {"0117": "0113", "0166": "0162", "0170": "0162"}


class MontgomeryConfig(PublicConfig):
    """Which lungs."""

    lungs: Literal["auto", "apart", "together"] = Field(
        default="auto",
        description="right and left lung apart, or together as one class, as shenzhen has them; auto: "
        "apart where the masks are",
    )


class Montgomery(OrganMaskDataset[MontgomeryConfig]):
    """The right lung and the left; one class where masks hold both."""

    summary = "Montgomery County: 138 films, tuberculosis or not, both lungs outlined"
    licence = "free with attribution to the NLM and Montgomery County"
    citation = "Jaeger et al., QIMS 2014; Candemir et al., IEEE TMI 2014"
    layout = """
get: https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/ (Montgomery-County-CXR-Set), or
  https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels (both lungs in one mask)
root holds CXR_png/MCUCXR_0001_0.png (0 normal, 1 tuberculosis) and ManualMask/leftMask/ and rightMask/ with
  masks of the same name; or masks/MCUCXR_0001_0.png
which lung is the right one is told by where it lies in the film, not by the folder's name
ClinicalReadings/ is not opened
"""
    name = "montgomery"
    film = re.compile(r"MCUCXR_\d{4}_[01]")
    folders = nested("CXR_png", "images")
    looked_for = ("CXR_png/MCUCXR_*", "images/MCUCXR_*")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the patients with and of those without tuberculosis, by hash; films of "
            "one person, by the release's readings, count as one patient's.",
            (95, 14, 29), "0dbef9b13e355726",
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=("tuberculosis",), mask_classes=self._mask_classes)

    @property
    def _mask_classes(self) -> tuple[str, ...]:
        if len(self._parts) == 1 and self.config.lungs == "apart":
            raise UsageError(
                f"{self.name}: {self.root} has both lungs in one mask.",
                "lungs=together, or ManualMask/leftMask and rightMask of the NLM.",
            )
        if not self._parts:
            return ()
        return ("lung",) if self._joined else ("right lung", "left lung")

    @property
    def _joined(self) -> bool:
        return len(self._parts) == 1 or self.config.lungs == "together"

    @property
    def version(self) -> str:
        return super().version + ("+together" if self._parts and self._joined else "")

    @property
    def _folders_of_parts(self) -> Mapping[str, Sequence[str]]:
        apart = any(ImageIndex(self.root, patterns).paths for patterns in APART.values())
        return APART if apart else JOINED

    def _read(self) -> Iterable[Record]:
        yield from self.drawn(self._films(), SHARES)

    def _films(self) -> Iterator[Record]:
        for name, path in self._found():
            with self.bad:
                film = OrganMaskFilm(path, masks=self._outlines(name, path))
                _, number, label = name.split("_")
                yield Record(
                    name, AGAIN.get(number, number), "", path, (int(label),),
                    has_mask=bool(film.masks), payload=film,
                )  # fmt: skip

    def _classes(self, masks: list[np.ndarray]) -> Sequence[np.ndarray]:
        if len(masks) == 1 or self.config.lungs == "together":
            return together(masks)
        return right_first(*masks)
