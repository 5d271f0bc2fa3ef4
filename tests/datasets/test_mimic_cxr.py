"""MIMIC-CXR from a folder made in its layout: pairs, splits, and what goes wrong with a download."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecamp.api.dataset import Dataset
from ecamp.api.plugin_ref import PluginRef
from ecamp.errors import DataError, EcampError, MissingError
from ecamp.plugin.host import make_plugin
from ecamp.testing.contract import check_plugin
from ecamp.testing.folders import check_archive

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough.

 FINDINGS:

 There is a small left pleural effusion.  Heart size
 is normal.

 IMPRESSION:

 Small left effusion.
"""
# dicom, study, subject, split, view
ROWS = [
    ("a1", "50000001", "10000032", "train", "PA"),
    ("a2", "50000001", "10000032", "train", "LATERAL"),
    ("b1", "50000002", "10000032", "train", "AP"),
    ("c1", "50000003", "11000033", "validate", "PA"),
    ("d1", "50000004", "12000034", "test", "AP"),
]


def _table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for dicom, study, subject, _, _ in ROWS:
        home = tmp_path / "files" / f"p{subject[:2]}" / f"p{subject}"
        (home / f"s{study}").mkdir(parents=True, exist_ok=True)
        shade = np.full((60, 50), 40 + len(dicom) * 10, np.uint8)
        Image.fromarray(shade).save(home / f"s{study}" / f"{dicom}.jpg")
        if study != "50000002":
            (home / f"s{study}.txt").write_text(REPORT)
    _table(tmp_path / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"],
           [[r[0], r[1], r[2], r[3]] for r in ROWS])  # fmt: skip
    _table(tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz", ["dicom_id", "subject_id", "ViewPosition"],
           [[r[0], r[2], r[4]] for r in ROWS])  # fmt: skip
    return tmp_path


def _make(root: Path, **options: object) -> Dataset:
    return make_plugin(
        "ecamp.datasets", PluginRef(name="mimic-cxr", options={"root": str(root), **options})
    )


def test_contract(root: Path):
    check_plugin("ecamp.datasets", f"mimic-cxr?root={root}")


def test_bad_folders_and_rows(root: Path):
    check_archive(f"mimic-cxr?root={root}")
    columns = ["dicom_id", "study_id", "subject_id", "split"]
    split = root / "mimic-cxr-2.0.0-split.csv.gz"
    rows = [list(row[:4]) for row in ROWS]
    _table(split, columns, [*rows, rows[0]])
    with pytest.raises(DataError, match=r"line 7: duplicate dicom_id 'a1' \(first in .*line 2\)"):
        _make(root).records()
    _table(split, columns, [*rows[1:], ["a1", "50000001", "1/../../../../../etc", "train"]])
    with pytest.raises(DataError, match=r"line 6: 'files/.*etc.*' is outside"):
        _make(root).records()
    header, *lines = [",".join(columns), *(",".join(f'"{v} "' for v in row) for row in rows)]
    split.write_bytes(gzip.compress(("\ufeff" + "\r\n".join([header, *lines])).encode()))
    assert [r.id for r in _make(root).records()] == ["a1", "b1", "c1", "d1"]


def test_frontal_films_with_findings_and_impression(root: Path):
    records = _make(root).records()
    assert [(r.id, r.split, r.patient) for r in records] == [
        ("a1", "pretrain", "10000032"), ("b1", "pretrain", "10000032"),
        ("c1", "val", "11000033"), ("d1", "test", "12000034"),
    ]  # fmt: skip
    text = "There is a small left pleural effusion. Heart size is normal. Small left effusion."
    assert [r.report for r in records] == [text, None, text, text]
    both = _make(root, views=["PA", "AP", "LATERAL"]).records()
    assert [r.id for r in both] == [r[0] for r in ROWS]


def test_distilled_statements_by_study(root: Path):
    file = root / "distilled.json"
    file.write_text(json.dumps({"s50000001": "There is effusion."}))
    plain, told = _make(root), _make(root, distilled=str(file))
    assert [r.distilled for r in told.records()] == ["There is effusion.", None, None, None]
    assert plain.fingerprint() != told.fingerprint()


def test_a_file_of_ecamp_distill_is_read_by_study(root: Path):
    file = root / "distilled.jsonl"
    rows = [{"id": "50000001", "text": "There is effusion."}, {"id": "50000003", "text": ""},
            {"id": "50000004", "text": "", "error": "no answer"}]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = _make(root, distilled=str(file))
    assert [r.distilled for r in told.records()] == ["There is effusion.", None, None, None]
    with pytest.raises(MissingError, match=r"none\.csv: no such file"):
        _make(root, distilled=str(root / "none.csv")).records()


def test_missing_files_are_named(root: Path):
    with pytest.raises(
        MissingError, match=r"no mimic-cxr-2\.0\.0-metadata\.csv\.gz; the folder contains p10"
    ):
        _make(root / "files").records()
    for report in root.rglob("*.txt"):
        report.unlink()
    with pytest.raises(MissingError, match=r"mimic-cxr-reports\.zip"):
        _make(root).records()
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(b"\x1f\x8b torn")
    with pytest.raises(DataError, match=r"split\.csv\.gz: damaged"):
        _make(root).records()
    _table(root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id"], [])
    with pytest.raises(DataError, match="no column 'subject_id', 'split'"):
        _make(root).records()


def test_a_lost_image_is_named_with_its_row(root: Path):
    dataset = _make(root)
    record = dataset.records()[0]
    (root / record.payload).unlink()
    with pytest.raises(EcampError, match=r"a1\.jpg .*split\.csv\.gz line 2"):
        dataset.load(record, 64)
