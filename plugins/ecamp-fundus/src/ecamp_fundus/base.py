"""What the retinal sets share: colour, its mean and spread, and who is a patient where nobody says."""

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
# padded to a square and resized to 224 as an encoder sees them: the black around the retina counts.
# tests/test_colour.py measures them again. (The published code greys the images and takes the mean
# and spread of chest films.)
MEAN, STD = (0.3703, 0.1348, 0.0410), (0.3585, 0.1416, 0.0556)

NO_PATIENTS = (
    "the files name no patients: both eyes of one may be in two splits, each counts as one"
)


class FundusDataset(PublicDataset[PublicConfigT]):
    """A public set of colour photographs of the retina."""

    def describe(self, **facts: Any) -> DatasetInfo:
        return super().describe(**{"colour": "rgb", "mean": MEAN, "std": STD, **facts})

    def load(self, record: Record, size: int) -> Sample:
        return Sample(read_image(self.root / record.payload.path, "rgb", record.row))

    def draw(self, patient: str, shares: dict[str, float]) -> str:
        """Split of a patient under our own rule, from the hash of the name."""
        return hash_split(patient, shares, f"{self.name}/{self.splits_name}")
