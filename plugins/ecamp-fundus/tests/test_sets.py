"""Labels, masks, splits and colours of each set against planted truth; wrong folders and bad rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ecamp.api import (
    DataError,
    Dataset,
    EcampError,
    MissingError,
    PluginRef,
    Record,
    UsageError,
    audit_dataset,
    make_plugin,
)


def make(name: str, root: Path, **options: object) -> Dataset:
    """Make the plugin as the command line does."""
    ref = PluginRef(name=name, options={"root": str(root), **options})
    return make_plugin("ecamp.datasets", ref)


def splits(records: list[Record]) -> dict[str, set[str]]:
    """Return the patients of each split."""
    return {s: {r.patient for r in records if r.split == s} for s in {r.split for r in records}}


# --- ODIR ---------------------------------------------------------------------------------------


def test_odir_by_eye(odir: Path) -> None:
    dataset = make("odir", odir)
    records = list(dataset.records())
    assert len(records) == 60
    assert dataset.info.split_id == "odir/patient"
    for record in records:
        p, side = record.id.removesuffix(".jpg").split("_")
        assert record.patient == p
        assert record.labels is not None
        assert record.labels.index(1) == (int(p) + (side == "right")) % 8
        assert sum(v or 0 for v in record.labels) == 1
    parts = splits(records)
    assert set(parts) == {"train", "val", "test"}
    assert not parts["train"] & parts["test"] | parts["train"] & parts["val"]
    # The cropped image, 40 x 30, in its colours: red above green above blue.
    image = dataset.load(records[14], 64).image
    assert image.shape == (30, 40, 3)
    assert np.abs(image[15, 20].astype(int) - [180 + 7, 70 + 7, 10 + 7]).max() < 12  # JPEG
    assert dataset.info.channels == 3


def test_odir_by_patient(odir: Path) -> None:
    dataset = make("odir", odir, labels="patient")
    assert dataset.info.split_id == "odir/patient+patient-labels"
    for record in dataset.records():
        p = int(record.patient)
        assert record.labels == tuple(int(k in (p % 8, (p + 1) % 8)) for k in range(8))
    eyes = {r.id: r.split for r in make("odir", odir).records()}
    assert {r.id: r.split for r in dataset.records()} == eyes  # the same split for both labels


def test_odir_annotation_of_patients(odir: Path) -> None:
    labels = {r.id: r.labels for r in make("odir", odir, labels="patient").records()}
    lines = (odir / "full_df.csv").read_text().splitlines()
    # One row per patient, as the challenge gives it, without the columns that Kaggle added.
    rows = [lines[0], *lines[1::2]]
    shortened = [row.split(",filepath")[0].split(",../input")[0] for row in rows]
    (odir / "ODIR-5K_Training_Annotations.csv").write_text(
        "\ufeff" + "\r\n".join(shortened) + "\r\n"
    )
    (odir / "full_df.csv").unlink()
    assert {r.id: r.labels for r in make("odir", odir, labels="patient").records()} == labels
    with pytest.raises(MissingError, match=r"found no full_df\.csv"):
        make("odir", odir).records()


def test_the_fellow_eye_is_found_in_the_published_lists_only(odir_lists: Path) -> None:
    published = make("odir", odir_lists, lists="auto")
    assert published.info.split_id == "odir/ecamp-published"
    assert published.info.leaks
    assert any("fellow eye" in flaw for flaw in published.info.flaws)
    assert any("24 of 24 test images" in flaw for flaw in published.info.flaws)
    leaks = [f for f in audit_dataset(published, images=False) if f.severity == "leak"]
    assert [(f.check, f.count) for f in leaks] == [("fellow-eye", 24)]
    ours = make("odir", odir_lists)
    assert not [f for f in audit_dataset(ours, images=False) if f.severity == "leak"]
    assert not any("fellow" in flaw for flaw in ours.info.flaws)


def test_a_tenth_of_the_published_training(odir_lists: Path) -> None:
    tenth = make("odir", odir_lists, lists="auto", percent=10)
    assert tenth.info.split_id == "odir/ecamp-published+10%"
    assert sum(r.split == "train" for r in tenth.records()) == 3
    with pytest.raises(UsageError, match="labels per eye"):
        make("odir", odir_lists, lists="auto", labels="patient").records()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"[1, 0, 0, 0, 0, 0, 0, 0]"', '"[1, 1, 0, 0, 0, 0, 0, 0]"', r"full_df\.csv line 2: 'target'"),
        (",0_left.jpg\n", ",zero.jpg\n", r"line 2: 'zero\.jpg' is not an image name of ODIR"),
        ("target", "targets", "no column 'target'"),
    ],
)  # fmt: skip
def test_odir_bad_rows(odir: Path, old: str, new: str, message: str) -> None:
    path = odir / "full_df.csv"
    text = path.read_text().replace("\r\n", "\n")
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        make("odir", odir).records()
    if "column" not in message:
        rest = make("odir", odir, on_bad_row="skip")
        assert len(rest.records()) == 59
        assert any("1 rows skipped" in flaw for flaw in rest.info.flaws)


# --- APTOS --------------------------------------------------------------------------------------


def test_aptos(aptos: Path) -> None:
    ours, published = make("aptos", aptos), make("aptos", aptos, lists=str(aptos / "clone"))
    assert ours.info.label_kind == "multiclass"
    grades = {r.id: r.labels for r in ours.records()}
    assert len(grades) == 40
    for k, labels in enumerate(grades.values()):
        assert labels == tuple(int(j == k % 5) for j in range(5))
    assert {r.id: r.labels for r in published.records()} == grades
    counts = {s: len(p) for s, p in splits(list(published.records())).items()}
    assert counts == {"train": 24, "val": 6, "test": 10}
    # These lists are shorter than the published ones, and a flaw reports that.
    assert any("these splits have 2,563 / 366 / 733" in flaw for flaw in published.info.flaws)
    image = published.load(published.records()[3], 64).image
    assert image[15, 20].tolist() == [183, 73, 13]


def test_aptos_bad_grades(aptos: Path) -> None:
    path = aptos / "train.csv"
    path.write_text(path.read_text().replace(",4", ",5", 1))
    with pytest.raises(DataError, match=r"train\.csv line 6: '5' is not a grade"):
        make("aptos", aptos).records()
    with pytest.raises(UsageError, match="no splits 'mrm'"):
        make("aptos", aptos, splits="mrm").records()


# --- MuReD --------------------------------------------------------------------------------------


def test_mured(mured: Path) -> None:
    ours, published = make("mured", mured), make("mured", mured, lists=str(mured / "clone"))
    assert ours.info.labels[:3] == ("DR", "NORMAL", "MH")
    assert len(ours.info.labels) == 20
    for dataset in (ours, published):
        records = dataset.records()
        assert len(records) == 60
        for record in records:
            k = int(record.id.split("_")[2])
            assert record.labels == tuple(int(j in (k % 20, 3 * k % 20)) for j in range(20))
            pixel = dataset.load(record, 64).image[15, 20].tolist()
            assert pixel == [180 + k % 60, 70 + k % 40, 10 + k % 11]
    test = {r.id for r in published.records() if r.split == "test"}
    assert {r.id for r in ours.records() if r.split == "test"} == test


def test_mured_by_few_shots(mured: Path) -> None:
    """The same validation and test; of each class as many images as requested, or all."""
    all_records = make("mured", mured).records()
    few = make("mured", mured, splits="few-shot", shots=1)
    assert few.info.split_id == "mured/few-shot+1-shot"
    evaluation_splits = {r.id: r.split for r in all_records if r.split != "train"}
    assert {r.id: r.split for r in few.records() if r.split != "train"} == evaluation_splits
    train = [r for r in few.records() if r.split == "train"]
    assert {r.id for r in train} < {r.id for r in all_records if r.split == "train"}
    for k in range(20):
        available = sum(r.labels[k] or 0 for r in all_records if r.split == "train" and r.labels)
        assert sum(r.labels[k] or 0 for r in train if r.labels) >= min(1, available)
    assert len(train) <= 20


def test_our_splits_are_stratified_by_class(aptos: Path) -> None:
    """Eight images of each grade: 70 / 10 / 20 % of them, to within one."""
    for grade in range(5):
        assigned = [r.split for r in make("aptos", aptos).records() if r.labels and r.labels[grade]]
        assert len(assigned) == 8
        assert [assigned.count(s) for s in ("train", "val", "test")] == [6, 0, 2]


def test_one_bad_row_of_forty_thousand(odir_lists: Path) -> None:
    path = odir_lists / "ECAMP/Fine-tuning/Classification/datasets/ODIR5K/train_list.txt"
    rows = [f"{k}_left.jpg 1 0 0 0 0 0 0 0" for k in range(100, 40_100)]
    rows[31_415] = rows[31_415].replace(" 1", " l")
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"train_list\.txt line 31416"):
        make("odir", odir_lists, lists="auto").records()
    rest = make("odir", odir_lists, lists="auto", on_bad_row="skip")
    assert sum(record.split == "train" for record in rest.records()) == 39_999


def test_mured_columns_in_another_order(mured: Path) -> None:
    before = {r.id: r.labels for r in make("mured", mured).records()}
    path = mured / "train_data.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join([row[0], *row[:0:-1]]) for row in rows) + "\n")
    assert {r.id: r.labels for r in make("mured", mured).records()} == before


# --- RIGA ---------------------------------------------------------------------------------------


def test_riga_masks_are_where_they_were_drawn(riga: Path) -> None:
    published = make("riga", riga, lists=str(riga / "clone"))
    ours = make("riga", riga)
    assert published.info.mask_classes == ("disc", "cup")
    assert {r.id for r in ours.records()} == {r.id for r in published.records()}
    for dataset in (ours, published):
        for record in dataset.records():
            assert (record.split == "test") == ("/Magrab" in record.id)
            sample = dataset.load(record, 64)
            # The photograph's colour encodes its number; the mask must be of the same number.
            red, green, _ = (int(v) for v in sample.image[15, 20])
            k = next(k for k in range(60) if (180 + k % 60, 70 + k % 40) == (red, green))
            disc, cup = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
            disc[5 : 20 + k % 5, 8 : 25 + k % 7] = True
            cup[9 : 15 + k % 3, 12 : 20 + k % 2] = True
            assert sample.mask is not None
            assert np.array_equal(sample.mask, [disc, cup])
            assert not (sample.mask[1] & ~sample.mask[0]).any()


def test_a_lost_mask_is_named(riga: Path) -> None:
    dataset = make("riga", riga, lists=str(riga / "clone"))
    record = dataset.records()[2]
    (riga / record.payload.mask).unlink()
    with pytest.raises(DataError, match=r"image3\.tif \(mask, train_list\.csv line 4\)"):
        dataset.load(record, 64)


def test_a_path_that_leaves_the_root_is_refused(riga: Path) -> None:
    path = riga / "clone" / "datasets" / "RIGA" / "val_list.csv"
    path.write_text(path.read_text().replace("FinalLabel/", "../../etc/", 1))
    with pytest.raises(DataError, match=r"val_list\.csv line 2: '\.\./\.\./etc.* is outside"):
        make("riga", riga, lists=str(riga / "clone")).records()


# --- FFA-IR -------------------------------------------------------------------------------------


def test_ffa_ir(ffa_ir: Path) -> None:
    dataset = make("ffa-ir", ffa_ir)
    records = list(dataset.records())
    assert len(records) == 40
    assert {s: len(p) for s, p in splits(records).items()} == {"pretrain": 4, "val": 2, "test": 2}
    for record in records:
        number = record.patient.split("_")[1]
        assert record.report == f"Late leakage of eye {number}."
        assert record.id.startswith(record.patient + "/")
    assert dataset.load(records[7], 64).image.shape == (30, 40, 3)
    chinese = make("ffa-ir", ffa_ir, language="zh")
    assert [r.report for r in chinese.records()][::5] == [f"\u6e17\u6f0f {c}" for c in range(8)]
    assert chinese.fingerprint() != dataset.fingerprint()


def test_ffa_ir_some_images_and_distilled_text(ffa_ir: Path) -> None:
    file = ffa_ir / "distilled.jsonl"
    file.write_text(json.dumps({"id": "train_0", "text": "There is leakage."}) + "\n")
    dataset = make("ffa-ir", ffa_ir, per_case=2, distilled=str(file))
    records = dataset.records()
    assert [r.id for r in records[:3]] == ["train_0/1.jpg", "train_0/3.jpg", "train_1/1.jpg"]
    assert [r.distilled for r in records[:3]] == ["There is leakage.", "There is leakage.", None]
    assert dataset.info.version == "official+2-per-case"


def test_ffa_ir_bad_annotations(ffa_ir: Path) -> None:
    path = ffa_ir / "ffair_annotation.json"
    value = json.loads(path.read_text())
    del value["val"]["val_4"]["Ch_Report"]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"val val_4: no report in language 'zh'"):
        make("ffa-ir", ffa_ir, language="zh").records()
    del value["test"]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="does not map train, val, test"):
        make("ffa-ir", ffa_ir).records()
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        make("ffa-ir", ffa_ir).records()


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("odir", "full_df.csv"), ("aptos", "train.csv"), ("mured", "train_data.csv"),
     ("riga", "Image/"), ("ffa-ir", "ffair_annotation.json")],
)  # fmt: skip
def test_a_wrong_folder_names_missing_and_present_files(
    name: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "archive.zip").write_bytes(b"PK")
    with pytest.raises(MissingError) as caught:
        make(name, tmp_path).records()
    assert expected in str(caught.value)
    assert "archive.zip" in caught.value.message
    with pytest.raises(MissingError, match="no such folder"):
        make(name, tmp_path / "none").records()
    with pytest.raises(EcampError):  # a set without lists refuses them, the others look for them
        make(name, tmp_path, lists=str(tmp_path)).records()


def test_tables_without_images_are_a_wrong_folder(aptos: Path) -> None:
    (aptos / "train_images").rename(aptos / "moved")
    with pytest.raises(MissingError, match="train_images"):
        make("aptos", aptos).records()


@pytest.mark.parametrize("name", ["ffa-ir", "odir", "aptos", "mured", "riga"])
def test_help_explains_how_to_get_each_set(name: str) -> None:
    cls = type(make(name, Path("nowhere")))
    assert "get: https://" in cls.help_text()
    assert "root contains" in cls.help_text()
