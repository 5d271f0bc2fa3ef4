"""The phantom: same pixels everywhere, truths that agree with each other, reports that contain the labels."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ecamp.datasets.phantom import PhantomDataset
from ecamp.datasets.phantom.findings import FINDINGS
from ecamp.datasets.phantom.study import render_study

# Changes whenever a pixel, a mask or a box changes: then GENERATOR_VERSION must change too.
PIXELS = "b18f33fa4dd9022d"


def digest(size: int) -> str:
    total = hashlib.sha256()
    for index in range(24):
        study = render_study(0, index, size)
        for array in (study.image, study.masks, study.boxes, study.box_classes):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def test_pixels_are_those_of_this_version() -> None:
    assert digest(64) == PIXELS


@pytest.mark.parametrize("lane", ["AVX512F", "AVX2 FMA3 AVX512F"])
def test_pixels_do_not_depend_on_the_processor(lane: str) -> None:
    script = f"from {__name__.split('.')[-1]} import digest; print(digest(64))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        cwd=__file__.rsplit("/", 1)[0], env={"NPY_DISABLE_CPU_FEATURES": lane, "PATH": ""},
    )  # fmt: skip
    if "not part of the dispatch" in done.stderr or "cannot disable" in done.stderr.lower():
        pytest.skip(f"this numpy cannot switch {lane} off")
    assert done.stdout.strip() == PIXELS, done.stderr


@pytest.fixture(scope="module")
def data() -> PhantomDataset:
    return PhantomDataset(PhantomDataset.Config(pretrain=0, train=1000, val=0, test=0))


def test_masks_boxes_and_labels_agree(data: PhantomDataset) -> None:
    seen = np.zeros(len(FINDINGS), int)
    for record in list(data.records())[:150]:
        sample = data.load(record, 96)
        assert sample.mask is not None
        assert sample.boxes is not None
        assert record.labels is not None
        present = sample.mask.any((1, 2))
        assert [bool(v) for v in record.labels] == present.tolist()
        seen += present
        for kind in np.flatnonzero(present):
            rows, columns = np.nonzero(sample.mask[kind])
            boxes = sample.boxes[sample.box_classes == kind]
            assert len(boxes)
            # Together the boxes cover the mask, and no more than a pixel beyond it.
            edges = [boxes[:, 0].min(), boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max()]
            want = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(edges) - want).max() <= 1.01
    assert (seen > 0).all()


def test_findings_are_as_common_as_said_and_patients_stay_in_one_split() -> None:
    data = PhantomDataset(PhantomDataset.Config(pretrain=500, train=1500, val=300, test=300))
    records = data.records()
    labels = np.array([r.labels for r in records])
    assert (labels.mean(0) > 0.05).all()
    assert (labels.mean(0) < 0.30).all()
    assert 0.2 < (labels.sum(1) == 0).mean() < 0.5
    homes = defaultdict(set)
    for record in records:
        homes[record.patient].add(record.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert any([r.patient for r in records].count(p) > 1 for p in list(homes)[:50])


def test_reports_name_the_findings_of_the_film(data: PhantomDataset) -> None:
    """A plain reader: a finding that is present is named outside negations."""
    words = {
        "cardiomegaly": r"cardiomegaly|enlarged|cardiac (silhouette|enlargement)|heart",
        "effusion": r"effusion|pleural fluid|blunt",
        "pneumothorax": r"pneumothora|pleural line",
        "nodule": r"nodul",
        "mass": r"mass",
        "consolidation": r"consolidat|airspace|pneumonia|opacit",
        "atelectasis": r"atelecta|collapse|volume loss",
        "oedema": r"edema|oedema|congest|interstitial",
    }
    missed = defaultdict(int)
    total = defaultdict(int)
    for record in list(data.records())[:500]:
        assert record.report is not None
        assert record.labels is not None
        clauses = re.split(r"[.;]", record.report.lower())
        affirmative = [
            c for c in clauses if not re.search(r"\b(no|without|not|negative|free of)\b", c)
        ]
        for name, label in zip(FINDINGS, record.labels, strict=True):
            if label:
                total[name] += 1
                missed[name] += not any(re.search(words[name], c) for c in affirmative)
    for name in FINDINGS:
        assert missed[name] <= 0.1 * total[name], (name, missed[name], total[name])


def test_reports_vary(data: PhantomDataset) -> None:
    reports = [r.report for r in data.records()]
    assert len(set(reports)) > 0.9 * len(reports)


def test_another_seed_is_another_population() -> None:
    a = render_study(0, 3, 64)
    assert np.array_equal(a.image, render_study(0, 3, 64).image)
    assert not np.array_equal(a.image, render_study(1, 3, 64).image)


def test_distilled_text_comes_from_a_file_by_record(tmp_path: Path) -> None:
    sizes = {"pretrain": 4, "train": 2, "val": 0, "test": 2}
    plain = PhantomDataset(PhantomDataset.Config(**sizes))
    names = [record.id for record in plain.records()]
    file = tmp_path / "d.csv"
    file.write_text(f"id,text\n{names[-1]},There is mass.\n{names[0]},\n")
    distilled = PhantomDataset(PhantomDataset.Config(**sizes, distilled=str(file)))
    assert [r.distilled for r in distilled.records()] == [None] * (len(names) - 1) + [
        "There is mass."
    ]
    assert all(record.distilled is None for record in plain.records())
    # One population, one protocol of splits; other text to pre-train on.
    assert distilled.info == plain.info
    assert distilled.fingerprint() != plain.fingerprint()
    before = distilled.fingerprint()
    file.write_text("id,text\n")
    assert distilled.fingerprint() != before


def test_the_default_without_distilled_text_is_unchanged() -> None:
    data = PhantomDataset(PhantomDataset.Config())
    assert data.info.version == "1-4b3267"
    assert data.fingerprint() == "95f2dd390f2545ea"


def test_the_oracle_tells_the_truth() -> None:
    sizes = {"pretrain": 60, "train": 0, "val": 0, "test": 0}
    data = PhantomDataset(PhantomDataset.Config(**sizes, distilled="oracle"))
    for record in data.records():
        assert record.distilled is not None
        assert record.labels is not None
        assert record.distilled.count("There is no ") == record.labels.count(0)
        assert record.distilled.count("There is ") == len(FINDINGS)
    plain = PhantomDataset(PhantomDataset.Config(**sizes))
    assert data.fingerprint() != plain.fingerprint()
