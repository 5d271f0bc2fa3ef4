"""`ecamp data`: list, info, check, show, split; on the phantom and on a folder with bad images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecamp.cli import run
from tests.datasets import releases

PHANTOM = "phantom?train=40&val=12&test=12&pretrain=6"


def folder(path: Path, bad: bool) -> str:
    rows = ["id,image,patient,sick"]
    for k in range(12):
        Image.fromarray(np.full((20, 24), 10 * k, np.uint8)).save(path / f"{k}.png")
        rows.append(f"{k},{k}.png,p{k},{k % 2}")
    if bad:
        (path / "3.png").write_bytes(b"torn")
        (path / "5.png").unlink()
    (path / "table.csv").write_text("\n".join(rows) + "\n")
    (path / "set.yaml").write_text(
        "name: own\nversion: 1\ntable: table.csv\nid: id\nimage: image\npatient: patient\n"
        "split: {hash: {train: 0.6, val: 0.2, test: 0.2}}\nlabels: {multilabel: [sick]}\nlicence: x\n"
    )
    return str(path / "set.yaml")


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "list", "-f", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"phantom", "folder", "mimic-cxr"} <= set(rows)
    assert all(row["summary"] and row["licence"] for row in rows.values())


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "info", PHANTOM]) == 0
    out = capsys.readouterr().out
    (images,) = (line for line in out.splitlines() if line.startswith("images"))
    assert sorted(images.split()[1:]) == ["12", "12", "40", "6"]
    assert "cardiomegaly" in out


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", folder(tmp_path, bad=False)]) == 0
    assert "12 of 12 images read, 0 bad" in capsys.readouterr().out
    assert run(["data", "check", folder(tmp_path, bad=True)]) == 1
    out = capsys.readouterr().out
    assert "2 bad" in out
    assert "3.png" in out
    assert "table.csv line 7" in out
    assert run(["data", "check", folder(tmp_path, bad=True), "--limit", "2"]) == 0


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert run(["data", "show", PHANTOM, "-o", str(sheet), "--count", "8", "--split", "test"]) == 0
    assert "8 images" in capsys.readouterr().out
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape[1] == 6 * 262 + 6
    # Something is drawn in colour: masks and boxes of the films that hold a finding come first.
    first = pixels[40:260, 10:250].astype(int)
    assert (first.max(2) - first.min(2) > 60).any()
    assert run(["data", "show", PHANTOM, "--split", "nothing"]) == 4


def test_a_legend_of_many_classes_has_all_of_them() -> None:
    """On lines of the sheet's width: 22 names are wider than two tiles."""
    from ecamp.report.contact_sheet import Tile, contact_sheet
    from ecamp.report.pictures import PALETTE

    tile = Tile(np.zeros((8, 8, 1), np.uint8), ("name",))
    sheet = np.asarray(contact_sheet([tile, tile], [f"a long finding {k}" for k in range(22)]))
    colours = {tuple(int(text[k : k + 2], 16) for k in (1, 3, 5)) for text in PALETTE}
    squares = sum((sheet == colour).all(axis=2).sum() for colour in colours)
    assert squares == 22 * 11 * 11


def test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lists"
    assert (
        run(["data", "split", PHANTOM, "-o", str(out), "--fractions", "10,50", "--draws", "2"]) == 0
    )
    lists = {p.stem: p.read_text().split() for p in out.glob("*.txt")}
    assert len(lists["train"]) == 40
    for draw in (0, 1):
        small, large = (set(lists[f"train_{s}_draw{draw}"]) for s in (10, 50))
        assert small < large < set(lists["train"])
    assert lists["train_10_draw0"] != lists["train_10_draw1"]
    assert "phantom/" in " ".join(lists["SPLIT_ID"])
    # The lists are of a published form, so the audit reads them; whole patients: nothing to find.
    assert run(["data", "audit", "--lists", str(out)]) == 0
    assert run(["data", "split", PHANTOM, "-o", str(out), "--fractions", "few"]) == 2


SETS = {
    "chestxray14",
    "chexpert",
    "rsna",
    "siim",
    "covidx",
    "object-cxr",
    "montgomery",
    "shenzhen",
    "jsrt",
    "iu-xray",
    "covid-idc",
    "padchest",
    "vindr-cxr",
    "medmnist",
    "mimic-cxr",
    "folder",
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_info_without_data_is_a_guide(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "info", name]) == 0
    out = capsys.readouterr().out
    assert "licence: " in out
    assert "with the data: ecamp data info '" in out
    if name not in ("folder", "mimic-cxr"):
        assert "get: " in out
        assert "root contains" in out
        assert "splits:" in out


def test_info_and_audit_of_a_leaky_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = releases.siim_ecamp(tmp_path)
    assert run(["data", "info", release.ref]) == 0
    out = capsys.readouterr().out
    assert "flaw: 618 of 672 positive test images" in out
    assert "flaw: 1 of 3 test images" in out
    assert run(["data", "check", release.ref]) == 0
    assert "9 of 9 images read, 0 bad" in capsys.readouterr().out
    assert run(["data", "audit", release.ref, "--no-images"]) == 5
    assert "leak" in capsys.readouterr().out


def test_prepare_then_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = releases.rsna_original(tmp_path)
    out = tmp_path / "out"
    args = [
        "data",
        "prepare",
        "rsna",
        "--from",
        str(release.root),
        "-o",
        str(out),
        "--workers",
        "1",
    ]
    assert run(args) == 0
    assert "12 converted, 0 kept, 0 bad" in capsys.readouterr().out
    assert run(args) == 0
    assert "0 converted, 12 kept, 0 bad" in capsys.readouterr().out
    assert run(["data", "check", f"rsna?root={out}&splits=mgca-det"]) == 0
    (release.root / "stage_2_train_images/bad.dcm").write_bytes(b"torn")
    assert run(args) == 1
    assert "bad.dcm" in capsys.readouterr().out
