"""Read DICOM as radiology sends it: compressed or not, 8 to 16 bit, one frame or many.

Of the header only what pixels need is read (`TAGS`): no name, number or date of a patient is ever in
memory, and messages are our own, since those of decoders quote what stands in the file.

| in the file | what comes out |
| --- | --- |
| rescale, modality table | values in their units |
| VOI table, else windows | the first of them is applied; a width below 1 is none |
| neither | the whole range |
| pixel padding | black, and no part of the range |
| MONOCHROME1 | turned around: bright means dense |
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
# One order on every machine: a lossy file gives the same pixels whichever extra is installed.
_DECODERS = ("", "pydicom", "pillow", "pyjpegls", "gdcm", "pylibjpeg")
TIMEOUT = 120.0  # seconds for one image, after which its decoder counts as crashed
_LOSSY_12_BIT = "1.2.840.10008.1.2.4.51"


def is_dicom(path: Path) -> bool:
    """Whether a file is read as DICOM: by suffix; without one by its mark, or how its header begins.

    Raises:
        OSError: It cannot be opened.
    """
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # names of instances: 1.2.840.10008
        return False
    with path.open("rb") as file:
        head = file.read(132)
    # Without preamble a header begins with an element below 0100 of group 0002 or 0008.
    return head[128:] == b"DICM" or (head[:2] in (b"\2\0", b"\x08\0") and head[3:4] == b"\0")


def read_dicom(path: Path) -> np.ndarray:
    """Read the first frame as it is meant to be seen, stretched to 0..255.

    Returns:
        uint8 (height, width) or (height, width, 3).

    Raises:
        FileNotFoundError: No such file. DataError: It cannot be decoded; says why, not which file.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    dataset, pixels = decode_dicom(path)
    kind = str(dataset.get("PhotometricInterpretation", ""))
    with _silent():
        try:
            if kind == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, dataset)
            if kind.startswith(("RGB", "YBR", "PALETTE")):
                return pixels if pixels.dtype == np.uint8 else stretch(pixels.astype(np.float32))
            film = _film(dataset, pixels)
            values = apply_modality_lut(pixels, dataset)
            if "VOILUTSequence" in dataset or _has_window(dataset):
                values = apply_voi_lut(values, dataset)
        except Exception as error:
            raise DataError(
                f"DICOM rescale, window, palette or padding cannot be applied ({type(error).__name__}).",
                "Correct the header: RescaleSlope, WindowCenter, WindowWidth and tables are numbers.",
            ) from None
    with np.errstate(over="ignore"):  # what is beyond float32 is refused below
        values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise DataError(
            "DICOM values are not finite after rescale and window.",
            "Correct RescaleSlope and RescaleIntercept, or leave such rows out with --on-bad-image skip.",
        )
    return stretch(-values if kind == "MONOCHROME1" else values, film)


def decode_dicom(path: Path) -> tuple[Any, np.ndarray]:
    """Header and stored values of the first frame, before rescale and window.

    Returns:
        pydicom Dataset with `TAGS` only; (rows, columns) or (rows, columns, 3) as stored.

    Raises:
        FileNotFoundError: No such file. DataError: As `read_dicom`.
    """
    import pydicom

    # Opened here, so that an OSError of pydicom is one of the content: it raises them for that too.
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
        except Exception as error:  # decoders raise many kinds; their words may quote the header
            raise DataError(
                f"DICOM pixels cannot be decoded: {_why(dataset, error)}.",
                "Get the file again, or leave such rows out with --on-bad-image skip.",
            ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """No warning and no log line of pydicom: they quote values of the header."""
    log = logging.getLogger("pydicom")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)  # its children's too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _decode(dataset: Any, path: Path) -> np.ndarray:
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import UID

    missing = [tag for tag in ("Rows", "Columns", "BitsAllocated") if tag not in dataset]
    holds = any(tag in dataset for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    if missing or not holds:
        lacks = missing[0] if missing else "pixels"
        raise DataError(
            f"DICOM pixels cannot be decoded: the header has no {lacks}.",
            "Not an image, not a DICOM file, or its beginning is lost; get the file again.",
        )
    height, width = int(dataset.Rows), int(dataset.Columns)
    if (limit := _limit()) is not None and height * width > limit:
        raise DataError(
            f"DICOM of {width}x{height} = {height * width:,} pixels is beyond the limit of {limit:,}.",
            "Shrink the image before use.",
        )
    meta = dataset.file_meta
    if "TransferSyntaxUID" not in meta:  # without meta header: as its data elements were found
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
        _check_stream(dataset, width, height)
    names = [""] if decoder.is_native else sorted(decoder.available_plugins, key=_DECODERS.index)
    failed: Exception | None = None
    for name in names:
        try:
            if name == "gdcm":
                return _decode_apart(path, meta.TransferSyntaxUID)
            return pixel_array(dataset, index=0, decoding_plugin=name)
        except Exception as error:  # the next one may; the last one's error tells
            failed = error
    assert failed is not None
    raise failed


def _limit() -> int | None:
    """Pixels beyond which an image is taken for an attack, as Pillow counts them."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _check_deflated(file: BinaryIO) -> None:
    """A deflated file is inflated whole before its header can be read: it must end within bounds.

    Raises:
        DataError: It inflates to more than an image of 32 bit at the limit of pixels.
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
    except Exception:  # not what it says: whoever reads it whole tells why
        return
    finally:
        file.seek(0)


def _check_stream(dataset: Any, width: int, height: int) -> None:
    """Decoders take the size that stands in the compressed stream: it must be the header's.

    Raises:
        DataError: It is another.
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
            f"DICOM of {width}x{height} holds a compressed image of {size[0]}x{size[1]}.",
            "Get the file again, or leave such rows out with --on-bad-image skip.",
        )


def _decode_apart(path: Path, syntax: Any) -> np.ndarray:
    """Decode with gdcm in a process of its own: damaged content can make it crash, not only fail.

    Why gdcm at all: docs/decisions.md#gdcm-decodes-in-a-process-of-its-own.
    """
    # A daemonic process (torch's DataLoader workers) may have no children.
    found = (_gdcm if current_process().daemon else _in_other_process)(path, syntax)
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _in_other_process(path: Path, syntax: Any) -> np.ndarray | str:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    executor = _other_process(os.getpid())
    try:
        found: np.ndarray | str = executor.submit(_gdcm, path, syntax).result(TIMEOUT)
        return found
    except (BrokenProcessPool, TimeoutError):
        executor.shutdown(wait=False, kill_workers=True)
        _other_process.cache_clear()
        raise DataError(
            f"DICOM pixels cannot be decoded: {_codec(syntax)} with content that crashes its decoder.",
            "Get the file again, or leave such rows out with --on-bad-image skip.",
        ) from None


@cache
def _other_process(pid: int) -> Any:
    """The process that decodes for process `pid`; a fork does not inherit its parent's."""
    from multiprocessing.util import Finalize

    from joblib.externals.loky import ProcessPoolExecutor

    executor = ProcessPoolExecutor(max_workers=1, timeout=300)
    # A forked process waits for its children when it ends, and this one would idle for its five minutes.
    Finalize(None, executor.shutdown, kwargs={"wait": False, "kill_workers": True}, exitpriority=10)
    return executor


def _gdcm(path: Path, syntax: str) -> np.ndarray | str:
    """Stored values of the first frame; the kind of error, as errors cross processes badly."""
    import pydicom
    from pydicom.pixels import pixel_array

    with _silent():
        try:
            dataset = pydicom.dcmread(path, force=True, specific_tags=list(TAGS))
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
            return pixel_array(dataset, index=0, decoding_plugin="gdcm")
        except Exception as error:
            return type(error).__name__


def _why(dataset: Any, error: Exception) -> str:
    """What is wrong, in numbers of the pixel description alone."""
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
        rows, columns, bits = dataset.Rows, dataset.Columns, dataset.BitsAllocated
        frame = rows * columns * dataset.get("SamplesPerPixel", 1) * bits // 8
        frames = int(dataset.get("NumberOfFrames") or 1)
        held = len(dataset.get("PixelData", b""))
        if not syntax.is_compressed and held < frame * frames:
            return f"{held:,} of {frame * frames:,} bytes are there; the file is cut short"
        if syntax == _LOSSY_12_BIT and dataset.get("BitsStored", 8) > 8:
            return (
                "lossy JPEG of 12 bit, which only pylibjpeg-libjpeg reads (GPL-3.0; "
                "pip install pylibjpeg pylibjpeg-libjpeg)"
            )
        return f"{columns}x{rows}, {bits} bit, {_codec(syntax)} ({type(error).__name__})"
    except Exception:  # the description itself is broken
        return f"its description is no set of numbers ({type(error).__name__})"


def _codec(syntax: Any) -> str:
    """Name of a transfer syntax (pydicom's UID); its number only where it is a known one."""
    return syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "unknown coding"


def _has_window(dataset: Any) -> bool:
    widths = dataset.get("WindowWidth")
    if widths in (None, "") or dataset.get("WindowCenter") in (None, ""):
        return False
    first = widths[0] if not isinstance(widths, str | float | int) and len(widths) else widths
    return float(first) >= 1


def _film(dataset: Any, pixels: np.ndarray) -> np.ndarray | None:
    """Where stored values are film, not padding (DICOM PS3.3 C.7.5.1.1.2); bool, None = everywhere."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    ends = [int(value) for value in (first, first if last is None else last)]
    if pixels.dtype.kind == "i" and pixels.dtype.itemsize == 2:
        # Many writers call it unsigned whatever the pixels are: 63536 is -2000.
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    return (pixels < min(ends)) | (pixels > max(ends))


def stretch(values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Map the range of a float image to 0..255; a constant image becomes all 0.

    Args:
        where: Pixels that count, bool of the same shape; the others become 0. None, or none at all: all.
    """
    if where is not None and not where.any():
        where = None
    counted = values if where is None else values[where]
    low, high = float(counted.min()), float(counted.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    levels = np.round((values - low) * (255.0 / (high - low)))
    return (levels if where is None else np.where(where, levels, 0)).astype(np.uint8)
