"""Montgomery County: 138 chest films, tuberculosis or not, with masks of both lungs.

Why: docs/decisions.md#five-films-of-montgomery-are-of-two-people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ecamp.api.dataset import DatasetInfo
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.organ_masks import (
    OrganMaskDataset,
    nested_patterns,
    right_first,
    union_mask,
)
from ecamp.datasets.public import PublicConfig
from ecamp.errors import UsageError
from ecamp.io.folders import ImageIndex

APART = {side: nested_patterns(f"ManualMask/{side}Mask") for side in ("left", "right")}
JOINED = {"lung": nested_patterns("masks", "mask")}
# Films of one person, by the readings of the release ("same pt as"): number -> number of the first film.
SAME_PATIENT = {"0117": "0113", "0166": "0162", "0170": "0162"}


class MontgomeryConfig(PublicConfig):
    """Choice of lung masks."""

    lungs: Literal["auto", "apart", "together"] = Field(
        default="auto",
        description="apart: right and left lung; together: one class, as in shenzhen; auto: apart if "
        "the masks are",
    )


class Montgomery(OrganMaskDataset[MontgomeryConfig]):
    """Right and left lung, or one class if the masks contain both."""

    summary = "Montgomery County: 138 films, tuberculosis or not, masks of both lungs"
    licence = "free with attribution to the NLM and Montgomery County"
    citation = "Jaeger et al., QIMS 2014; Candemir et al., IEEE TMI 2014"
    layout = """
get: https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/ (Montgomery-County-CXR-Set), or
  https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels (both lungs in one mask)
root contains CXR_png/MCUCXR_0001_0.png (0 normal, 1 tuberculosis) and ManualMask/leftMask/ and rightMask/ with
  masks of the same name; or masks/MCUCXR_0001_0.png
the right lung is identified by its position in the film, not by the folder's name
ClinicalReadings/ is not opened
"""
    name = "montgomery"
    name_pattern = re.compile(r"MCUCXR_\d{4}_[01]")
    folders = nested_patterns("CXR_png", "images")
    looked_for = ("CXR_png/MCUCXR_*", "images/MCUCXR_*")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the patients with and of those without tuberculosis, by hash; films of "
            "one person, by the readings of the release, have one patient.",
            (95, 14, 29), "0dbef9b13e355726",
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=("tuberculosis",), mask_classes=self._mask_classes)

    @property
    def _mask_classes(self) -> tuple[str, ...]:
        if len(self._mask_indexes) == 1 and self.config.lungs == "apart":
            raise UsageError(
                f"{self.name}: {self.root} has both lungs in one mask.",
                "Use lungs=together, or add ManualMask/leftMask and rightMask of the NLM.",
            )
        if not self._mask_indexes:
            return ()
        return ("lung",) if self._joined else ("right lung", "left lung")

    @property
    def _joined(self) -> bool:
        return len(self._mask_indexes) == 1 or self.config.lungs == "together"

    @property
    def version(self) -> str:
        return super().version + ("+together" if self._mask_indexes and self._joined else "")

    @property
    def _mask_folders(self) -> Mapping[str, Sequence[str]]:
        apart = any(ImageIndex(self.root, patterns).paths for patterns in APART.values())
        return APART if apart else JOINED

    def _patient(self, name: str) -> str:
        number = name.split("_")[1]
        return SAME_PATIENT.get(number, number)

    def _classes(self, masks: list[np.ndarray]) -> Sequence[np.ndarray]:
        if len(masks) == 1 or self.config.lungs == "together":
            return union_mask(masks)
        return right_first(*masks)
