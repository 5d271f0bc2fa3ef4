"""Read an image file as radiology sends it: PNG and JPEG of 8 or 16 bit, and DICOM.

Everything comes out as uint8 (height, width, channels); bright means dense (bone is white).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ecamp.errors import DataError

DICOM_SUFFIXES = (".dcm", ".dicom")


def read_image(path: Path, colour: str, row: str = "") -> np.ndarray:
    """Read one image.

    Args:
        path: PNG, JPEG, TIFF or DICOM (by suffix, or by the DICM mark without one).
        colour: `grey` gives one channel, `rgb` three.
        row: Where the path stands in its table, for the message.

    Returns:
        uint8 (height, width, 1 or 3).

    Raises:
        DataError: When the file is missing, unreadable or empty; names file and row.
    """
    where = f"{path}" + (f" ({row})" if row else "")
    try:
        pixels = _read_dicom(path) if _is_dicom(path) else _read_raster(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{where}: no such image.", "Check the table's path column and root."
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where}: {error}", "Shrink the image before use.") from error
    except DataError as error:
        raise DataError(f"{where}: {error.message}", error.hint) from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{where}: unreadable image: {error}",
            "Replace the file, or leave such rows out with --on-bad-image skip.",
        ) from error
    if pixels.size == 0:
        raise DataError(f"{where}: the image has no pixels.")
    return _to_colour(pixels, colour)


def read_mask(path: Path, row: str = "") -> np.ndarray:
    """Read a mask: any non-zero pixel of any channel is inside.

    Returns:
        bool (height, width).

    Raises:
        DataError: As `read_image`.
    """
    where = f"{path}" + (f" ({row})" if row else "")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise DataError(
            f"{where}: no such mask.", "Leave the cell empty where there is none."
        ) from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{where}: unreadable mask: {error}") from error
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0)


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix:
        return False
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def _read_raster(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
            return stretch(np.asarray(image, dtype=np.float32))
        if image.mode in ("L", "RGB"):
            return np.asarray(image)
        return np.asarray(image.convert("L" if image.mode in ("1", "LA") else "RGB"))


def _read_dicom(path: Path) -> np.ndarray:
    """Decode, apply rescale and the first VOI window, and turn MONOCHROME1 around."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        dataset = pydicom.dcmread(path, force=path.suffix.lower() in DICOM_SUFFIXES)
        pixels = dataset.pixel_array
    except InvalidDicomError as error:
        raise DataError("not a DICOM file.") from error
    except (
        Exception
    ) as error:  # pydicom and its decoders raise many kinds; none is worth a traceback
        raise DataError(
            f"DICOM pixels cannot be decoded: {error}",
            "Compressed files may need the decoders: pip install pylibjpeg[all].",
        ) from error
    if getattr(dataset, "NumberOfFrames", None) not in (None, 1, "1") and pixels.ndim > 2:
        pixels = pixels[0]
    if dataset.get("PhotometricInterpretation", "").startswith(("RGB", "YBR", "PALETTE")):
        return pixels if pixels.dtype == np.uint8 else stretch(pixels.astype(np.float32))
    values = np.asarray(apply_voi_lut(apply_modality_lut(pixels, dataset), dataset), np.float32)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values = values.max() - values
    return stretch(values)


def stretch(values: np.ndarray) -> np.ndarray:
    """Map the range of a float image to 0..255; a constant image becomes all 0."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.round((values - low) * (255.0 / (high - low))).astype(np.uint8)


def _to_colour(pixels: np.ndarray, colour: str) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    pixels = pixels[..., :3]
    if colour == "grey" and pixels.shape[2] == 3:
        # Chest films saved as RGB hold one value three times; the luma weights keep it exactly.
        image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
        return np.asarray(image)[..., None]
    if colour == "rgb" and pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[..., :1] if colour == "grey" else pixels
