"""Image reading against pixels written by Pillow and pydicom, and against pydicom's own windowing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from ecamp.errors import DataError
from ecamp.io.images import read_image, read_mask


def _ramp(dtype: type, top: int) -> np.ndarray:
    return np.linspace(0, top, 20 * 30).reshape(20, 30).astype(dtype)


def _dicom(path: Path, pixels: np.ndarray, **tags: object) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["ecamp"])
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)
    return path


def test_png_of_8_bit_is_untouched(tmp_path: Path):
    pixels = _ramp(np.uint8, 200)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", "grey")[..., 0], pixels)
    assert read_image(tmp_path / "a.png", "rgb").shape == (20, 30, 3)


def test_png_of_16_bit_is_stretched_not_cut(tmp_path: Path):
    # The published loader keeps the low byte of such files: a ramp becomes a saw.
    pixels = _ramp(np.uint16, 4095)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    out = read_image(tmp_path / "a.png", "grey")[..., 0]
    assert np.array_equal(out, np.round(pixels * (255 / 4095)).astype(np.uint8))
    assert (np.diff(out.ravel().astype(int)) >= 0).all()


def test_grey_saved_as_rgb_stays_grey(tmp_path: Path):
    pixels = _ramp(np.uint8, 255)
    Image.fromarray(np.repeat(pixels[..., None], 3, 2)).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", "grey")[..., 0], pixels)


def test_palette_and_alpha_are_resolved(tmp_path: Path):
    pixels = _ramp(np.uint8, 255)
    Image.fromarray(pixels).convert("P").save(tmp_path / "p.png")
    Image.fromarray(pixels).convert("LA").save(tmp_path / "la.png")
    for name in ("p.png", "la.png"):
        assert np.array_equal(read_image(tmp_path / name, "grey")[..., 0], pixels)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"RescaleSlope": "2.5", "RescaleIntercept": "-1024"},
        {"WindowCenter": "900", "WindowWidth": "700"},
        {"WindowCenter": "900", "WindowWidth": "700", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": ["900", "50"], "WindowWidth": ["700", "20"]},
        {"RescaleSlope": "2", "RescaleIntercept": "-500", "WindowCenter": "800", "WindowWidth": "900"},
    ],
)  # fmt: skip
def test_dicom_values_are_rescaled_and_windowed(tmp_path: Path, tags: dict[str, object]):
    pixels = _ramp(np.uint16, 3000)
    path = _dicom(tmp_path / "a.dcm", pixels, **tags)
    values = pixels * float(tags.get("RescaleSlope", 1)) + float(tags.get("RescaleIntercept", 0))
    if "WindowCenter" in tags:
        # DICOM PS3.3 C.11.2.1.2, by hand; the first window counts.
        center = float(np.atleast_1d(tags["WindowCenter"])[0])
        width = float(np.atleast_1d(tags["WindowWidth"])[0])
        if tags.get("VOILUTFunction") == "SIGMOID":
            values = 1 / (1 + np.exp(-4 * (values - center) / width))
        else:
            values = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    low, high = values.min(), values.max()
    expected = (values - low) / (high - low) * 255
    out = read_image(path, "grey")[..., 0]
    assert np.abs(out - expected).max() <= 0.51


def test_monochrome1_is_turned_around(tmp_path: Path):
    pixels = _ramp(np.uint16, 3000)
    plain = read_image(_dicom(tmp_path / "a.dcm", pixels), "grey")
    turned = read_image(
        _dicom(tmp_path / "b.dcm", pixels, PhotometricInterpretation="MONOCHROME1"), "grey"
    )
    # Halves are rounded to even on both sides.
    assert np.abs(turned.astype(int) - (255 - plain.astype(int))).max() <= 1


def test_signed_pixels_and_a_file_without_suffix(tmp_path: Path):
    pixels = _ramp(np.int16, 2000) - 1000
    path = _dicom(tmp_path / "IM0001", pixels.astype(np.int16))
    out = read_image(path, "grey")[..., 0]
    assert out[0, 0] == 0
    assert out[-1, -1] == 255


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.dcm", "a.tif", "a"])
@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n torn"])
def test_whatever_lies_in_a_file_is_an_error_with_its_row(
    tmp_path: Path, name: str, content: bytes
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} \(list\.csv row 3\)"):
        read_image(path, "grey", "list.csv row 3")


def test_a_torn_file_and_a_missing_one(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(_ramp(np.uint8, 200)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="unreadable image"):
        read_image(path, "grey")
    with pytest.raises(DataError, match="no such image"):
        read_image(tmp_path / "none.png", "grey")
    with pytest.raises(DataError, match="no such image"):
        read_image(tmp_path / "none.dcm", "grey")
    with pytest.raises(DataError, match="no such mask"):
        read_mask(tmp_path / "none.png")


def test_a_mask_is_whatever_is_not_zero(tmp_path: Path):
    inside = np.zeros((6, 8), bool)
    inside[2:4, 3:5] = True
    Image.fromarray(inside.astype(np.uint8)).save(tmp_path / "one.png")
    Image.fromarray((inside * 255).astype(np.uint8)).save(tmp_path / "full.png")
    Image.fromarray(inside).save(tmp_path / "bit.png")
    rgb = np.zeros((6, 8, 3), np.uint8)
    rgb[..., 2] = inside * 9
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    for name in ("one", "full", "bit", "rgb"):
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), inside)


def test_a_bomb_is_refused_and_its_size_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.fromarray(_ramp(np.uint8, 200)).save(tmp_path / "a.png")
    dicom = _dicom(tmp_path / "a.dcm", _ramp(np.uint16, 3000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)  # Pillow refuses twice as many
    for path in (tmp_path / "a.png", dicom):
        with pytest.raises(DataError, match=r"30x20.*600"):
            read_image(path, "grey", "list.csv row 3")
    with pytest.raises(DataError, match=r"30x20.*600"):
        read_mask(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == 299
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert read_image(dicom, "grey").shape == (20, 30, 1)
