"""Image and mask reader: PNG, JPEG and TIFF of 8 or 16 bit, and DICOM.

Images are returned as uint8 (height, width, channels); bright means dense (bone is white).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ecamp.errors import DataError
from ecamp.io.dicom import is_dicom, read_dicom, stretch


def read_image(path: Path, colour: str, row: str = "") -> np.ndarray:
    """Read one image.

    Args:
        path: PNG, JPEG, TIFF or DICOM (by suffix, or by its first bytes without one).
        colour: `grey` gives one channel, `rgb` three.
        row: Location of the path in its table, for the message.

    Returns:
        uint8 (height, width, 1 or 3).

    Raises:
        DataError: The file is missing, unreadable or empty; names file and row.
    """
    location = f"{path}" + (f" ({row})" if row else "")
    try:
        pixels = read_dicom(path) if is_dicom(path) else _read_raster(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{location}: no such image.", "Check root and the path column of the table."
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{location}: {_declared_size(path)}{error}", "Shrink the image before use."
        ) from error
    except DataError as error:
        # The cause of a DICOM error quotes the header, so it is kept out of tracebacks too.
        raise DataError(f"{location}: {error.message}", error.hint) from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{location}: unreadable image: {error}",
            "Replace the file, or skip such images with --on-bad-image skip.",
        ) from error
    if pixels.size == 0:
        raise DataError(f"{location}: the image has no pixels.")
    return _to_colour(pixels, colour)


def read_mask(path: Path, row: str = "") -> np.ndarray:
    """Read a mask: any non-zero pixel of any channel is inside.

    Returns:
        bool (height, width).

    Raises:
        DataError: As `read_image`.
    """
    location = f"{path}" + (f" ({row})" if row else "")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise DataError(
            f"{location}: no such mask.", "Leave the cell empty if the image has no mask."
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{location}: {_declared_size(path)}{error}", "Shrink the mask before use."
        ) from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{location}: unreadable mask: {error}") from error
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0)


def fit_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask that was drawn on its image at another size.

    A pixel is inside if at least half of its area is.

    Args:
        mask: bool, any size.

    Returns:
        bool (height, width).
    """
    if mask.shape == (height, width):
        return mask
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(levels.resize((width, height), Image.Resampling.BOX)) >= 128


def _declared_size(path: Path) -> str:
    """Return `30000x20000: ` for an image that is too large to open."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:  # reads the header only
            return f"{image.width}x{image.height}: "
    except (OSError, SyntaxError, ValueError):
        return ""
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _read_raster(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
            return stretch(np.asarray(image, dtype=np.float32))
        if image.mode in ("L", "RGB"):
            return np.asarray(image)
        return np.asarray(image.convert("L" if image.mode in ("1", "LA") else "RGB"))


def _to_colour(pixels: np.ndarray, colour: str) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    pixels = pixels[..., :3]
    if colour == "grey" and pixels.shape[2] == 3:
        # Chest films saved as RGB repeat one value three times; the luma weights keep it exactly.
        image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
        return np.asarray(image)[..., None]
    if colour == "rgb" and pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[..., :1] if colour == "grey" else pixels


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Make an image of any number of channels one that can be shown: RGB, or its middle channel.

    Args:
        image: uint8 (height, width, channels).

    Returns:
        uint8 (height, width, 3).
    """
    if image.shape[2] == 3:
        return image
    middle = image.shape[2] // 2
    return np.repeat(image[..., middle : middle + 1], 3, axis=2)
