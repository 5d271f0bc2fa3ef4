"""PadChest: cells of Labels, whose labels are tested on, views, folders, 16 bit, damaged files."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.datasets.padchest import FINDINGS, PadChest, labels_from_terms, parse_terms
from ecamp.errors import DataError
from tests.datasets.releases import PADCHEST_FILMS, padchest


def make(root: Path, **options: Any) -> PadChest:
    return PadChest(PadChest.Config(root=str(root), **{"labels": "all", **options}))


def labels(*named: str) -> dict[str, int | None]:
    found = labels_from_terms(set(named))
    assert found is not None
    return dict(zip(FINDINGS, found, strict=True))


def test_names_match_whole_terms_only() -> None:
    """As parts of names, pseudonodules and emphysema under the skin would count."""
    strange = (
        "pseudonodule",
        "subcutaneous emphysema",
        "breast mass",
        "mediastinal mass",
        "normal",
    )
    assert not any(labels(*strange).values())
    assert labels("nodule")["nodule"] == labels("multiple nodules")["nodule"] == 1


def test_narrower_terms_show_the_wider_ones() -> None:
    """A term deep in the tree implies all terms above it, and no others."""
    shown = {name for name, value in labels("air bronchogram").items() if value}
    assert shown == {"consolidation", "infiltrates"}
    shown = {name for name, value in labels("hydropneumothorax").items() if value}
    assert shown == {"pleural effusion", "pneumothorax"}
    for name, narrower in FINDINGS.items():
        for inner in narrower:
            for below in FINDINGS.get(inner, ()):
                assert below in narrower, f"{name}: {below} stands below {inner}"


def test_a_film_called_unchanged_has_unknown_labels() -> None:
    found = labels("unchanged", "scoliosis")
    assert found.pop("scoliosis") == 1
    assert set(found.values()) == {None}
    assert labels_from_terms({"normal", "exclude"}) is None
    assert labels_from_terms(set()) is None


NAMES = st.lists(st.sampled_from([*FINDINGS, "normal", "it's", 'a "b"', "[x]", "a, b"]), max_size=5)


@given(NAMES, st.lists(st.sampled_from(["", " ", "  "]), min_size=5, max_size=5), st.booleans())
def test_any_list_of_names_is_parsed(names: list[str], spaces: list[str], upper: bool) -> None:
    """As Python writes lists, with spaces inside the quotes and capitals as the release has them."""
    written = [
        space + (name.upper() if upper else name)
        for space, name in zip(spaces, names, strict=False)
    ]
    assert parse_terms(repr([*written, ""]), "row") == set(names)


@pytest.mark.parametrize(
    "text",
    ["", "nan", "normal", "['normal'", "'normal'", "[normal]", "[1]", "['a' 'b', nan]", "(" * 200, "{}",
     "[None]", "__import__('os')"],
)  # fmt: skip
def test_cells_that_are_not_a_list_are_named(text: str) -> None:
    with pytest.raises(DataError, match=r"row: .*(not a list of|no) labels"):
        parse_terms(text, "row")


def test_tested_on_labels_of_physicians(tmp_path: Path) -> None:
    """Patients keep their split; of validation and test the network's films go."""
    release = padchest(tmp_path)
    by = {film[0]: film[4] for film in PADCHEST_FILMS}
    with release.index.open("a") as table:
        for k in range(80):
            by[f"{k}.png"] = method = ("Physician", "RNN_model")[k % 2]
            about = f"{k},{k}.png,0,20140915,{k // 4},PA,MONOCHROME2,,{method},['normal'],"
            table.write(f"{about}\n")
    every, strict = make(release.root), PadChest(PadChest.Config(root=str(release.root)))
    assert every.info.split_id == "padchest/ecamp+all-labels"
    assert strict.info.split_id == "padchest/ecamp"
    splits = {r.id: r.split for r in every.records()}
    kept = {n: s for n, s in splits.items() if s == "train" or by[n] == "Physician"}
    assert {r.id: r.split for r in strict.records()} == kept
    for split in ("val", "test"):
        assert {by[n] for n, s in splits.items() if s == split} == {"Physician", "RNN_model"}
        assert {by[n] for n, s in kept.items() if s == split} == {"Physician"}
    assert every.fingerprint() != strict.fingerprint()


def test_views(tmp_path: Path) -> None:
    release = padchest(tmp_path)
    more = {r.id: r for r in make(release.root, views="all").records()}
    assert more.keys() - release.labels.keys() == {"1358_fzis7b.png", "0014.png"}
    assert more["1358_fzis7b.png"].split == more["1358_fzis7d.png"].split
    assert more["0014.png"].labels == labels_from_terms({"rib fracture"})


def test_flat_folders_and_a_packed_table(tmp_path: Path) -> None:
    """In one folder, in images/, and the table as .gz: the same records and pixels."""
    release = padchest(tmp_path)
    before = make(release.root)
    pixels = {r.id: before.load(r, 64).image for r in before.records()}
    splits = {(r.id, r.split, r.labels) for r in before.records()}
    for name in ("flat", "images"):
        root = tmp_path / name
        target = root / "images-224" if name == "images" else root
        target.mkdir(parents=True)
        for path in release.root.rglob("*.png"):
            shutil.copy(path, target / path.name)
        table = root / f"{release.index.name}.gz"
        table.write_bytes(gzip.compress(release.index.read_bytes()))
        dataset = make(root)
        assert {(r.id, r.split, r.labels) for r in dataset.records()} == splits
        for record in dataset.records():
            assert np.array_equal(dataset.load(record, 64).image, pixels[record.id])


def test_films_of_16_bit_use_the_whole_range(tmp_path: Path) -> None:
    """12 bits in 16: read as 8 bit they would be black."""
    dataset = make(padchest(tmp_path).root)
    image = dataset.load(dataset.records()[0], 64).image
    assert (image.min(), image.max()) == (0, 255)
    assert np.all(np.diff(image.reshape(-1).astype(int)) >= 0), "grey values keep their order"


@pytest.mark.parametrize("cut", [0, 20, 200])
def test_a_damaged_film_is_named(tmp_path: Path, cut: int) -> None:
    release = padchest(tmp_path)
    dataset = make(release.root)
    record = dataset.records()[0]
    path = release.root / record.payload.path
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"2053_k6ga29\.png \(PADCHEST.*\.csv line 2\): unreadable"):
        dataset.load(record, 64)


BAD = {
    "labels": ("\"['pulmonary fibrosis', 'pseudonodule']\"", "nan", r"line 3: 'nan' is not a list of labels"),
    "no labels": ("['normal']", "", r"line 2: no labels"),
    "unbalanced": ("['air bronchogram']", "['air bronchogram'", r"line 7: .* is not a list of labels"),
    "method": (",RNN_model,", ",RNN,", r"line 5: unknown MethodLabel 'RNN'"),
    "patient": (",8397,", ",,", r"line 2: PatientID is empty"),
    "outside": (",2053_", ",../../2053_", r"line 2: '0/\.\./\.\./2053_.*' is outside"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_row_is_named_and_can_be_left_out(tmp_path: Path, case: tuple[str, str, str]) -> None:
    good, bad, message = case
    release = padchest(tmp_path)
    text = release.index.read_bytes().decode()
    assert good in text
    release.index.write_bytes(text.replace(good, bad, 1).encode())
    with pytest.raises(DataError, match=rf"01\.02\.19\.csv {message}"):
        make(release.root).records()
    rest = make(release.root, on_bad_row="skip")
    assert len(rest.records()) == len(release.labels) - 1
    assert any(flaw.startswith("1 rows skipped") for flaw in rest.info.flaws)
