"""DICOM to PNG: the same pixels, nothing done twice, torn runs go on, no patient in the manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecamp.cli import run
from ecamp.datasets.rsna import RSNA
from ecamp.datasets.siim import SIIM
from ecamp.errors import DataError, MissingError
from ecamp.export.png import MANIFEST, ConversionSummary, ConvertedFile, prepare
from ecamp.io.images import read_image
from ecamp.storage.files import append_line, repair_and_read_lines
from tests.datasets import releases
from tests.export.trees import tree


def ready(root: Path, out: Path, **options: bool) -> ConversionSummary:
    return prepare(root, out, RSNA.prepared, RSNA.tables, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    release = releases.rsna_original(tmp_path)
    ramp = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30)
    home = release.root / "stage_2_test_images"
    home.mkdir()
    releases.write_dicom(
        home / "window.dcm",
        ramp,
        WindowCenter=600,
        WindowWidth=100,
        PhotometricInterpretation="MONOCHROME1",
    )
    return release.root


def test_pixels_tables_and_manifest(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert ready(root, out) == ConversionSummary(13, 0, ())
    for dicom in root.rglob("*.dcm"):
        folder = "train_images" if "train" in dicom.parent.name else "test_images"
        png = Image.open(out / folder / f"{dicom.stem}.png")
        assert png.mode == "L"
        assert np.array_equal(np.asarray(png), read_image(dicom, "grey")[..., 0])
    window = np.asarray(Image.open(out / "test_images/window.png"))
    assert (window[0, 0], window[-1, -1]) == (255, 0), "MONOCHROME1: low values are bright"
    assert len(np.unique(window)) > 50
    assert (out / "stage_2_train_labels.csv").read_bytes() == (
        root / "stage_2_train_labels.csv"
    ).read_bytes()
    text = (out / MANIFEST).read_text()
    assert "Doe" not in text
    for line in text.splitlines():
        one = json.loads(line)
        data = (out / one["png"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (one["sha256"], one["bytes"])
        assert (root / one["source"]).stat().st_size == one["source_bytes"]


def test_a_second_run_changes_nothing(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ready(root, out)
    before = tree(out)
    assert ready(root, out) == ready(root, out, verify=True) == ConversionSummary(0, 13, ())
    assert tree(out) == before, "not even the time of a file"


def test_a_torn_run_resumes_and_wrong_files_are_rewritten(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ready(root, out)
    whole = {name: digest for name, (digest, _) in tree(out).items()}
    manifest = out / MANIFEST
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:5]) + lines[5][:20])  # killed while writing
    repair_and_read_lines(manifest, ConvertedFile)
    append_line(manifest, {"a line after it": "begins one"})
    assert manifest.read_text().count("\n") == 6
    lost, torn = (out / json.loads(line)["png"] for line in lines[:2])
    lost.unlink()
    torn.write_bytes(torn.read_bytes()[:-3])
    assert ready(root, out) == ConversionSummary(10, 3, ())
    assert {name: digest for name, (digest, _) in tree(out).items()} == whole
    flipped = bytearray(torn.read_bytes())
    flipped[-20] ^= 1  # the same size: only a checksum sees it
    torn.write_bytes(bytes(flipped))
    assert ready(root, out) == ConversionSummary(0, 13, ())
    assert ready(root, out, verify=True) == ConversionSummary(1, 12, ())
    assert {name: digest for name, (digest, _) in tree(out).items()} == whole


def test_a_changed_source_is_made_again(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ready(root, out)
    dicom = root / "stage_2_test_images/window.dcm"
    releases.write_dicom(dicom, np.arange(50 * 30, dtype=np.uint16).reshape(50, 30))
    assert ready(root, out) == ConversionSummary(1, 12, ())
    with Image.open(out / "test_images/window.png") as image:
        assert image.size == (30, 50)
    content = bytearray(dicom.read_bytes())
    content[-1] ^= 255  # another film of the same size: only a checksum sees it
    dicom.write_bytes(content)
    assert ready(root, out) == ConversionSummary(0, 13, ())
    assert ready(root, out, verify=True) == ConversionSummary(1, 12, ())
    assert ready(root, out, verify=True) == ConversionSummary(0, 13, ())


def test_bad_files_are_named_and_tried_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    dicom = root / "stage_2_test_images/window.dcm"
    good = dicom.read_bytes()
    dicom.write_bytes(good[:300])
    done = ready(root, out)
    assert (done.converted, len(done.bad)) == (12, 1)
    assert "window.dcm" in done.bad[0]
    dicom.write_bytes(good)
    assert ready(root, out) == ConversionSummary(1, 12, ())


def test_the_output_is_a_root_for_the_plugins(tmp_path: Path) -> None:
    """The plugins read the same from the download and from the prepared folder."""
    for cls, build in ((RSNA, releases.rsna_original), (SIIM, releases.siim_original)):
        release = build(tmp_path / cls.name)
        out = tmp_path / cls.name / "out"
        prepare(release.root, out, cls.prepared, cls.tables)
        raw, made = (cls(cls.Config(root=str(folder))) for folder in (release.root, out))
        assert len(raw.records()) == len(made.records())
        for a, b in zip(raw.records(), made.records(), strict=True):
            assert (a.id, a.split, a.labels) == (b.id, b.split, b.labels)
            assert b.payload.path.endswith(".png")
            first, second = raw.load(a, 64), made.load(b, 64)
            assert np.array_equal(first.image, second.image)
            assert first.mask is not None
            assert second.mask is not None
            assert np.array_equal(first.mask, second.mask)


def test_a_folder_without_dicom_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match="no DICOM file in stage_2_train_images"):
        ready(tmp_path / "empty", tmp_path / "out")
    assert (
        run(["data", "prepare", "phantom", "--from", str(tmp_path), "-o", str(tmp_path / "o")]) == 2
    )
    assert "nothing to prepare" in capsys.readouterr().err


def test_two_films_of_one_name_are_named(root: Path, tmp_path: Path) -> None:
    home = root / "stage_2_test_images"
    (home / "again").mkdir()
    (home / "again" / "window.dcm").write_bytes((home / "window.dcm").read_bytes())
    with pytest.raises(DataError, match=r"window\.dcm and .*window\.dcm would both become"):
        ready(root, tmp_path / "out")


def test_a_download_laid_out_anew_is_made_again(root: Path, tmp_path: Path) -> None:
    out, home = tmp_path / "out", root / "stage_2_test_images"
    ready(root, out)
    (home / "deeper").mkdir()
    (home / "window.dcm").rename(home / "deeper" / "window.dcm")
    assert ready(root, out) == ConversionSummary(1, 12, ())
