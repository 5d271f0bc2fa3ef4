"""Base class of the retinal data sets: colour with its mean and standard deviation."""

from __future__ import annotations

from typing import Any

from ecamp.api import (
    DatasetInfo,
    PublicConfigT,
    PublicDataset,
    Record,
    Sample,
    hash_split,
    read_image,
)

# Of red, green and blue, 0..1, over all pixels of 34 photographs of HRF, CHASE_DB1 and IDRiD, each
# padded to a square and resized to 224 as for an encoder: the black around the retina is included.
# tests/test_colour.py measures them. (The published code converts to grey and uses the mean
# and standard deviation of chest films.)
MEAN, STD = (0.3703, 0.1348, 0.0410), (0.3585, 0.1416, 0.0556)

NO_PATIENTS = (
    "the files name no patients: each eye counts as one patient, and both eyes may be in two splits"
)


class FundusDataset(PublicDataset[PublicConfigT]):
    """A public set of colour photographs of the retina."""

    def describe(self, **facts: Any) -> DatasetInfo:
        return super().describe(**{"channels": 3, "mean": MEAN, "std": STD, **facts})

    def load(self, record: Record, size: int) -> Sample:
        return Sample(read_image(self.root / record.payload.path, "rgb", record.row))

    def split_of(self, patient: str, fractions: dict[str, float]) -> str:
        """Return the split of a patient under our own rule, from the hash of the id."""
        return hash_split(patient, fractions, f"{self.name}/{self.splits_name}")
