"""A user's own folder: what it reads, and every mistake named."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from ecamp.api.plugin_ref import PluginRef
from ecamp.bench.plan import make_plan
from ecamp.config import BenchSpec, validate
from ecamp.data.arrays import materialise
from ecamp.errors import DataError, EcampError
from ecamp.io.table import read_table
from ecamp.plugin.host import make_plugin, skip_bad_rows
from ecamp.testing.contract import check_plugin
from ecamp.testing.folders import check_spelling

HERE = Path(__file__).parent
LAYOUT: dict[str, Any] = {
    "name": "mine", "table": "table.csv", "id": "id", "image": "image", "patient": "patient",
    "split": {"column": "split", "names": {"dev": "val"}},
    "labels": {"multilabel": ["a", "b"]}, "masks": {"lung": "mask"}, "boxes": "boxes.json",
    "reports": ["text"],
}  # fmt: skip
SPLITS = ["train", "train", "dev", "test"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of 20 x 10 with everything."""
    rng = np.random.default_rng(0)
    lines = ["id,image,patient,split,a,b,mask,text"]
    for i, split in enumerate(SPLITS):
        pixels = rng.integers(0, 255, (10, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        mask = np.zeros((10, 20), np.uint8)
        mask[2:5, 3:9] = 1
        Image.fromarray(mask).save(tmp_path / f"m{i}.png")
        lines.append(f'{i},{i}.png,p{i},{split},{i % 2},,m{i}.png,"Lungs, clear."')
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    boxes = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
        "categories": [{"id": 7, "name": "x"}, {"id": 3, "name": "y"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 7, "bbox": [1, 2, 5, 6]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(LAYOUT))
    return tmp_path


def dataset(folder: Path) -> Any:
    return make_plugin("ecamp.datasets", PluginRef.parse(str(folder / "dataset.yaml")))


def read_all(folder: Path, **options: Any) -> Any:
    return materialise(
        dataset(folder),
        16,
        splits=["train", "val", "test"],
        workers=1,
        cache=folder / "cache",
        **options,
    )


def test_contract(folder: Path) -> None:
    check_plugin("ecamp.datasets", str(folder / "dataset.yaml"))
    check_spelling(str(folder / "dataset.yaml"), [folder / "table.csv", folder / "boxes.json"])


def test_everything_is_read(folder: Path) -> None:
    arrays = read_all(folder)
    assert arrays.splits == ("train", "train", "val", "test")
    assert arrays.reports[0] == "Lungs, clear."
    assert arrays.labels[:, 0].tolist() == [0, 1, 0, 1]
    assert np.isnan(arrays.labels[:, 1]).all()
    assert arrays.has_mask.all()
    assert arrays.has_boxes.tolist() == [True, True, True, False]  # listed empty is known empty
    assert arrays.info.box_classes == ("y", "x")
    # 20 x 10 is padded by 5 rows above and scaled by 0.8.
    assert np.allclose(arrays.boxes, [[0.8, 5.6, 4.8, 10.4]])
    assert arrays.box_classes.tolist() == [1]


@pytest.mark.slow
def test_one_bad_row_of_many(folder: Path) -> None:
    lines = ["id,image,patient,split,a,b,mask,text"]
    lines += [f"{i},0.png,p{i},train,{i % 2},,m0.png,Clear." for i in range(40_000)]
    lines[31_414] = lines[31_414].replace(",train,", ",train,perhaps,", 1)  # a field too many
    lines[20_000] = lines[20_000].replace(",train,", ",training,")
    lines[30_000] = lines[29_999]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"table\.csv line 31415: 9 fields"):
        dataset(folder).records()
    name = f"{folder / 'dataset.yaml'}?on_bad_row=skip"
    lenient = make_plugin("ecamp.datasets", PluginRef.parse(name))
    assert len(lenient.records()) == 39_997
    (flaw,) = lenient.info.flaws
    assert "3 rows skipped, first table.csv line 31415" in flaw.replace(f"{folder}/", "")
    lines[31_414] = lines[30_000] = "x,0.png,x,train,0,,m0.png,Clear."
    lines[30_000] = lines[30_000].replace("x", "y")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"table\.csv line 20001: unknown split 'training'"):
        dataset(folder).records()


def test_rows_beside_images_are_skipped_in_a_bench(folder: Path) -> None:
    ref = str(folder / "dataset.yaml")
    recipe = {"tasks": ["cls"], "datasets": ref, "pretext": "none", "encoders": "vit-micro"}
    for how, options in (("fail", {}), ("skip", {"on_bad_row": "skip"})):
        plan = make_plan(validate(BenchSpec, {**recipe, "on_bad_image": how}, "test"))
        assert {cell.dataset.ref.options.get("on_bad_row") for cell in plan.cells} == {
            options.get("on_bad_row")
        }
    asked = PluginRef.parse(f"{ref}?on_bad_row=fail")
    assert skip_bad_rows(asked) == asked, "what was asked for stays"
    assert skip_bad_rows(PluginRef.parse("phantom")) == PluginRef.parse("phantom")


def test_distilled_text_comes_from_a_file_by_report(folder: Path) -> None:
    before = dataset(folder).fingerprint()
    rows = [{"id": "2", "text": "There is mass."}, {"id": "p1", "text": "There is no mass."}]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    edit("distilled_file", "d.jsonl")(folder)
    distilled = [record.distilled for record in dataset(folder).records()]
    assert distilled == [None, None, "There is mass.", None]
    by_image = dataset(folder).fingerprint()
    edit("distilled_id", "patient")(folder)
    distilled = [record.distilled for record in dataset(folder).records()]
    assert distilled == [None, "There is no mass.", None, None]
    (folder / "d.jsonl").write_text(json.dumps(rows[0]))
    others = [by_image, dataset(folder).fingerprint()]
    assert len({before, *others}) == 3


def edit(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        layout = yaml.safe_load((folder / "dataset.yaml").read_text())
        layout[key] = value
        (folder / "dataset.yaml").write_text(yaml.safe_dump(layout))

    return change


def table(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / "table.csv").read_text()
        assert old in text
        (folder / "table.csv").write_text(text.replace(old, new, 1))

    return change


def coco(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        boxes = json.loads((folder / "boxes.json").read_text())
        boxes["annotations"][0][key] = value
        (folder / "boxes.json").write_text(json.dumps(boxes))

    return change


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no yaml": (lambda f: (f / "dataset.yaml").unlink(), "no such data set"),
    "not yaml": (lambda f: (f / "dataset.yaml").write_text("a: [1"), "not YAML"),
    "unknown key": (edit("imagee", "x"), "Did you mean 'image'"),
    "two distilled": (lambda f: (edit("distilled", "text")(f), edit("distilled_file", "d.csv")(f)), "either"),
    "no distilled file": (edit("distilled_file", "d.csv"), "d.csv: no such file"),
    "distilled id alone": (edit("distilled_id", "id"), "needs `distilled_file`"),
    "no table": (edit("table", "tabel.csv"), "tabel.csv: no such table"),
    "unset variable": (edit("table", "${NO_SUCH_VAR_1}/t.csv"), "NO_SUCH_VAR_1"),
    "no column": (edit("patient", "pateint"), "no column 'pateint'.*Did you mean 'patient'"),
    "nothing left": (edit("where", {"a": "9"}), "none of 4 rows remains"),
    "shares": (edit("split", {"hash": {"train": 0.5, "test": 0.4}}), "sum to 0.9"),
    "two rules": (edit("split", {"column": "split", "hash": {"train": 1.0}}), "either"),
    "one class": (edit("labels", {"multiclass": "a", "classes": ["0"]}), "two or more"),
    "foreign class": (edit("labels", {"multiclass": "text", "classes": ["0", "1"]}), "line 2: unknown class"),
    "id twice": (table("1,1.png,p1", "0,1.png,p1"), "duplicate id '0'"),
    "empty patient": (table(",p1,", ",,"), "line 3: 'patient' is empty"),
    "unknown split": (table(",dev,", ",devl,"), "line 4: unknown split 'devl' in 'split'.*Did you mean 'dev'"),
    "label": (table("p1,train,1", "p1,train,7"), "line 3: '7' in 'a' is not a label"),
    "ragged": (table("p1,train,1", "p1,train,1,1"), "line 3: 9 fields, the header has 8"),
    "two splits": (table("p3,test", "p0,test"), "patient 'p0' is in train.*and in test"),
    "no image": (table("1.png", "nine.png"), "nine.png.*line 3.*no such image"),
    "text as image": (lambda f: (f / "1.png").write_text("hello"), "1.png.*line 3.*unreadable"),
    "torn image": (lambda f: (f / "1.png").write_bytes((f / "1.png").read_bytes()[:90]), "line 3.*unreadable"),
    "outside": (table("1.png", "../1.png"), "is outside"),
    "mask size": (lambda f: Image.new("L", (9, 9)).save(f / "m1.png"), "line 3: mask 'lung'.*9x9, image 20x10"),
    "no mask": (table("m1.png", "m9.png"), "m9.png.*no such mask"),
    "box outside": (coco("bbox", [15, 2, 9, 3]), "is empty or outside the image"),
    "empty box": (coco("bbox", [1, 2, 0, 3]), "is empty"),
    "box class": (coco("category_id", 9), "annotation 1: category 9"),
    "box image": (coco("image_id", 9), "annotation 1: image 9"),
    "boxes not json": (lambda f: (f / "boxes.json").write_text("{"), "boxes.json: not valid JSON"),
    "boxes no coco": (lambda f: (f / "boxes.json").write_text("{}"), "not a COCO file"),
    "latin-1": (lambda f: (f / "table.csv").write_bytes("id\xe9".encode("latin-1")), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(folder: Path, name: str) -> None:
    change, message = MISTAKES[name]
    change(folder)
    with pytest.raises(EcampError) as caught:
        read_all(folder)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def test_bad_images_can_be_skipped_and_are_counted(folder: Path) -> None:
    (folder / "1.png").write_text("hello")
    arrays = read_all(folder, on_bad_image="skip")
    assert arrays.ids == ("0", "2", "3")
    assert len(arrays.skipped) == 1
    assert "line 3" in arrays.skipped[0]


def test_the_fingerprint_follows_content_not_place(folder: Path, tmp_path_factory: Any) -> None:
    import shutil

    before = dataset(folder).fingerprint()
    copy = tmp_path_factory.mktemp("copy") / "elsewhere"
    shutil.copytree(folder, copy)
    assert dataset(copy).fingerprint() == before
    Image.new("L", (20, 10)).save(copy / "2.png")
    assert dataset(copy).fingerprint() != before


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_any_quoted_text_is_read_back(tmp_path_factory: Any, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    path.write_text("\ufeff" + buffer.getvalue(), encoding="utf-8", newline="")
    read = read_table(path, {"a": "id", "b": "image"})
    assert [(r.values["a"], r.values["b"]) for r in read] == [
        (a.strip(), b.strip()) for a, b in rows
    ]


@pytest.mark.real
def test_covid_films_are_read_whole(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECAMP_DATA", str(shared_data))
    arrays = materialise(
        make_plugin("ecamp.datasets", PluginRef.parse(str(HERE / "covid_cxr.yaml"))), 64,
        splits=["train", "val", "test"],
    )  # fmt: skip
    root = shared_data / "covid_cxr"
    frame = pd.read_csv(root / "manifest.csv", dtype=str)
    frame = frame[frame["duplicate_of"].isna()]
    assert len(arrays) == len(frame)
    assert np.nansum(arrays.labels) == (frame["covid19"] == "1").sum()
    assert np.isnan(arrays.labels).sum() == frame["covid19"].isna().sum()
    assert arrays.has_mask.sum() == frame["mask_lung"].notna().sum()
    truth = COCO(str(root / "boxes_lung_coco.json"))
    assert len(arrays.boxes) == len(truth.getAnnIds())
    position = arrays.ids.index("covid_0001")
    image = truth.loadImgs([1])[0]
    x, y, w, h = truth.loadAnns(truth.getAnnIds([1]))[0]["bbox"]
    scale = 64 / max(image["width"], image["height"])
    top = (image["width"] - image["height"]) // 2
    assert np.allclose(
        arrays.boxes_of(position)[0][0],
        np.array([x, y + top, x + w, y + h + top]) * scale, atol=1e-3,
    )  # fmt: skip
    # The area of a lung mask survives the resizing.
    row = frame[frame["mask_lung"].notna()].iloc[0]
    pixels = np.asarray(Image.open(root / row["mask_lung"])) > 0
    mask = arrays.masks[arrays.ids.index(row["id"]), 0]
    assert mask.sum() == pytest.approx(pixels.sum() * (64 / max(pixels.shape)) ** 2, rel=0.03)


@pytest.mark.real
def test_paediatric_films_are_read_whole(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECAMP_DATA", str(shared_data))
    arrays = materialise(
        make_plugin("ecamp.datasets", PluginRef.parse(str(HERE / "kermany_cxr.yaml"))), 48,
        splits=["train", "val", "test"],
    )  # fmt: skip
    frame = pd.read_csv(shared_data / "kermany_cxr" / "manifest.csv", dtype=str)
    counts = frame["label"].value_counts()
    assert arrays.labels.sum(0).tolist() == [counts["normal"], counts["bacteria"], counts["virus"]]
    assert len(set(arrays.patients)) == frame["patient_id"].nunique()
