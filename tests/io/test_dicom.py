"""DICOM: stored values by hash, codecs, headers that lie, and names that must reach nobody."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import multiprocessing
import os
import signal
import traceback
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from ecamp.cli import run
from ecamp.errors import DataError
from ecamp.io import dicom as module
from ecamp.io.dicom import TAGS, decode_dicom, read_dicom
from ecamp.io.images import read_image

NAME = "PLANTED^JANE"


def dicom(path: Path, pixels: np.ndarray, *, bits: int = 0, **tags: object) -> Path:
    """Write a file of one or more frames with a patient's name wherever one is possible."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for tag in ("PatientName", "PatientID", "StudyDescription", "ReferringPhysicianName",
                "OtherPatientNames", "PatientComments", "InstitutionName"):  # fmt: skip
        setattr(data, tag, NAME)
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    height, width = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    data.Rows, data.Columns, data.SamplesPerPixel = height, width, 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    if pixels.ndim == 3 and not colour:
        data.NumberOfFrames = len(pixels)
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, value in tags.items():
            setattr(data, key, value)
        data.save_as(path)
    return path


def ramp(top: int, dtype: type = np.uint16) -> np.ndarray:
    return np.linspace(0, top, 24 * 32).reshape(24, 32).astype(dtype)


def test_each_sample_decodes_to_its_hash_or_is_named(shared_data: Path):
    folder = shared_data / "dicom_samples"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    told, hashes = {}, {}
    for row in rows:
        path = folder / row["file"]
        try:
            _, pixels = decode_dicom(path)
        except DataError as error:
            told[row["file"]] = str(error)
            continue
        hashes[row["file"]] = digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
        if "not decodable" not in row["pixels"]:
            assert f"sha256={digest}" in row["pixels"], row["file"]
        out = read_image(path, "grey")
        assert out.shape == (*pixels.shape[:2], 1)
        assert out.max() > out.min()
    broken = {row["file"] for row in rows if "not decodable" in row["pixels"]}
    assert set(told) <= broken, told
    # A codec more, or a codec less: the stored values of one picture are the same in each.
    plain = hashes["MR_small.dcm"]
    for name in ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        assert hashes.get(name, plain) == plain
    has_jpeg_ls = get_decoder(JPEGLSLossless).is_available
    assert ("MR_small_jpeg_ls_lossless.dcm" in hashes) == has_jpeg_ls
    if not has_jpeg_ls:
        assert "ecamp[dicom]" in told["MR_small_jpeg_ls_lossless.dcm"]
    assert "8,130 of 8,192 bytes" in told["MR_truncated.dcm"]
    assert "no Rows" in told["no_meta.dcm"]
    assert "values that are not numbers" in told["badVR.dcm"]
    for name in set(told) & {"JPEG-lossy.dcm", "JPGExtended.dcm"}:
        assert "12-bit" in told[name]


def test_without_the_extra_a_codec_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "pydicom.pixels.decoders.base.Decoder.is_available", property(lambda _: False)
    )
    with pytest.raises(DataError, match=r"needs a decoder") as caught:
        read_image(dicom(tmp_path / "a.dcm", ramp(3000)), "grey")
    assert "ecamp[dicom]" in str(caught.value)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_bit_depths(tmp_path: Path, bits: int, syntax: str):
    pixels = ramp(2**bits - 1)
    path = dicom(tmp_path / "a.dcm", pixels, bits=bits)
    if syntax == RLELossless:
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        data.save_as(path)
    assert np.array_equal(decode_dicom(path)[1], pixels)
    expected = np.round(pixels * (255 / (2**bits - 1)))
    assert np.abs(read_image(path, "grey")[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("name", ["a.dcm", "a", "1.2.840.10008"])
def test_without_meta_header(tmp_path: Path, syntax: pydicom.uid.UID, name: str):
    pixels = ramp(4000)
    data = pydicom.dcmread(dicom(tmp_path / "whole.dcm", pixels))
    bare = Dataset()
    bare.update({element.tag: element for element in data})
    bare.save_as(
        tmp_path / name, implicit_vr=syntax.is_implicit_VR, little_endian=True,
        enforce_file_format=False,
    )  # fmt: skip
    assert (tmp_path / name).read_bytes()[128:132] != b"DICM"
    assert np.array_equal(
        read_image(tmp_path / name, "grey"), read_image(tmp_path / "whole.dcm", "grey")
    )


def test_the_first_frame_of_many(tmp_path: Path):
    frames = np.stack([ramp(1000), ramp(4000).T.reshape(24, 32), ramp(50)])
    path = dicom(tmp_path / "cine.dcm", frames)
    assert np.array_equal(decode_dicom(path)[1], frames[0])
    assert read_image(path, "grey").shape == (24, 32, 1)


def test_palette_becomes_colour(tmp_path: Path):
    index = np.arange(24 * 32).reshape(24, 32).astype(np.uint8) % 4
    red, green, blue = (
        np.array(v, np.uint16) * 256 for v in ([0, 255, 0, 9], [0, 0, 200, 9], [7] * 4)
    )
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in (("Red", red), ("Green", green), ("Blue", blue)):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    out = read_image(dicom(tmp_path / "p.dcm", index, **tags), "rgb")
    assert out.shape == (24, 32, 3)
    # All four entries, distinguished as in the table: red 1 is red, green 2 is green.
    first = out[0, :4].astype(int)
    assert first[1].argmax() == 0
    assert first[2].argmax() == 1
    assert np.array_equal(out[:, 4:8], out[:, :4])


def test_a_voi_table_goes_before_windows(tmp_path: Path):
    pixels = ramp(255, np.uint8)
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(255, -1, -1) * 257).astype(np.uint16).tobytes()
    path = dicom(
        tmp_path / "a.dcm", pixels, VOILUTSequence=[table], WindowCenter=["10"], WindowWidth=["5"]
    )
    assert np.array_equal(read_image(path, "grey")[..., 0], 255 - pixels)


@pytest.mark.parametrize("width", ["0", "-3", None])
def test_a_window_without_width_is_none(tmp_path: Path, width: str | None):
    plain = read_dicom(dicom(tmp_path / "a.dcm", ramp(3000)))
    path = dicom(tmp_path / "b.dcm", ramp(3000), WindowCenter="100", WindowWidth=width)
    assert np.array_equal(read_dicom(path), plain)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": "1500", "WindowWidth": "3000"}])
def test_padding_is_black_and_not_part_of_the_range(
    tmp_path: Path, kind: str, window: dict[str, str]
):
    film = (ramp(2000) + 500).astype(np.int16)
    padded = film.copy()
    padded[:, :5] = -2000
    plain = read_dicom(dicom(tmp_path / "a.dcm", film, PhotometricInterpretation=kind, **window))
    tags = {**window, "PhotometricInterpretation": kind}
    for number, padding in enumerate([
        {"PixelPaddingValue": -2000}, {"PixelPaddingValue": -2010, "PixelPaddingRangeLimit": -1990},
    ]):  # fmt: skip
        out = read_dicom(dicom(tmp_path / f"{number}.dcm", padded, **tags, **padding))
        assert not out[:, :5].any()
        inner = film[:, 5:].astype(float) * (-1 if kind == "MONOCHROME1" else 1)
        expected = np.round((inner - inner.min()) * 255 / (inner.max() - inner.min()))
        assert np.abs(out[:, 5:] - expected).max() <= 1
    assert plain[0, 0] != out[0, 0] or kind == "MONOCHROME2"
    # A file of padding alone has a range of its own.
    assert read_dicom(dicom(tmp_path / "c.dcm", film * 0, PixelPaddingValue=0)).shape == film.shape


def test_padding_that_is_called_unsigned(tmp_path: Path):
    film = ramp(2000).astype(np.int16)
    film[0] = -2000
    path = dicom(tmp_path / "a.dcm", film)
    data = pydicom.dcmread(path)
    data.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    data.save_as(path)
    out = read_dicom(path)
    assert not out[0].any()
    assert out[1:].min() == 0
    assert len(np.unique(out[1:])) > 200


def test_text_that_is_read_names_nobody():
    for tag in TAGS:
        assert not any(
            word in tag for word in ("Patient", "Name", "Date", "Time", "ID", "Institution")
        )


def _broken(folder: Path) -> list[Path]:
    """Files that fail in every way we know, each with a name in it."""
    whole = dicom(folder / "whole.dcm", ramp(3000))
    short = folder / "short.dcm"
    short.write_bytes(whole.read_bytes()[:-100])
    head = folder / "head.dcm"
    head.write_bytes(whole.read_bytes()[:400])
    lost = folder / "lost.dcm"
    lost.write_bytes(whole.read_bytes()[133:])
    text = folder / "text.dcm"
    text.write_bytes(NAME.encode() * 50)
    out = [short, head, lost, text]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, tags in enumerate([
            {"PhotometricInterpretation": NAME}, {"BitsStored": 200}, {"SamplesPerPixel": 7},
            {"Rows": 0},
        ]):  # fmt: skip
            out.append(dicom(folder / f"tags{number}.dcm", ramp(3000), **tags))
        # Text where a number belongs: pydicom's own words would quote it.
        for number, (tag, vr) in enumerate(
            [("WindowWidth", b"DS"), ("RescaleSlope", b"DS"), ("NumberOfFrames", b"IS")]
        ):
            path = dicom(folder / f"number{number}.dcm", ramp(3000), WindowCenter="1",
                         **{tag: "123456789012"})  # fmt: skip
            content = path.read_bytes()
            assert vr + b"\x0c\x00123456789012" in content
            path.write_bytes(content.replace(b"123456789012", NAME.encode()))
            out.append(path)
        data = pydicom.dcmread(whole)
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = encapsulate([NAME.encode() * 4])
        data["PixelData"].is_undefined_length = True
        data.save_as(folder / "codec.dcm")
        out.append(folder / "codec.dcm")
    return out


def test_no_name_reaches_a_message_a_log_or_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
):  # fmt: skip
    files = _broken(tmp_path)
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    told, failed = [], 0
    for path in [*files, tmp_path / "whole.dcm"]:
        recwarn.clear()
        try:
            read_image(path, "grey", "list.csv row 3")
        except DataError as error:
            failed += 1
            told += [str(error), "".join(traceback.format_exception(error))]
        told += [str(w.message) for w in recwarn.list]
    assert sum(f"{path.name} (list.csv row 3)" in "".join(told) for path in files) == failed
    assert failed >= len(files) - 2  # some readers are lenient; none may talk
    captured = capfd.readouterr()
    everything = "\n".join([*told, caplog.text, captured.out, captured.err])
    for word in NAME.split("^"):
        assert word not in everything


def test_no_name_reaches_the_output_of_a_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    files = [*_broken(tmp_path), tmp_path / "whole.dcm"]
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    rows = [f"{k},{path.name},p{k},{k % 2}" for k, path in enumerate(files)]
    (tmp_path / "table.csv").write_text("\n".join(["id,image,patient,sick", *rows]) + "\n")
    (tmp_path / "set.yaml").write_text(
        "name: own\nversion: 1\ntable: table.csv\nid: id\nimage: image\npatient: patient\n"
        "split: {hash: {train: 0.6, val: 0.2, test: 0.2}}\nlabels: {multilabel: [sick]}\n"
    )
    name = str(tmp_path / "set.yaml")
    packed = tmp_path / "packed"
    assert run(["data", "check", name]) == 1
    run(["data", "audit", name, "--cache", str(tmp_path / "cache")])
    assert run(
        ["data", "pack", name, "-o", str(packed), "--size", "32", "--on-bad-image", "skip"]
    ) == 0  # fmt: skip
    download, prepared = tmp_path / "download", tmp_path / "prepared"
    for path in files:
        home = download / "stage_2_train_images" / path.name
        home.parent.mkdir(parents=True, exist_ok=True)
        home.write_bytes(path.read_bytes())
    assert run(["data", "prepare", "rsna", "--from", str(download), "-o", str(prepared)]) == 1
    assert run(["data", "show", name, "-o", str(prepared / "sheet.png")]) == 1
    captured = capfd.readouterr()
    assert captured.out.count("short.dcm") == 4, "check, audit, pack, prepare"
    assert "short.dcm" in captured.err, "show"
    written = [
        p for folder in (packed, prepared, tmp_path / "cache")
        for p in folder.rglob("*") if p.is_file()
    ]  # fmt: skip
    assert len(written) >= 5
    everything = [captured.out.encode(), captured.err.encode(), caplog.text.encode()]
    everything += [path.read_bytes() for path in written]
    for word in NAME.split("^"):
        assert not any(word.encode() in part for part in everything)


# --- damaged content ------------------------------------------------------------------------------


@pytest.fixture
def lossless_jpeg(shared_data: Path, tmp_path: Path) -> Path:
    """Return a sample that only gdcm decodes: lossless JPEG, the most common encoding of archives."""
    gdcm = pytest.importorskip("gdcm", reason='pip install "ecamp[dicom]" brings gdcm')
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(shared_data / "dicom_samples" / "MR_small.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "lossless.dcm"))
    assert writer.Write()
    return tmp_path / "lossless.dcm"


def test_a_decoder_that_crashes_takes_one_image_with_it(
    lossless_jpeg: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = decode_dicom(shared_data / "dicom_samples" / "MR_small.dcm")
    assert np.array_equal(decode_dicom(lossless_jpeg)[1], expected)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_gdcm", lambda path, syntax: os.kill(os.getpid(), signal.SIGSEGV))
        with pytest.raises(DataError, match="content crashes the decoder") as caught:
            decode_dicom(lossless_jpeg)
        assert "--on-bad-image skip" in str(caught.value)
    assert np.array_equal(decode_dicom(lossless_jpeg)[1], expected)


def test_a_forked_or_daemonic_reader_decodes_too(lossless_jpeg: Path) -> None:
    expected = decode_dicom(lossless_jpeg)[1]  # the parent has its decoder by now

    def read(answers: object) -> None:
        answers.put(int(decode_dicom(lossless_jpeg)[1].sum()))

    for daemon in (False, True):
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=read, args=(answers,), daemon=daemon)
        child.start()
        assert answers.get() == int(expected.sum())
        child.join()
        assert child.exitcode == 0, "it has ended, and waits for no decoder"


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom(tmp_path / "bomb.dcm", np.zeros((1000, 1000), np.uint16))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    assert path.stat().st_size < 10_000
    assert not read_dicom(path).any()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with (
        patch.object(pydicom, "dcmread", side_effect=AssertionError("inflated whole")),
        pytest.raises(DataError, match=r"inflates to more than 16,000 bytes"),
    ):
        read_dicom(path)
    path.write_bytes(path.read_bytes()[:-20])  # and one that is cut short is no bomb
    monkeypatch.undo()
    with pytest.raises(DataError, match="not a DICOM file"):
        read_dicom(path)


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_a_stream_of_another_size_than_the_header_is_refused(tmp_path: Path, form: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp(255, np.uint8)).save(
        buffer, form, **{"no_jp2": True} if form != "JPEG" else {}
    )
    path = dicom(tmp_path / "a.dcm", ramp(255, np.uint8))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if form == "JPEG" else JPEG2000Lossless
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    assert read_dicom(path).shape == (24, 32)
    data.Columns = 16
    data.save_as(path)
    with pytest.raises(DataError, match="DICOM of 16x24 contains a compressed image of 32x24"):
        read_dicom(path)


def test_frames_found_by_an_extended_offset_table(tmp_path: Path) -> None:
    frames = [ramp(255, np.uint8), ramp(255, np.uint8)[::-1]]
    coded = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG2000", no_jp2=True)
        coded.append(buffer.getvalue())
    path = dicom(tmp_path / "a.dcm", np.stack(frames))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = (
        encapsulate_extended(coded)
    )
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    assert np.array_equal(decode_dicom(path)[1], frames[0])
    data.Columns = 16
    data.save_as(path)
    with pytest.raises(DataError, match="DICOM of 16x24 contains a compressed image of 32x24"):
        read_dicom(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = dicom(
        tmp_path / "a.dcm",
        np.arange(64, dtype=np.uint16).reshape(8, 8),
        RescaleSlope=1e308,
        RescaleIntercept=0,
    )
    with pytest.raises(DataError, match="not finite"):
        read_dicom(path)


@pytest.mark.slow
def test_damaged_files_give_an_image_or_a_clear_error(
    lossless_jpeg: Path, shared_data: Path, tmp_path: Path
) -> None:
    samples = [lossless_jpeg, *sorted((shared_data / "dicom_samples").glob("*.dcm"))]
    whole = [path.read_bytes() for path in samples]
    path = tmp_path / "damaged.dcm"

    @settings(max_examples=400, deadline=None)
    @given(
        st.sampled_from(whole), st.floats(0.05, 1),
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
        st.booleans(),
    )  # fmt: skip
    def check(content: bytes, kept: float, hits: list[tuple[float, int]], header: bool) -> None:
        damaged = bytearray(content[: int(len(content) * kept)])
        for where, value in hits:  # in the header half of the time: that is the smaller part
            damaged[int(where * (min(1500, len(damaged)) if header else len(damaged)))] = value
        path.write_bytes(damaged)
        try:
            image = read_dicom(path)
        except DataError:
            return
        assert image.dtype == np.uint8
        assert image.ndim in (2, 3)

    check()
