"""DICOM reader for radiographs: compressed or not, 8 to 16 bit, one frame or many.

Only the header elements that pixels need are read (`TAGS`), so no name, number or date of a patient is
ever in memory. Messages are our own, because those of decoders quote the header.

| in the file | result |
| --- | --- |
| rescale, modality table | values in their units |
| VOI table, else windows | the first is applied; a window narrower than 1 is ignored |
| neither | the whole range |
| pixel padding | black, excluded from the range |
| MONOCHROME1 | inverted: bright means dense |
| RGB, YBR, PALETTE COLOR | RGB |
| many frames | the first |
"""

from __future__ import annotations

import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import current_process
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ecamp.errors import DataError
from ecamp.io.jpeg_size import encoded_size

DICOM_SUFFIXES = (".dcm", ".dicom")
TAGS = [
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "PixelData", "FloatPixelData", "DoubleFloatPixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelPaddingValue", "PixelPaddingRangeLimit",
    *(f"{colour}PaletteColorLookupTable{part}"
      for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
]  # fmt: skip
# A fixed order, so that a lossy file gives the same pixels whichever extra is installed.
_DECODERS = ("", "pydicom", "pillow", "pyjpegls", "gdcm", "pylibjpeg")
TIMEOUT = 120.0  # seconds for one image, after which its decoder counts as crashed
_LOSSY_12_BIT = "1.2.840.10008.1.2.4.51"


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM: by suffix; without one by its magic number or first element.

    Raises:
        OSError: It cannot be opened.
    """
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # instance UIDs end in digits: 1.2.840.10008
        return False
    with path.open("rb") as file:
        head = file.read(132)
    # Without a preamble the header starts with an element below 0100 of group 0002 or 0008.
    return head[128:] == b"DICM" or (head[:2] in (b"\2\0", b"\x08\0") and head[3:4] == b"\0")


def read_dicom(path: Path) -> np.ndarray:
    """Read the first frame as it is meant to be displayed, stretched to 0..255.

    Returns:
        uint8 (height, width) or (height, width, 3).

    Raises:
        FileNotFoundError: No such file.
        DataError: It cannot be decoded; gives the reason, not the file.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    dataset, pixels = decode_dicom(path)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    with _silent():
        try:
            if photometric == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, dataset)
            if photometric.startswith(("RGB", "YBR", "PALETTE")):
                return pixels if pixels.dtype == np.uint8 else stretch(pixels.astype(np.float32))
            film = _film_area(dataset, pixels)
            values = apply_modality_lut(pixels, dataset)
            if "VOILUTSequence" in dataset or _has_window(dataset):
                values = apply_voi_lut(values, dataset)
        except Exception as error:
            raise DataError(
                f"DICOM rescale, window, palette or padding cannot be applied ({type(error).__name__}).",
                "Correct the header: RescaleSlope, WindowCenter, WindowWidth and tables must be numbers.",
            ) from None
    with np.errstate(over="ignore"):  # values beyond float32 are refused below
        values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise DataError(
            "DICOM values are not finite after rescale and window.",
            "Correct RescaleSlope and RescaleIntercept, or skip such images with --on-bad-image skip.",
        )
    return stretch(-values if photometric == "MONOCHROME1" else values, film)


def decode_dicom(path: Path) -> tuple[Any, np.ndarray]:
    """Decode header and stored values of the first frame, before rescale and window.

    Returns:
        pydicom Dataset with `TAGS` only; (rows, columns) or (rows, columns, 3) as stored.

    Raises:
        FileNotFoundError, DataError: As `read_dicom`.
    """
    import pydicom

    # Opened here, so that an OSError of pydicom can only concern the content: it raises those too.
    with _silent(), path.open("rb") as file:
        _check_deflated(file)
        try:
            dataset = pydicom.dcmread(file, force=True, specific_tags=list(TAGS))
        except Exception as error:
            raise DataError(f"not a DICOM file ({type(error).__name__}).") from None
        try:
            return dataset, _decode(dataset, path)
        except DataError:
            raise
        except Exception as error:  # decoders raise many types; their messages may quote the header
            raise DataError(
                f"DICOM pixels cannot be decoded: {_reason(dataset, error)}.",
                "Download the file again, or skip such images with --on-bad-image skip.",
            ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Silence warnings and log lines of pydicom: they quote values of the header."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # also for its child loggers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _decode(dataset: Any, path: Path) -> np.ndarray:
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import UID

    missing = [tag for tag in ("Rows", "Columns", "BitsAllocated") if tag not in dataset]
    has_pixels = any(
        tag in dataset for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    )
    if missing or not has_pixels:
        lacking = missing[0] if missing else "pixels"
        raise DataError(
            f"DICOM pixels cannot be decoded: the header has no {lacking}.",
            "Not an image, not a DICOM file, or cut off at the start; download the file again.",
        )
    height, width = int(dataset.Rows), int(dataset.Columns)
    if (limit := _limit()) is not None and height * width > limit:
        raise DataError(
            f"DICOM of {width}x{height} = {height * width:,} pixels exceeds the limit of {limit:,}.",
            "Shrink the image before use.",
        )
    meta = dataset.file_meta
    if (
        "TransferSyntaxUID" not in meta
    ):  # without a meta header: the encoding that the reader detected
        implicit, little = dataset.original_encoding
        meta.TransferSyntaxUID = UID(
            "1.2.840.10008.1.2" if implicit
            else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        )  # fmt: skip
    decoder = get_decoder(meta.TransferSyntaxUID)
    if not decoder.is_available:
        raise DataError(
            f"DICOM pixels cannot be decoded: {_codec(meta.TransferSyntaxUID)} needs a decoder.",
            'pip install "ecamp[dicom]"',
        )
    if not decoder.is_native:
        _check_encoded_size(dataset, width, height)
    names = [""] if decoder.is_native else sorted(decoder.available_plugins, key=_DECODERS.index)
    failed: Exception | None = None
    for name in names:
        try:
            if name == "gdcm":
                return _decode_isolated(path, meta.TransferSyntaxUID)
            return pixel_array(dataset, index=0, decoding_plugin=name)
        except Exception as error:  # the next decoder may succeed; the last error is reported
            failed = error
    assert failed is not None
    raise failed


def _limit() -> int | None:
    """Return the number of pixels above which an image counts as an attack (Pillow's rule)."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _check_deflated(file: BinaryIO) -> None:
    """Check that a deflated file inflates within bounds: pydicom inflates it whole.

    Raises:
        DataError: It inflates to more than a 32-bit image at the limit of pixels.
    """
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        read_preamble(file, force=True)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        rest, inflated, stream = file.read(), 0, zlib.decompressobj(-zlib.MAX_WBITS)
        while rest and not stream.eof and (limit := _limit()) is not None:
            inflated += len(stream.decompress(rest, 2**20))
            if inflated > 4 * limit:
                raise DataError(
                    f"DICOM inflates to more than {4 * limit:,} bytes.",
                    "Shrink the image before use.",
                )
            rest = stream.unconsumed_tail
    except DataError:
        raise
    except Exception:  # not a deflated DICOM file: the reader gives the reason
        return
    finally:
        file.seek(0)


def _check_encoded_size(dataset: Any, width: int, height: int) -> None:
    """Check that the compressed stream has the size of the header: decoders allocate the former.

    Raises:
        DataError: It has another size.
    """
    from pydicom.encaps import get_frame

    frames = int(dataset.get("NumberOfFrames") or 1)
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=frames, extended_offsets=offsets)
    size = encoded_size(frame)
    if size not in (None, (width, height)):
        raise DataError(
            f"DICOM of {width}x{height} contains a compressed image of {size[0]}x{size[1]}.",
            "Download the file again, or skip such images with --on-bad-image skip.",
        )


def _decode_isolated(path: Path, syntax: Any) -> np.ndarray:
    """Decode with gdcm in a process of its own: on damaged content it can crash, not only fail.

    Why gdcm at all: docs/decisions.md#gdcm-decodes-in-a-process-of-its-own.
    """
    # A daemonic process (torch's DataLoader workers) may have no children.
    result = (_gdcm if current_process().daemon else _in_decoder_process)(path, syntax)
    if isinstance(result, str):
        raise ValueError(result)
    return result


def _in_decoder_process(path: Path, syntax: Any) -> np.ndarray | str:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    executor = _decoder_process(os.getpid())
    try:
        result: np.ndarray | str = executor.submit(_gdcm, path, syntax).result(TIMEOUT)
        return result
    except (BrokenProcessPool, TimeoutError):
        executor.shutdown(wait=False, kill_workers=True)
        _decoder_process.cache_clear()
        raise DataError(
            f"DICOM pixels cannot be decoded: {_codec(syntax)} whose content crashes the decoder.",
            "Download the file again, or skip such images with --on-bad-image skip.",
        ) from None


@cache
def _decoder_process(pid: int) -> Any:
    """Start the process that decodes for process `pid`; a fork does not inherit its parent's."""
    from multiprocessing.util import Finalize

    from joblib.externals.loky import ProcessPoolExecutor

    executor = ProcessPoolExecutor(max_workers=1, timeout=300)
    # A forked process waits for its children at exit, and this one would idle for five minutes.
    Finalize(None, executor.shutdown, kwargs={"wait": False, "kill_workers": True}, exitpriority=10)
    return executor


def _gdcm(path: Path, syntax: str) -> np.ndarray | str:
    """Decode the first frame with gdcm; return the error's type name, as errors pickle badly."""
    import pydicom
    from pydicom.pixels import pixel_array

    with _silent():
        try:
            dataset = pydicom.dcmread(path, force=True, specific_tags=list(TAGS))
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
            return pixel_array(dataset, index=0, decoding_plugin="gdcm")
        except Exception as error:
            return type(error).__name__


def _reason(dataset: Any, error: Exception) -> str:
    """Describe an error by numbers of the pixel description only."""
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
        rows, columns, bits = dataset.Rows, dataset.Columns, dataset.BitsAllocated
        frame = rows * columns * dataset.get("SamplesPerPixel", 1) * bits // 8
        frames = int(dataset.get("NumberOfFrames") or 1)
        present = len(dataset.get("PixelData", b""))
        if not syntax.is_compressed and present < frame * frames:
            return f"{present:,} of {frame * frames:,} bytes are present; the file is truncated"
        if syntax == _LOSSY_12_BIT and dataset.get("BitsStored", 8) > 8:
            return (
                "lossy 12-bit JPEG, which only pylibjpeg-libjpeg reads (GPL-3.0; "
                "pip install pylibjpeg pylibjpeg-libjpeg)"
            )
        return f"{columns}x{rows}, {bits} bit, {_codec(syntax)} ({type(error).__name__})"
    except Exception:  # the description itself is broken
        return (
            f"its pixel description contains values that are not numbers ({type(error).__name__})"
        )


def _codec(syntax: Any) -> str:
    """Return the name of a transfer syntax (pydicom's UID) if it is a standard one."""
    return (
        syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "unknown encoding"
    )


def _has_window(dataset: Any) -> bool:
    widths = dataset.get("WindowWidth")
    if widths in (None, "") or dataset.get("WindowCenter") in (None, ""):
        return False
    first = widths[0] if not isinstance(widths, str | float | int) and len(widths) else widths
    return float(first) >= 1


def _film_area(dataset: Any, pixels: np.ndarray) -> np.ndarray | None:
    """Mark pixels that are film, not padding (DICOM PS3.3 C.7.5.1.1.2): bool; None = all."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    ends = [int(value) for value in (first, first if last is None else last)]
    if pixels.dtype.kind == "i" and pixels.dtype.itemsize == 2:
        # Many writers store it unsigned even for signed pixels: 63536 is -2000.
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    return (pixels < min(ends)) | (pixels > max(ends))


def stretch(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Map the range of a float image to 0..255; a constant image becomes all 0.

    Args:
        values: float, any shape.
        valid: bool of the same shape: pixels that determine the range; the others become 0. None,
            or all False: every pixel.

    Returns:
        uint8 of the same shape.
    """
    if valid is not None and not valid.any():
        valid = None
    counted = values if valid is None else values[valid]
    low, high = float(counted.min()), float(counted.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    levels = np.round((values - low) * (255.0 / (high - low)))
    return (levels if valid is None else np.where(valid, levels, 0)).astype(np.uint8)
