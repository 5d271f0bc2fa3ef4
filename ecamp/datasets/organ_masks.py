"""Chest films with organs outlined in mask images: what the sets of lungs share.

No table lists them: each film whose name is of the set's form is one, and its name tells the label.
Radiologists' notes that lie beside the films are never opened.

Why: docs/decisions.md#right-and-left-lung-by-place.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from ecamp.api.dataset import Record, Sample
from ecamp.datasets.public import ImagePayload, PublicConfigT, PublicDataset
from ecamp.errors import DataError
from ecamp.io.folders import ImageIndex, missing_file_error
from ecamp.io.images import fit_mask, read_image, read_mask

NO_PATIENTS = "the files name no patients: each film counts as one"


def nested(*folders: str) -> tuple[str, ...]:
    """Patterns of folders in root, or up to two levels below it, as archives are unpacked."""
    return tuple(above + folder for above in ("", "*/", "*/*/") for folder in folders)


@dataclass(frozen=True)
class OrganMaskFilm(ImagePayload):
    """A film with organs outlined.

    Attributes:
        masks: Mask images below root, one a part; () = not known.
    """

    masks: tuple[str, ...] = ()


class OrganMaskDataset(PublicDataset[PublicConfigT]):
    """Films by name, and their masks by the same name in a folder for each part."""

    film: ClassVar[re.Pattern[str]]  # the whole name of a film
    looked_for: ClassVar[tuple[str, ...]]  # where films lie in the release, for the message

    @property
    @abstractmethod
    def _folders_of_parts(self) -> Mapping[str, Sequence[str]]:
        """Part -> patterns of the folders that hold its masks."""

    @cached_property
    def _parts(self) -> dict[str, ImageIndex]:
        """Part -> its masks; empty where root holds no mask of any film of this set."""
        parts = {
            part: ImageIndex(self.root, patterns)
            for part, patterns in self._folders_of_parts.items()
        }
        names = (name for index in parts.values() for name in index.by_name)
        some = any(self.film.fullmatch(name.removesuffix("_mask")) for name in names)
        return parts if some else {}

    def _found(self) -> Iterator[tuple[str, str]]:
        """Name of each film in root and where it lies.

        Raises:
            MissingError: There is none.
        """
        names = sorted(name for name in self.images.by_name if self.film.fullmatch(name))
        if not names:
            raise missing_file_error(
                self.root, self.looked_for, f"ecamp data info {self.name} says what it holds."
            )
        for name in names:
            yield name, self.images.by_name[name]

    def _outlines(self, name: str, where: str) -> tuple[str, ...]:
        """Masks of a film, one a part; () where it has none, which is not known rather than empty.

        Raises:
            DataError: Masks of some parts and not of others.
        """
        found = {
            part: index.by_name.get(name) or index.by_name.get(f"{name}_mask")
            for part, index in self._parts.items()
        }
        paths = tuple(path for path in found.values() if path)
        if paths and len(paths) < len(found):
            lacking = [part for part, path in found.items() if not path]
            raise DataError(
                f"{where}: there is {paths[0]}, but no mask of {' or '.join(lacking)}.",
                "Unpack the masks again, or on_bad_row=skip.",
            )
        return paths

    def load(self, record: Record, size: int) -> Sample:
        image = self._image(record)
        if not record.has_mask:
            return Sample(image)
        masks = [self._mask(path, image, record) for path in record.payload.masks]
        return Sample(image, np.stack(self._classes(masks)))

    def _image(self, record: Record) -> np.ndarray:
        """uint8 (height, width, 1)."""
        return read_image(self.root / record.payload.path, "grey", record.row)

    def _mask(self, path: str, image: np.ndarray, record: Record) -> np.ndarray:
        mask = read_mask(self.root / path, record.row)
        (height, width), (h, w) = image.shape[:2], mask.shape
        if abs(h * width - w * height) > 0.01 * h * width:
            raise DataError(
                f"{self.root / path} ({record.row}): mask is {w}x{h}, image {width}x{height}.",
                "A mask may be smaller or larger than its film, but of the same proportions.",
            )
        if mask.mean() > 2 / 3:
            raise DataError(
                f"{self.root / path} ({record.row}): {mask.mean():.0%} of the film is inside, "
                "more than any organ.",
                "Inside is what is not 0; is the mask inverted?",
            )
        return fit_mask(mask, height, width)

    def _classes(self, masks: list[np.ndarray]) -> Sequence[np.ndarray]:
        """Masks of parts -> masks of classes, in the order of `mask_classes`."""
        return masks

    def _files(self) -> Iterator[str]:
        yield from super()._files()
        for record in self._records:
            yield from record.payload.masks


def right_first(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of two sides in the order right, left, as the patient has them.

    A film is shown as if one faced the patient, so right is what lies further left in it. An empty mask
    counts as if it lay in the middle.
    """

    def column(mask: np.ndarray) -> float:
        columns = mask.sum(axis=0)
        middle = (len(columns) - 1) / 2
        return float(
            np.average(np.arange(len(columns)), weights=columns) if columns.any() else middle
        )

    return (one, other) if column(one) <= column(other) else (other, one)


def together(masks: Sequence[np.ndarray]) -> tuple[np.ndarray]:
    """One mask: what any of them covers."""
    return (np.any(masks, axis=0),)
