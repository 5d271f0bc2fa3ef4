"""Packed sets against their sources: equal arrays, equal scores; interruptions, damage, bad images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ecamp.api.dataset import Dataset, Record, Sample
from ecamp.api.plugin_ref import PluginRef
from ecamp.cli import run
from ecamp.data.arrays import Arrays, materialise
from ecamp.errors import CorruptFileError, DataError, MissingError, UsageError
from ecamp.export.pack import META, pack
from ecamp.plugin.host import make_plugin
from ecamp.storage.bits import pack_bits, unpack_bits
from ecamp.testing.contract import check_plugin

PHANTOM = "phantom?pretrain=20&train=30&val=16&test=20"
SPLITS = ["pretrain", "train", "val", "test"]


def make(name: str) -> Dataset:
    """Make a data set from its one line."""
    return make_plugin("ecamp.datasets", PluginRef.parse(name))


def shards(folder: Path) -> int:
    """Bytes that make shards of about 20 images of 64 px."""
    return 20 * 64 * 64 * 2


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "phantom"
    done = pack(make(PHANTOM), folder, 64, workers=1, shard_bytes=20 * 64 * 64 * 2)
    assert done.images == 86
    assert done.written == done.shards >= 3
    return folder


def equal(one: Arrays, other: Arrays) -> None:
    """Everything that a bench reads."""
    assert one.info == other.info
    assert one.split_hash == other.split_hash
    for name in ("ids", "patients", "splits", "reports", "distilled", "skipped"):
        assert getattr(one, name) == getattr(other, name), name
    for name in (
        "images",
        "labels",
        "masks",
        "has_mask",
        "has_boxes",
        "boxes",
        "box_classes",
        "box_start",
    ):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name


def test_contract(packed: Path, tmp_path: Path) -> None:
    check_plugin("ecamp.datasets", f"packed?path={packed}", tmp_path)


def test_a_packed_set_is_its_source(packed: Path, tmp_path: Path) -> None:
    source, ours = make(PHANTOM), make(f"packed?path={packed}")
    assert list(ours.records()) == list(source.records())
    assert any(r.report for r in ours.records())
    for workers in (1, 2):
        cache = tmp_path / str(workers)
        equal(
            materialise(source, 64, splits=SPLITS, cache=cache, workers=1),
            materialise(ours, 64, splits=SPLITS, cache=cache, workers=workers),
        )


def test_a_bench_on_it_gives_the_same_scores(packed: Path, tmp_path: Path) -> None:
    results = {}
    for title, name in (("source", PHANTOM), ("packed", f"packed?path={packed}")):
        folder = tmp_path / title
        assert run([
            "bench", "--datasets", name, "--encoders",
            "vit-micro?width=32&depth=1&heads=2&image_size=64&patch_size=16", "--pretext", "none",
            "--tasks", "cls", "--protocols", "linear", "--fractions", "1", "--seeds", "0", "--bootstrap",
            "100", "--run", str(folder),
        ]) == 0  # fmt: skip
        found = [json.loads(p.read_text()) for p in sorted(folder.glob("cells/*/result.json"))]
        # All but the id, which is made of what decides a cell, the pack's path included.
        assert all(one.pop("id") for one in found)
        # A pack is read by a data set of its own name.
        assert {one["plugins"].pop("dataset")["name"] for one in found} == {name.partition("?")[0]}
        assert all(one["cell"].pop("data") for one in found)  # of the reader too
        results[title] = sorted(json.dumps(one, sort_keys=True) for one in found)
        assert len(found) == 3
        assert all(one["metrics"] for one in found)
    assert results["source"] == results["packed"]


# --- colour, bad images, odd sizes --------------------------------------------------------------


@pytest.fixture
def folder_set(tmp_path: Path) -> str:
    """Build a folder in colour with masks, boxes, an unknown label, text, and two broken files."""
    rows = ["id,image,patient,split,sick,mask,report"]
    boxes = []
    for k in range(12):
        pixels = np.random.default_rng(k).integers(0, 255, (30 + k, 45, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        inside = np.zeros((30 + k, 45), np.uint8)
        inside[4 : 10 + k, 7:31] = 255
        Image.fromarray(inside).save(tmp_path / f"m{k}.png")
        rows.append(
            f"{k},{k}.png,p{k // 2},{['train', 'val', 'test'][k // 4]},{'' if k == 5 else k % 2},m{k}.png,"
            f'"caf\u00e9, ""{k}"""'
        )
        boxes.append({"image_id": k, "category_id": 1, "bbox": [7, 4, 24.5, 6.25 + k / 3]})
    (tmp_path / "boxes.json").write_text(json.dumps({
        "images": [{"id": k, "file_name": f"{k}.png", "width": 45, "height": 30 + k} for k in range(12)],
        "categories": [{"id": 1, "name": "spot"}],
        "annotations": [{"id": n, **b} for n, b in enumerate(boxes) if n != 4],
    }))  # fmt: skip
    (tmp_path / "3.png").write_bytes(b"torn")
    (tmp_path / "9.png").unlink()
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "set.yaml").write_text(
        "name: own\nversion: 7\ntable: table.csv\nid: id\nimage: image\npatient: patient\ncolour: rgb\n"
        "split: {column: split}\nlabels: {multilabel: [sick]}\nmasks: {spot: mask}\nboxes: boxes.json\n"
        "reports: [report]\n"
    )
    return str(tmp_path / "set.yaml")


def test_colour_masks_boxes_and_bad_images(folder_set: str, tmp_path: Path) -> None:
    source, folder = make(folder_set), tmp_path / "pack"
    with pytest.raises(DataError, match=r"3\.png"):
        pack(source, folder, 32, workers=1)
    done = pack(source, tmp_path / "skip", 32, on_bad_image="skip", workers=1)
    assert len(done.bad) == 2
    ours = make(f"packed?path={tmp_path / 'skip'}")
    options = {"splits": ["train", "val", "test"], "on_bad_image": "skip", "workers": 1}
    one, other = (materialise(d, 32, cache=tmp_path / "c", **options) for d in (source, ours))
    assert len(one.skipped) == 2
    assert len(one) == 10
    assert one.masks.any()
    assert len(one.boxes) == 9
    equal(one, other)
    bad = next(r for r in ours.records() if r.id == "3")
    with pytest.raises(DataError, match=r"3\.png \(table\.csv line 5\)"):
        ours.load(bad, 32)


@given(arrays(bool, st.tuples(st.integers(1, 3), *[st.shared(st.integers(1, 9), key="side")] * 2)))
def test_masks_as_bits_come_back(masks: np.ndarray) -> None:
    bits = pack_bits(masks)
    assert bits.shape == (len(masks), -(-masks[0].size // 8))
    assert np.array_equal(unpack_bits(bits, masks.shape), masks)


# --- interruption and damage --------------------------------------------------------------------


class Stops(Exception):
    """An interruption."""


def test_an_interrupted_pack_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = make(PHANTOM), tmp_path / "pack"
    budget = shards(folder)
    loaded: list[str] = []
    plain = type(source).load

    def load(self: Dataset, record: Record, size: int) -> Sample:
        loaded.append(record.id)
        if len(loaded) == 50:
            raise Stops
        return plain(self, record, size)

    monkeypatch.setattr(type(source), "load", load)
    with pytest.raises(Stops):
        pack(source, folder, 64, workers=1, shard_bytes=budget)
    assert not (folder / META).exists()
    with pytest.raises(MissingError, match="unfinished pack"):
        make(f"packed?path={folder}").records()
    with pytest.raises(UsageError, match="contains a pack of other data, of another size"):
        pack(source, folder, 32, workers=1, shard_bytes=budget)
    loaded.clear()
    loaded.extend([""] * 1000)
    done = pack(source, folder, 64, workers=1, shard_bytes=budget)
    assert 0 < done.written < done.shards
    assert len(loaded) - 1000 < 86
    whole = tmp_path / "whole"
    pack(source, whole, 64, workers=2, shard_bytes=budget)
    names = {p.name for p in whole.iterdir()}
    assert {p.name for p in folder.iterdir()} == names
    for name in names:  # the same bytes, however many processes and attempts
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.fixture
def own(packed: Path, tmp_path: Path) -> Path:
    """Copy the pack, so that a test may damage it."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in packed.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["images-0001.npy", "masks-0000.npy", "index.jsonl", "meta.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "gone"])
def test_damage_is_named_and_mended(packed: Path, own: Path, name: str, how: str) -> None:
    path = own / name
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    # A flipped bit of pixels is found by packing again, the rest on opening.
    if not (how == "flip" and name.endswith(".npy")) and not (how == "flip" and name == META):
        with pytest.raises((DataError, MissingError, CorruptFileError), match=name):
            make(f"packed?path={own}").records() and make(f"packed?path={own}").info
    done = pack(make(PHANTOM), own, 64, workers=1, shard_bytes=shards(own))
    if name.endswith(".npy"):
        assert done.written == 1
    else:  # what is not vouched for is made anew
        assert done.written >= 1
    for file in packed.iterdir():
        assert (own / file.name).read_bytes() == file.read_bytes(), file.name
    assert pack(make(PHANTOM), own, 64, workers=1, shard_bytes=shards(own)).written == 0


def test_other_formats_and_other_folders(own: Path, tmp_path: Path) -> None:
    meta = json.loads((own / META).read_text())
    (own / META).write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(DataError, match="format 99, not 1"):
        make(f"packed?path={own}").records()
    with pytest.raises(MissingError, match="no pack"):
        make(f"packed?path={tmp_path}").records()
    with pytest.raises(MissingError, match="no pack"):
        make(f"packed?path={tmp_path / 'none'}").records()


def test_the_fingerprint_distinguishes_pixels(packed: Path, own: Path, tmp_path: Path) -> None:
    assert make(f"packed?path={packed}").fingerprint() == make(f"packed?path={own}").fingerprint()
    pack(make(PHANTOM), tmp_path / "small", 32, workers=1)
    assert (
        make(f"packed?path={packed}").fingerprint()
        != make(f"packed?path={tmp_path / 'small'}").fingerprint()
    )


def test_flaws_and_leaks_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make("phantom?pretrain=0&train=4&val=4&test=4")
    told = replace(source.info, flaws=("split by eye",), leaks=True)
    monkeypatch.setattr(type(source), "info", property(lambda _: told))
    pack(source, tmp_path / "p", 32, workers=1)
    assert make(f"packed?path={tmp_path / 'p'}").info == told


# --- command ------------------------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    command = [
        "data",
        "pack",
        "phantom?pretrain=2&train=6&val=4&test=4",
        "-o",
        str(folder),
        "--size",
        "48",
    ]
    assert run([*command, "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "16 images at 48 px in 1 shards (1 written now)" in out
    assert run(command) == 0
    assert "(0 written now)" in capsys.readouterr().out
    assert run([*command[:-1], "64"]) == 2
    assert "Choose another folder" in capsys.readouterr().err
    assert run(["data", "check", f"packed?path={folder}"]) == 0
    assert run(["data", "info", f"packed?path={folder}"]) == 0
    assert not list(folder.glob("*.pkl"))
