"""IU X-ray: the real tables (with films made for them), reports, views, splits, and bad files."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.api.dataset import Record
from ecamp.audit.dataset import audit_dataset
from ecamp.datasets.iu_xray import FINDINGS, IUXray, join_sections, labels_from_mesh, parse_uid
from ecamp.errors import DataError, MissingError, UsageError
from tests.datasets import releases
from tests.datasets.releases import IU_STUDIES, Release, paint


def make(root: Path | Release, **options: Any) -> IUXray:
    if isinstance(root, Release):
        root, options = root.root, {**root.options, **options}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    return IUXray(IUXray.Config(root=str(root), **given))


# --- the real tables ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("iu")
    source = shared_data / "iu_reports"
    shutil.copy(source / "reports.csv", root / "indiana_reports.csv")
    shutil.copy(source / "projections.csv", root / "indiana_projections.csv")
    shutil.copy(source / "r2gen_split.csv", root)
    for k, row in enumerate(rows(root, "indiana_projections.csv")[:4]):
        paint(root / "images/images_normalized" / row["filename"], seed=k)
    return root


def rows(root: Path, name: str) -> list[dict[str, str]]:
    with (root / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def folded(row: dict[str, str]) -> str:
    return " ".join(f"{row['findings']} {row['impression']}".lower().split())


def test_real_films_and_reports(real: Path) -> None:
    """Against the csv read plainly: films by view, texts joined, XXXX unchanged."""
    films, told = rows(real, "indiana_projections.csv"), rows(real, "indiana_reports.csv")
    views = Counter(row["projection"] for row in films)
    assert views == {"Frontal": 2_480, "Lateral": 2_370}
    assert len(make(real).records()) == views["Frontal"]
    every = make(real, views="all").records()
    assert {r.id for r in every} == {row["filename"] for row in films}
    by_uid = {row["uid"]: row for row in told}
    empty = {uid for uid, row in by_uid.items() if not folded(row)}
    assert len(empty) == 25
    assert sum(not row["findings"] for row in told) == 340
    different = set()
    for record in every:
        plain = by_uid[record.patient]
        assert (record.report is None) == (record.patient in empty)
        assert (record.report or "").count("XXXX") == folded(plain).count("xxxx")
        if (record.report or "").lower() != folded(plain):
            different.add(record.patient)
    assert len(different) == 1, "one text says a heading of its own in the middle: it is left out"


def test_real_labels(real: Path) -> None:
    """Against the column Problems, which nothing here reads."""
    problems = {
        r["uid"]: {word.strip() for word in r["Problems"].split(";")}
        for r in rows(real, "indiana_reports.csv")
    }
    labels = {r.patient: r.labels for r in make(real, views="all").records()}
    unknown = {uid for uid, row in labels.items() if row and row[0] is None}
    assert unknown == {
        uid for uid, found in problems.items()
        if found <= {"No Indexing", "Technical Quality of Image Unsatisfactory"}
    }  # fmt: skip
    assert len(unknown) == 77
    for k, names in enumerate(FINDINGS.values()):
        found = {uid for uid, row in labels.items() if row and row[k]}
        assert found == {uid for uid, words in problems.items() if words & set(names)}
        assert len(found) >= 20, "the rule by which findings were chosen"
    assert all(not any(labels[uid] or ()) for uid, found in problems.items() if "normal" in found)


def test_our_split_keeps_identical_reports_together(real: Path) -> None:
    """632 of the 2,503 examinations share their whole text with another one."""
    texts = Counter(folded(row) for row in rows(real, "indiana_reports.csv") if folded(row))
    assert sum(n for n in texts.values() if n > 1) >= 600
    dataset = make(real)
    records = dataset.records()
    homes: dict[str, set[str]] = {}
    for record in records:
        homes.setdefault((record.report or record.patient).lower(), set()).add(record.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert not any("word for word" in flaw for flaw in dataset.info.flaws)
    fractions = Counter(r.split for r in records)
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(fractions[split] / len(records) - share) < 0.03
        for k in range(len(FINDINGS)):
            assert any(r.labels[k] for r in records if r.split == split and r.labels)


def test_the_split_of_r2gen_and_its_leak(real: Path) -> None:
    split = {r["uid"]: r["r2gen_split"] for r in rows(real, "r2gen_split.csv")}
    dataset = make(real, splits="r2gen", views="all")
    assert {r.patient: r.split for r in dataset.records()} == split
    text = {row["uid"]: folded(row) for row in rows(real, "indiana_reports.csv")}
    trained = {text[uid] for uid, s in split.items() if s == "train"} - {""}
    leaked = sum(text[uid] in trained for uid, s in split.items() if s == "test")
    assert leaked == 170
    message = f"the reports of {leaked} of 396 test examinations appear verbatim in train"
    assert message in dataset.info.flaws
    assert any("these splits have 4,138 / 592 / 1,180" in flaw for flaw in dataset.info.flaws)
    assert dataset.info.split_id == "iu-xray/r2gen"
    assert make(real, splits="r2gen").info.split_id == "iu-xray/r2gen+frontal"
    assert not [f for f in audit_dataset(dataset, images=False) if f.severity == "leak"]


# --- texts and labels ---------------------------------------------------------------------------


def test_sections_become_one_text() -> None:
    assert join_sections({"FINDINGS": "Clear  lungs.", "IMPRESSION": "Normal."}) == (
        "Clear lungs. Normal."
    )
    assert join_sections({"FINDINGS": "", "IMPRESSION": "1. x-XXXX."}) == "1. x-XXXX."
    assert join_sections({"FINDINGS": "", "IMPRESSION": ""}) == ""


WORDS = sorted({name for names in FINDINGS.values() for name in names})


@given(st.sets(st.sampled_from(WORDS)), st.lists(st.sampled_from(["/lung", "/right/small", ""])))
def test_labels_from_mesh_any_entries(found: set[str], tails: list[str]) -> None:
    """A heading counts as a whole, wherever it appears; others (`Pulmonary Emphysema Test`) do not."""
    entries = [word + (tails[k % len(tails)] if tails else "") for k, word in enumerate(found)]
    expected = tuple(int(bool(found & set(names))) for names in FINDINGS.values())
    assert labels_from_mesh([*entries, "normal"]) == expected
    assert labels_from_mesh([" Scoliosis", *entries, *(f"No {word}" for word in WORDS)]) == expected


def test_numbers_of_examinations() -> None:
    known = {"CXR2384_IM-0942": "2384", "CXR1_1_IM-0001": "1", "12": "12", "CXR7": "7"}
    assert {name: parse_uid(name) for name in known} == known
    for name in ("", "12a", "IM-0942", "XCXR1"):
        assert parse_uid(name) is None


def _reports(dataset: IUXray) -> dict[str, str | None]:
    return {record.patient: record.report for record in dataset.records()}


def test_three_layouts_give_one_text(tmp_path: Path) -> None:
    """R2Gen's copy has the findings alone; Open-i's files have what Kaggle's table has."""
    tables = make(releases.iu_kaggle(tmp_path / "a"))
    xml, annotation = make(releases.iu_xml(tmp_path / "b")), make(releases.iu_r2gen(tmp_path / "c"))
    assert _reports(xml) == _reports(tables)
    assert _reports(tables)["7"] == 'Infiltrate in the "right" base. Small effusion.'
    assert _reports(tables)["6"] is None
    assert _reports(annotation)["7"] == 'Infiltrate in the "right" base.'
    assert annotation.info.labels == ()
    assert xml.info.labels == tables.info.labels == tuple(FINDINGS)
    for dataset in (xml, annotation):
        assert any("no views" in flaw for flaw in dataset.info.flaws)
        assert len(dataset.records()) > len({r.patient for r in dataset.records()})


def test_each_examination_of_r2gen_has_its_own_first_film(tmp_path: Path) -> None:
    """All are called 0.png; one that is missing is never another's."""
    release = releases.iu_r2gen(tmp_path)
    dataset = make(release)
    films = {r.id: dataset.load(r, 64).image.tobytes() for r in dataset.records()}
    assert len(set(films.values())) == len(films)
    (release.root / "images" / dataset.records()[0].id).unlink()
    again = make(release)
    with pytest.raises(DataError, match=r"0\.png \(annotation\.json train 0\): no such image"):
        again.load(again.records()[0], 64)


def test_identical_texts_of_a_small_folder(tmp_path: Path) -> None:
    """4 and 8 differ in a space alone; R2Gen has them on two sides."""
    for views in ("frontal", "all"):
        split = {r.patient: r.split for r in make(releases.iu_kaggle(tmp_path / views)).records()}
        assert split["4"] == split["8"]
    leaky = make(releases.iu_split_table(tmp_path / "c")).info.flaws
    assert "the reports of 1 of 2 test examinations appear verbatim in train" in leaky


def test_distilled_text_by_examination(tmp_path: Path) -> None:
    release = releases.iu_kaggle(tmp_path)
    file = tmp_path / "distilled.json"
    texts = {"CXR2_IM-0652": "There is cardiomegaly.", "4": "There is a nodule."}
    file.write_text(json.dumps(texts))
    dataset = make(release, distilled=file)
    found: dict[str, Record] = {r.patient: r for r in dataset.records()}
    assert found["2"].distilled == "There is cardiomegaly."
    assert found["4"].distilled == "There is a nodule."
    assert found["1"].distilled is None
    assert dataset.fingerprint() != make(release).fingerprint()


# --- bad input ----------------------------------------------------------------------------------

BAD = {
    "projection": (releases.iu_kaggle, "indiana_projections.csv", ",Frontal", ",Frontl",
                   r"indiana_projections\.csv line 3: unknown projection 'Frontl'", 1),
    "uid": (releases.iu_kaggle, "indiana_projections.csv", "\n4,", "\n99,",
            r"indiana_projections\.csv line 6: uid '99' is not in indiana_reports\.csv", 0),
    "split": (releases.iu_split_table, "r2gen_split.csv", "train", "trian",
              r"r2gen_split\.csv line 2: unknown split 'trian'", 1),
    "split uid": (releases.iu_split_table, "r2gen_split.csv", "\n1,", "\nx,",
                  r"r2gen_split\.csv line 2: 'x' is not an examination", 1),
    "report": (releases.iu_r2gen, "annotation.json", '"report": "Lungs are clear."', '"report": 1',
               r"annotation\.json train 0: 'report' is not a text", 2),
    "paths": (releases.iu_r2gen, "annotation.json", "image_path", "images",
              r"annotation\.json train 0: no 'image_path'", 2),
    "xml": (releases.iu_xml, "ecgen-radiology/1.xml", "</eCitation>", "", r"1\.xml: not valid XML", 2),
    "xml uid": (releases.iu_xml, "ecgen-radiology/2.xml", "uId", "id", r"2\.xml: no uId", 2),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_row_is_named_and_can_be_left_out(tmp_path: Path, case: Any) -> None:
    build, file, good, bad, message, lost = case
    release = build(tmp_path)
    whole = len(make(release).records())
    path = release.root / file
    text = path.read_bytes().decode()
    assert good in text
    path.write_bytes(text.replace(good, bad, 1).encode())
    with pytest.raises(DataError, match=message):
        make(release).records()
    rest = make(release, on_bad_row="skip")
    assert len(rest.records()) == whole - lost
    assert any("rows skipped, first " in flaw for flaw in rest.info.flaws)


def test_an_examination_that_appears_twice(tmp_path: Path) -> None:
    release = releases.iu_kaggle(tmp_path)
    path = release.root / "indiana_reports.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(DataError, match=r"indiana_reports\.csv line 10: duplicate uid '1'"):
        make(release).records()
    assert len(make(release, on_bad_row="skip").records()) == len(IU_STUDIES)


def test_views_that_nothing_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"views=frontal needs indiana_projections\.csv"):
        make(releases.iu_xml(tmp_path), views="frontal").records()


@pytest.mark.parametrize("text", ["", "[]", '{"train": 1}', "\x00", '{"train": [}', "[" * 9999])
def test_an_annotation_that_is_none(tmp_path: Path, text: str) -> None:
    release = releases.iu_r2gen(tmp_path)
    release.index.write_text(text)
    with pytest.raises(DataError, match=r"annotation\.json: (not valid JSON|does not map)"):
        make(release).records()


def test_a_missing_r2gen_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"found no annotation\.json or r2gen_split\*\.csv"):
        make(releases.iu_kaggle(tmp_path), splits="r2gen").records()


def test_pretraining_reads_pairs(tmp_path: Path) -> None:
    """A film with its report, as `ecamp pretrain` takes them from any set with reports."""
    dataset = make(releases.iu_kaggle(tmp_path))
    assert dataset.info.has_reports
    pairs = [r for r in dataset.records() if r.split == "train" and r.report]
    assert pairs
    assert all(dataset.load(r, 64).image.dtype == np.uint8 for r in pairs)
