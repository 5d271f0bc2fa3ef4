"""Fixture of a release, and functions that write its films and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

DARK, BRIGHT = 40, 220
Box = tuple[float, float, float, float]


@dataclass
class Release:
    """A folder, how to name it, and what must come out of it.

    Attributes:
        index: A file whose content decides records. labels, boxes: By record id.
        splits: By record id, or (id, split) pairs; None where a hash decides.
        bright: Films show their truth: `mask`, `boxes` or neither.
    """

    name: str
    root: Path
    index: Path
    labels: dict[str, tuple[int | None, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    splits: set[tuple[str, str]] | None = None
    boxes: dict[str, list[Box]] | None = None
    bright: str = ""
    leaks: bool = False

    @property
    def ref(self) -> str:
        """One-line form."""
        options = {"root": self.root, **self.options}
        return f"{self.name}?" + "&".join(f"{key}={value}" for key, value in options.items())


def paint(
    path: Path, areas: Sequence[Box] = (), size: tuple[int, int] = (48, 40), seed: int = 0
) -> None:
    """Write a film of (width, height); areas (x1, y1, x2, y2) in its pixels are bright."""
    pixels = np.full((size[1], size[0]), DARK, np.uint8)
    pixels[0, : seed % size[0] + 1] = 1 + seed % 30  # no two films are alike
    for x1, y1, x2, y2 in areas:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = BRIGHT
    pixels[0, -1] = 255  # a white corner, so that DICOM's range is the same in each film
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".dcm", ".dicom"):
        write_dicom(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def write_dicom(path: Path, pixels: np.ndarray, **tags: Any) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[path.stem])
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.PatientName = "Doe^Jane"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)


def lines(path: Path, rows: Sequence[str], end: str = "\n", bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((("\ufeff" if bom else "") + end.join(rows) + end).encode())
    return path
