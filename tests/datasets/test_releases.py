"""The public chest sets from folders in their published forms: one contract for all, in every layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ecamp.api.dataset import Dataset
from ecamp.api.plugin_ref import PluginRef
from ecamp.data.decoding import check_records
from ecamp.errors import EcampError, MissingError
from ecamp.plugin.host import list_plugins, make_plugin
from ecamp.testing.contract import check_plugin
from ecamp.testing.folders import check_archive, check_root, check_spelling, check_twice
from tests.datasets.releases import BRIGHT, RELEASES, Release

# Films of JSRT are 2,048 pixels a side and have no compression.
SLOW = ("jsrt original",)
EVERY = pytest.mark.parametrize(
    "build",
    [
        pytest.param(build, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, build in RELEASES.items()
    ],
)


def make(release: Release, **options: object) -> Dataset:
    ref = PluginRef.parse(release.ref)
    dataset: Dataset = make_plugin(
        "ecamp.datasets", ref.model_copy(update={"options": {**ref.options, **options}})
    )
    return dataset


@pytest.fixture
def release(build, tmp_path: Path) -> Release:
    made: Release = build(tmp_path)
    return made


@EVERY
def test_contract(release: Release) -> None:
    make(release)
    check_plugin("ecamp.datasets", release.ref)


# These are no public chest set in a folder of images: their own tests run the contract.
ELSEWHERE = {
    "phantom": "tests/contract", "folder": "test_folder.py", "packed": "test_packed.py",
    "mimic-cxr": "test_mimic_cxr.py",
}  # fmt: skip
# Layouts of a clone or of a script's own files, in addition to those of the download.
LISTS = {
    "chestxray14": {"ECAMP", "MRM", "BenchX", "official lists"}, "chexpert": {"ECAMP", "MRM", "MGCA"},
    "rsna": {"ECAMP det", "ECAMP cls", "MRM", "BenchX", "MGCA cls", "LoVT", "MaCo"},
    "siim": {"ECAMP", "MRM", "BenchX", "LoVT", "GLoRIA"}, "covidx": {"ECAMP", "MGCA"},
    "object-cxr": {"LoVT"}, "montgomery": {"Kaggle"}, "shenzhen": {"Kaggle"},
    "jsrt": {"original", "PNG", "Kaggle", "SCR", "SCR reverse"},
    "iu-xray": {"R2Gen", "Open-i"}, "vindr-cxr": {"Kaggle PNG"},
}  # fmt: skip


def test_every_data_set_has_a_folder_in_each_layout(tmp_path: Path) -> None:
    """A new data set fails here until releases.py can make its folder."""
    ours = {e.name for e in list_plugins("ecamp.datasets") if e.dist == "ecamp"}
    made = {
        build(tmp_path / str(k)).name.split("/")[0] for k, build in enumerate(RELEASES.values())
    }
    assert ours - ELSEWHERE.keys() <= made, "say in releases.py how its folder looks"
    for name, layouts in LISTS.items():
        for layout in layouts:
            assert f"{name} {layout}" in RELEASES


def test_every_protocol_has_a_folder(tmp_path: Path) -> None:
    covered: dict[type, set[str]] = {}
    for k, build in enumerate(RELEASES.values()):
        dataset = make(build(tmp_path / str(k)))
        covered.setdefault(type(dataset), set()).add(dataset.info.version.split("+")[0])
    for kind, names in covered.items():
        lacking = set(kind.named_splits) - names - {"official-valid"}
        lacking -= {"official"} if kind.name == "object-cxr" else set()
        assert not lacking, f"{kind.name}: no folder for {lacking}"


TABLES = (".csv", ".txt", ".json")  # some sets are listed by their files alone


def tables(release: Release, tmp_path: Path) -> list[Path]:
    found = [p for s in ("*.csv", "*.txt", "*.json", "*.xml") for p in sorted(tmp_path.rglob(s))]
    assert release.index in found
    return found


@EVERY
def test_spelling_of_tables_does_not_matter(release: Release, tmp_path: Path) -> None:
    if release.index.suffix in TABLES:
        make(release)
        check_spelling(release.ref, tables(release, tmp_path))


@EVERY
def test_no_row_leads_out_of_root(release: Release, tmp_path: Path) -> None:
    if release.index.suffix in TABLES:
        make(release)
        check_root(release.ref, tables(release, tmp_path))


@EVERY
def test_an_archive_that_is_still_packed(release: Release) -> None:
    if release.index.suffix != ".npz":
        make(release)
        check_archive(release.ref)


@EVERY
def test_a_row_that_appears_twice_is_named(release: Release) -> None:
    if release.index.suffix in (".csv", ".txt"):
        make(release)
        check_twice(release.ref, release.index)


@EVERY
def test_every_image_has_its_labels_and_split(release: Release) -> None:
    dataset = make(release)
    records = dataset.records()
    assert {record.id: record.labels for record in records} == release.labels
    if release.splits is not None:
        assert {(record.id, record.split) for record in records} == release.splits
    else:
        assert {record.split for record in records} <= {"train", "val", "test"}
    assert dataset.info.leaks == release.leaks
    check_records(records, dataset.info)
    if not release.leaks:  # reported by the sets themselves, with patients from file names
        homes: dict[str, set[str]] = {}
        for record in records:
            homes.setdefault(record.patient, set()).add(record.split)
        assert all(len(splits) == 1 for splits in homes.values())


@EVERY
def test_masks_and_boxes_lie_where_the_film_is_bright(release: Release) -> None:
    dataset = make(release)
    for record in dataset.records():
        sample = dataset.load(record, 64)
        bright = sample.image[..., 0] > BRIGHT - 60
        corner = sample.mask.any(axis=0)[0, -1] if sample.mask is not None else False
        bright[0, -1] = corner  # white in each film
        assert (sample.mask is not None) == record.has_mask
        if release.bright == "mask" and sample.mask is not None:
            assert sample.mask.shape == (len(dataset.info.mask_classes), *bright.shape)
            assert np.array_equal(sample.mask.any(axis=0), bright), record.id
        if release.boxes is not None:
            assert record.has_boxes
            assert sample.boxes is not None
            side = sample.image.shape[1] / 1024 if release.name == "rsna" else 1.0
            expected = np.array(release.boxes[record.id], np.float32).reshape(-1, 4) * side
            assert np.allclose(sample.boxes, expected)
        if release.bright == "boxes":
            filled = np.zeros_like(bright)
            for x1, y1, x2, y2 in sample.boxes if sample.boxes is not None else ():
                filled[round(y1) : round(y2), round(x1) : round(x2)] = True
            # JPEG blurs the edges: nearly all pixels agree, and swapped axes would not.
            assert (filled == bright).mean() > 0.97


@EVERY
def test_a_fingerprint_is_of_the_content(release: Release, tmp_path: Path) -> None:
    before = make(release).fingerprint()
    copy = tmp_path / "elsewhere"
    shutil.copytree(release.root, copy, ignore=shutil.ignore_patterns("elsewhere", "clone"))
    assert make(release, root=str(copy)).fingerprint() == before
    index = release.index.read_bytes()
    if not release.name.startswith("medmnist"):
        image = release.root / make(release).records()[0].payload.path
        kept = image.read_bytes()
        image.write_bytes(kept + b"\0")
        assert make(release).fingerprint() != before, "an image changed its size"
        image.write_bytes(kept)
    if release.index.suffix != ".npz":
        release.index.write_bytes(index + b"\n")
    else:
        with np.load(release.index) as arrays:
            held = dict(arrays)
        held["test_images"] = 255 - held["test_images"]
        np.savez_compressed(release.index, **held)
    assert make(release).fingerprint() != before, "an index file changed"


@EVERY
def test_a_reader_in_another_process_carries_no_table(release: Release) -> None:
    import pickle

    dataset = make(release)
    record = dataset.records()[0]
    twin, sent = pickle.loads(pickle.dumps((dataset, record)))
    assert set(vars(twin)) == {"config", "variant", "ref", "origin"}
    assert np.array_equal(twin.load(sent, 64).image, dataset.load(record, 64).image)


@EVERY
def test_a_wrong_folder_is_named(release: Release, tmp_path: Path) -> None:
    make(release)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "holiday.jpg").write_bytes(b"")
    (empty / "archive.zip").write_bytes(b"")
    with pytest.raises(MissingError) as caught:
        make(release, root=str(empty)).records()
    assert "holiday.jpg" in str(caught.value)
    assert "archive.zip" in str(caught.value)
    with pytest.raises(MissingError, match="no such folder"):
        make(release, root=str(tmp_path / "nowhere")).records()
    inner = [path for path in release.root.iterdir() if path.is_dir() and path.name != "lists"]
    if inner and release.splits is None and release.index.parent == release.root:
        with pytest.raises(EcampError, match="Is it root="):
            make(release, root=str(inner[0])).records()
