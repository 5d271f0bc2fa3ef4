"""Shenzhen Hospital: 662 chest films, tuberculosis or not, 566 of them with a mask of the lungs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ecamp.api.dataset import DatasetInfo
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.organ_masks import OrganMaskDataset, nested_patterns
from ecamp.datasets.public import NO_PATIENTS


class Shenzhen(OrganMaskDataset):
    """Both lungs in one mask; in a film without a mask they are unknown, not absent."""

    summary = "Shenzhen: 662 films, tuberculosis or not, masks of the lungs for 566"
    licence = "films: free with attribution to the NLM; masks: CC BY-NC-SA 4.0"
    citation = "Jaeger et al., QIMS 2014; masks: Stirenko et al., IEEE ELNANO 2018"
    layout = """
get: https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/ (Shenzhen-Hospital-CXR-Set);
  masks https://www.kaggle.com/datasets/yoctoman/shcxr-lung-mask, or both (with those of montgomery) at
  https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels
root contains CXR_png/CHNCXR_0001_0.png (0 normal, 1 tuberculosis) and mask/ or masks/CHNCXR_0001_0_mask.png
ClinicalReadings/ is not opened
"""
    name = "shenzhen"
    name_pattern = re.compile(r"CHNCXR_\d{4}_[01]")
    folders = nested_patterns("CXR_png", "images")
    looked_for = ("CXR_png/CHNCXR_*", "images/CHNCXR_*")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the films with and of those without tuberculosis, by hash of the film's name.",
            (463, 67, 132), "45c812a8399d4b71", flaws=(NO_PATIENTS,),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        lung = ("lung",) if self._mask_indexes else ()
        return self.describe(labels=("tuberculosis",), mask_classes=lung)

    @property
    def _mask_folders(self) -> Mapping[str, Sequence[str]]:
        return {"lung": nested_patterns("masks", "mask")}
