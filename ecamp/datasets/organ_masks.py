"""Base class of chest films with organ masks (Montgomery, Shenzhen, JSRT).

There is no table: a film is an image whose name matches the pattern of the set, and its label is in its
name. Radiologists' notes next to the films are never opened.

Why: docs/decisions.md#right-and-left-lung-by-place.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from ecamp.api.dataset import Record, Sample
from ecamp.datasets.public import DEFAULT_FRACTIONS, ImagePayload, PublicConfigT, PublicDataset
from ecamp.errors import DataError
from ecamp.io.folders import ImageIndex, missing_file_error
from ecamp.io.images import fit_mask, read_image, read_mask


def nested_patterns(*folders: str) -> tuple[str, ...]:
    """Return patterns of folders in root or up to two levels below, as archives are unpacked."""
    return tuple(prefix + folder for prefix in ("", "*/", "*/*/") for folder in folders)


@dataclass(frozen=True)
class OrganMaskFilm(ImagePayload):
    """A film with organ masks.

    Attributes:
        masks: Mask images below root, one per part; () = not known.
    """

    masks: tuple[str, ...] = ()


class OrganMaskDataset(PublicDataset[PublicConfigT]):
    """Films by name, and their masks by the same name in one folder per part."""

    name_pattern: ClassVar[re.Pattern[str]]  # matches the whole name of a film
    looked_for: ClassVar[tuple[str, ...]]  # location of films in the release, for messages

    @property
    @abstractmethod
    def _mask_folders(self) -> Mapping[str, Sequence[str]]:
        """Part -> patterns of the folders of its masks."""

    @cached_property
    def _mask_indexes(self) -> dict[str, ImageIndex]:
        """Part -> its masks; empty if root contains no mask of any film of this set."""
        parts = {
            part: ImageIndex(self.root, patterns) for part, patterns in self._mask_folders.items()
        }
        names = (name for index in parts.values() for name in index.by_name)
        has_masks = any(self.name_pattern.fullmatch(name.removesuffix("_mask")) for name in names)
        return parts if has_masks else {}

    def _films_in_root(self) -> Iterator[tuple[str, str]]:
        """List name and path of each film in root.

        Raises:
            MissingError: There is none.
        """
        names = sorted(name for name in self.images.by_name if self.name_pattern.fullmatch(name))
        if not names:
            raise missing_file_error(
                self.root, self.looked_for, f"See ecamp data info {self.name} for its layout."
            )
        for name in names:
            yield name, self.images.by_name[name]

    def _read(self) -> Iterable[Record]:
        yield from self.split_by_hash(self._films(), DEFAULT_FRACTIONS)

    def _films(self) -> Iterator[Record]:
        """Read the films in root, without splits."""
        for name, path in self._films_in_root():
            with self.bad:
                film = OrganMaskFilm(path, masks=self._mask_paths(name, path))
                yield Record(
                    name, self._patient(name), "", path, (self._label(name),),
                    has_mask=bool(film.masks), payload=film,
                )  # fmt: skip

    def _patient(self, name: str) -> str:
        """Return the patient of a film; without an override each film is a patient."""
        return name

    def _label(self, name: str) -> int:
        """Return the label of a film, which is the last character of its name unless overridden."""
        return int(name[-1])

    def _mask_paths(self, name: str, location: str) -> tuple[str, ...]:
        """Find the masks of a film, one per part; () = no mask, so the organs are not known.

        Raises:
            DataError: Masks of some parts are there and of others not.
        """
        masks = {
            part: index.by_name.get(name) or index.by_name.get(f"{name}_mask")
            for part, index in self._mask_indexes.items()
        }
        paths = tuple(path for path in masks.values() if path)
        if paths and len(paths) < len(masks):
            lacking = [part for part, path in masks.items() if not path]
            raise DataError(
                f"{location}: there is {paths[0]}, but no mask of {' or '.join(lacking)}.",
                "Unpack the masks again, or use on_bad_row=skip.",
            )
        return paths

    def load(self, record: Record, size: int) -> Sample:
        image = self._image(record)
        if not record.has_mask:
            return Sample(image)
        masks = [self._mask(path, image, record) for path in record.payload.masks]
        return Sample(image, np.stack(self._classes(masks)))

    def _image(self, record: Record) -> np.ndarray:
        """Read the image: uint8 (height, width, 1)."""
        return read_image(self.root / record.payload.path, "grey", record.row)

    def _mask(self, path: str, image: np.ndarray, record: Record) -> np.ndarray:
        mask = read_mask(self.root / path, record.row)
        (height, width), (h, w) = image.shape[:2], mask.shape
        if abs(h * width - w * height) > 0.01 * h * width:
            raise DataError(
                f"{self.root / path} ({record.row}): mask is {w}x{h}, image {width}x{height}.",
                "A mask may have another size than its film, but must have the same proportions.",
            )
        if mask.mean() > 2 / 3:
            raise DataError(
                f"{self.root / path} ({record.row}): the mask covers {mask.mean():.0%} of the film, "
                "more than any organ.",
                "Non-zero pixels are inside; is the mask inverted?",
            )
        return fit_mask(mask, height, width)

    def _classes(self, masks: list[np.ndarray]) -> Sequence[np.ndarray]:
        """Convert masks of parts to masks of classes, in the order of `mask_classes`."""
        return masks

    def _files(self) -> Iterator[str]:
        yield from super()._files()
        for record in self._records:
            yield from record.payload.masks


def right_first(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order the masks of two sides: the patient's right, then the left.

    A film is displayed as if facing the patient, so the patient's right is on the left of the image. An
    empty mask counts as in the middle.
    """

    def centre(mask: np.ndarray) -> float:
        columns = mask.sum(axis=0)
        middle = (len(columns) - 1) / 2
        return float(
            np.average(np.arange(len(columns)), weights=columns) if columns.any() else middle
        )

    return (first, second) if centre(first) <= centre(second) else (second, first)


def union_mask(masks: Sequence[np.ndarray]) -> tuple[np.ndarray]:
    """Unite masks into one."""
    return (np.any(masks, axis=0),)
