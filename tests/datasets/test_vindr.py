"""VinDr-CXR: what radiologists agree upon, in which pixels boxes count, and tables that go wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from ecamp.cli import run
from ecamp.datasets.vindr import VinDrCXR
from ecamp.datasets.vindr_annotations import KAGGLE, LOCAL, WHOLE
from ecamp.errors import DataError, MissingError
from ecamp.export.png import prepare
from tests.datasets import releases
from tests.datasets.releases import Release
from tests.datasets.releases.release import paint
from tests.datasets.releases.vindr import HEIGHT, VINDR_KAGGLE, VINDR_LABELS, WIDTH


def make(release: Release, **options: Any) -> VinDrCXR:
    given = {"root": str(release.root), **release.options, **options}
    return VinDrCXR(VinDrCXR.Config(**given), None)


def named(dataset: VinDrCXR) -> dict[str, set[str]]:
    names = dataset.info.labels
    return {
        record.id: {name for name, value in zip(names, record.labels or (), strict=True) if value}
        for record in dataset.records()
    }


def boxes(dataset: VinDrCXR, name: str) -> list[tuple[str, tuple[float, ...]]]:
    (record,) = (record for record in dataset.records() if record.id == name)
    sample = dataset.load(record, 64)
    assert sample.boxes is not None
    assert sample.box_classes is not None
    kinds = [dataset.info.box_classes[k] for k in sample.box_classes]
    return list(zip(kinds, map(tuple, sample.boxes.tolist()), strict=True))


def test_classes_are_those_of_the_tables() -> None:
    assert [*LOCAL, *WHOLE] == VINDR_LABELS
    assert [*KAGGLE] == VINDR_KAGGLE
    assert (len(LOCAL), len(WHOLE), len(KAGGLE)) == (22, 6, 14)
    assert set(KAGGLE) < set(LOCAL)


def test_the_number_of_agreeing_readers_is_an_option(tmp_path: Path) -> None:
    release = releases.vindr_official(tmp_path)
    one, two, three = (named(make(release, agree=k)) for k in (1, 2, 3))
    assert one["0a03"] == {"ILD", "Infiltration", "Consolidation"}
    assert two["0a03"] == set(), "something is found, but no two agree what"
    assert three["0a03"] == set()
    assert (one["0a04"], two["0a04"]) == ({"Pneumothorax"}, {"No finding"})
    assert one["0a02"] == two["0a02"] == {"Pleural effusion", "COPD"}
    assert three["0a02"] == {"No finding"}
    assert three["0a01"] == {"Cardiomegaly"}
    for votes in (one, two, three):
        assert all(len(v) == 1 for v in votes.values() if "No finding" in v)
        assert votes["0b03"] == {"Rib fracture", "Other diseases"}, "the test is one consensus"


def test_boxes_of_one_two_and_three(tmp_path: Path) -> None:
    release = releases.vindr_official(tmp_path)
    heart = ("Cardiomegaly", (22.0, 40.0, 72.0, 60.0))
    assert boxes(make(release, agree=1), "0a01") == [heart, ("Nodule/Mass", (4.0, 4.0, 10.0, 12.0))]
    assert boxes(make(release, agree=3), "0a01") == [heart]
    assert boxes(make(release, agree=3), "0a02") == []
    # 46 of 54 columns are shared by the outer two: 0.85; at 0.9 only neighbours join.
    assert boxes(make(release, overlap=0.9, agree=3), "0a01") == []
    assert len(boxes(make(release, overlap=0.9, agree=1), "0a01")) == 3
    assert len(boxes(make(release, overlap=0.5), "0b01")) == 2, "a consensus is not merged"


def test_options_change_labels_but_no_split(tmp_path: Path) -> None:
    for build in (releases.vindr_official, releases.vindr_kaggle):
        release = build(tmp_path / build.__name__)
        variants = [{}, {"agree": 1}, {"agree": 3}, {"overlap": 0.4}, {"boxes": False}]
        made = [make(release, **options) for options in variants]
        splits = [{(r.id, r.split) for r in dataset.records()} for dataset in made]
        assert all(split == splits[0] for split in splits)
        assert len({dataset.info.version for dataset in made}) == len(variants)
        assert len({dataset.fingerprint() for dataset in made}) == len(variants)


@pytest.mark.parametrize("build", [releases.vindr_official, releases.vindr_kaggle])
def test_the_order_of_rows_does_not_matter(
    tmp_path: Path, build: Callable[[Path], Release]
) -> None:
    release = build(tmp_path)
    before = {(r.id, r.split, r.labels, r.payload) for r in make(release).records()}
    for path in release.root.rglob("*.csv"):
        header, *rows = path.read_text().splitlines()
        random.Random(3).shuffle(rows)
        path.write_text("\n".join([header, *rows]) + "\n")
    assert {(r.id, r.split, r.labels, r.payload) for r in make(release).records()} == before


def test_the_test_is_official_and_validation_is_of_train(tmp_path: Path) -> None:
    records = make(releases.vindr_official(tmp_path)).records()
    assert {r.id for r in records if r.split == "test"} == {"0b01", "0b02", "0b03"}
    assert {r.split for r in records if r.id.startswith("0a")} == {"train", "val"}
    kaggle = make(releases.vindr_kaggle(tmp_path))
    assert {r.split for r in kaggle.records()} == {"train", "val", "test"}
    assert any("consensus" in flaw for flaw in kaggle.info.flaws)


def test_labels_alone_need_no_boxes_and_no_size(tmp_path: Path) -> None:
    release = releases.vindr_official(tmp_path / "a")
    for path in release.root.rglob("annotations_*.csv"):
        path.unlink()
    with pytest.raises(MissingError, match=r"annotations_train\.csv"):
        make(release).records()
    dataset = make(release, boxes=False)
    assert {r.id: r.labels for r in dataset.records()} == release.labels
    assert dataset.info.box_classes == ()
    assert dataset.load(dataset.records()[0], 64).boxes is None
    png = releases.vindr_kaggle_png(tmp_path / "b")
    (png.root / "train_meta.csv").unlink()
    assert {r.id: r.labels for r in make(png, boxes=False).records()} == png.labels


# --- in which pixels --------------------------------------------------------------------------------


def test_png_whose_film_has_no_known_size(tmp_path: Path) -> None:
    release = releases.vindr_kaggle_png(tmp_path)
    meta = release.root / "train_meta.csv"
    rows = meta.read_text()
    meta.unlink()
    with pytest.raises(
        MissingError, match=r"(?s)train\.csv line 2: train/0a01\.png .*train_meta\.csv"
    ):
        make(release).records()
    meta.write_text(rows.replace("0a02", "0a99"))
    with pytest.raises(DataError, match=r"train\.csv line \d+: '0a02' is not in the meta tables"):
        make(release).records()
    assert len(make(release, on_bad_row="skip").records()) == 13
    meta.write_text(rows.replace(f"0a02,{HEIGHT}", "0a02,none"))
    with pytest.raises(DataError, match=r"train_meta\.csv line 3: 'none' x '96' is not a size"):
        make(release).records()


def test_sides_that_were_swapped_are_noticed(tmp_path: Path) -> None:
    """With height and width exchanged, a box at the right edge ends up outside."""
    release = releases.vindr_kaggle_png(tmp_path)
    meta, table = release.root / "train_meta.csv", release.root / "train.csv"
    meta.write_text(meta.read_text().replace(f"{HEIGHT},{WIDTH}", f"{WIDTH},{HEIGHT}"))
    table.write_text(
        re.sub(r"20.0,40.0,70.0|22.0,40.0,72.0|24.0,40.0,74.0", "76.0,40.0,96.0", table.read_text())
    )
    dataset = make(release)
    (record,) = (r for r in dataset.records() if r.id == "0a01")
    with pytest.raises(DataError, match=r"0a01\.png .*outside the film of 80x96 pixels"):
        dataset.load(record, 64)


def test_a_small_dicom_copy_is_noticed(tmp_path: Path) -> None:
    release = releases.vindr_kaggle(tmp_path)
    paint(release.root / "train/0a01.dicom", [], (32, 24))
    dataset = make(release)
    (record,) = (r for r in dataset.records() if r.id == "0a01")
    with pytest.raises(DataError, match="outside the film of 32x24 pixels"):
        dataset.load(record, 64)


def test_boxes_that_reach_over_the_edge_are_cut(tmp_path: Path) -> None:
    release = releases.vindr_official(tmp_path)
    path = release.root / "annotations/annotations_test.csv"
    path.write_text(path.read_text().replace("70.0,50.0,90.0,56.0", "70.5,-1.5,97.25,56.0"))
    assert boxes(make(release), "0b03") == [("Rib fracture", (70.5, 0.0, 96.0, 56.0))]


@pytest.mark.parametrize("build", [releases.vindr_official, releases.vindr_kaggle])
def test_prepared_png_are_the_films(tmp_path: Path, build: Callable[[Path], Release]) -> None:
    """`ecamp data prepare`: the same records, pixels and boxes, without a table of sizes."""
    release = build(tmp_path)
    out = tmp_path / "png"
    made = prepare(release.root, out, VinDrCXR.prepared, VinDrCXR.tables)
    films, copies = make(release), make(release, root=str(out))
    assert made.converted == len(films.records())
    for film, copy in zip(films.records(), copies.records(), strict=True):
        assert (film.id, film.split, film.labels) == (copy.id, copy.split, copy.labels)
        assert copy.payload.path.endswith(".png")
        a, b = films.load(film, 64), copies.load(copy, 64)
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.boxes, b.boxes)  # type: ignore[arg-type]
    # Another image in the same folder is not one of them.
    paint(out / "train/0a01.jpg", [], (32, 24))
    (out / "train/0a01.png").rename(out / "0a01.png")
    with pytest.raises(MissingError, match=r"0a01\.jpg is not a DICOM file"):
        make(release, root=str(out)).records()


# --- tables that go wrong ---------------------------------------------------------------------------

BAD = {
    "label": ("image_labels_train.csv", "0a03,R1,0", "0a03,R1,2",
              r"image_labels_train\.csv line 8: '2' in 'Aortic enlargement' is not a label"),
    "label of the test": ("image_labels_test.csv", "0b02,0", "0b02,",
                          r"image_labels_test\.csv line 3: '' in 'Aortic enlargement' is not a label"),
    "class": ("annotations_train.csv", "0a03,R1,ILD", "0a03,R1,IDL",
              r"(?s)annotations_train\.csv line \d+: unknown class 'IDL'.*ILD"),
    "no box": ("annotations_train.csv", "ILD,8.0,8.0,40.0,40.0", "ILD,,,,",
               r"annotations_train\.csv line \d+: 'ILD' with box"),
    "box of nothing": ("annotations_test.csv", "0b02,No finding,,,,", "0b02,No finding,1,1,2,2",
                       r"annotations_test\.csv line 4: 'No finding' with box 1, 1, 2, 2"),
    "empty box": ("annotations_test.csv", "70.0,50.0,90.0", "90.0,50.0,90.0",
                  r"annotations_test\.csv line 5: 'Rib fracture' with box 90\.0, 50\.0, 90\.0"),
    "nan": ("annotations_test.csv", "70.0,50.0,90.0", "nan,50.0,90.0",
            r"annotations_test\.csv line 5: 'Rib fracture' with box nan"),
    "endless": ("annotations_test.csv", "70.0,50.0,90.0", "70.0,50.0,inf",
                r"annotations_test\.csv line 5: 'Rib fracture' with box 70\.0, 50\.0, inf"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_row_costs_its_film(tmp_path: Path, case: tuple[str, str, str, str]) -> None:
    file, good, bad, message = case
    release = releases.vindr_official(tmp_path)
    path = release.root / "annotations" / file
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad, 1))
    with pytest.raises(DataError, match=message):
        make(release).records()
    rest = make(release, on_bad_row="skip")
    assert len(rest.records()) == len(release.labels) - 1
    (flaw,) = (flaw for flaw in rest.info.flaws if "rows skipped, first " in flaw)
    assert flaw.startswith("1 rows")


def test_a_repeated_row_of_boxes_drops_that_row_only(tmp_path: Path) -> None:
    release = releases.vindr_official(tmp_path)
    path = release.root / "annotations/annotations_train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(
        DataError, match=rf"annotations_train\.csv line {len(lines) + 1}: duplicate row of '0a01'"
    ):
        make(release).records()
    rest = make(release, on_bad_row="skip")
    assert {r.id: r.labels for r in rest.records()} == release.labels


def test_tables_of_two_releases(tmp_path: Path) -> None:
    release = releases.vindr_official(tmp_path)
    path = release.root / "annotations/annotations_train.csv"
    path.write_text(path.read_text().replace("0a14", "0c14"))
    with pytest.raises(DataError, match=r"line \d+: '0c14' is not in image_labels_train\.csv"):
        make(release).records()


def test_a_number_that_is_not_of_its_class(tmp_path: Path) -> None:
    release = releases.vindr_kaggle(tmp_path)
    text = release.index.read_text()
    release.index.write_text(text.replace("ILD,5,", "ILD,6,"))
    with pytest.raises(DataError, match=r"train\.csv line \d+: class_id of 'ILD' is 5, not '6'"):
        make(release).records()
    assert len(make(release, on_bad_row="skip").records()) == len(release.labels) - 1


@pytest.mark.parametrize("column", ["rad_id", "COPD", "Other diseases", "image_id"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    release = releases.vindr_official(tmp_path)
    release.index.write_text(release.index.read_text().replace(column, "else", 1))
    with pytest.raises(DataError, match=rf"image_labels_train\.csv: no column '{column}'"):
        make(release).records()


def test_tables_without_their_folder(tmp_path: Path) -> None:
    release = releases.vindr_official(tmp_path)
    for path in (release.root / "annotations").glob("*.csv"):
        path.rename(release.root / path.name)
    assert {r.id: r.labels for r in make(release).records()} == release.labels


def test_only_kaggles_table_means_kaggle(tmp_path: Path) -> None:
    root = releases.vindr_kaggle(tmp_path).root
    assert VinDrCXR(VinDrCXR.Config(root=str(root))).splits_name == "kaggle"
    out = tmp_path / "out"
    command = [
        "data",
        "prepare",
        "vindr-cxr",
        "--from",
        str(root),
        "-o",
        str(out),
        "--workers",
        "1",
    ]
    assert run(command) == 0
    made = VinDrCXR(VinDrCXR.Config(root=str(out)))
    coco = COCO(out / "boxes.json")
    assert len(coco.imgs) == len(made.records())
    assert len(coco.anns) == sum(len(record.payload.boxes) for record in made.records()) > 0
    official = releases.vindr_official(tmp_path / "official").root
    assert VinDrCXR(VinDrCXR.Config(root=str(official))).splits_name == "official"
