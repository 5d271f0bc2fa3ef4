"""Copies, near copies, bad files and shortcuts; planted in phantom films and in pooled real ones."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecamp.audit.fingerprints import Fingerprint, FingerprintStore, fingerprint, near_duplicates
from ecamp.audit.images import audit_images, name_pattern
from ecamp.cli import run
from ecamp.datasets.phantom.study import render_study
from ecamp.errors import DataError

COUNT = 60


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    return [render_study(3, i, 160).image for i in range(COUNT)]


def recompressed(image: np.ndarray, size: int = 128, quality: int = 60) -> np.ndarray:
    """Convert a film as another archive might: smaller, JPEG, a little brighter."""
    small = Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)
    small = small.point(lambda v: min(255, int(v * 1.04 + 3)))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def audit(films: list[np.ndarray | str], splits: list[str], **more: object) -> dict[str, list]:
    prints = [f if isinstance(f, str) else fingerprint(f) for f in films]
    n = len(films)
    labels = more.get("labels", np.zeros((n, 0)))
    classes = more.get("classes", [])
    patients = more.get("patients", [f"p{i}" for i in range(n)])
    out: dict[str, list] = {}
    names, files = [f"i{i}" for i in range(n)], more.get("files", [f"{i}.png" for i in range(n)])
    for f in audit_images(names, splits, patients, labels, classes, prints, files):  # type: ignore[arg-type]
        out.setdefault(f.check, []).append((f.severity, f.count))
    return out


def halves(n: int) -> list[str]:
    return ["train" if i < n // 2 else "test" for i in range(n)]


def test_clean_films_give_nothing(films: list[np.ndarray]) -> None:
    assert audit(list(films), halves(COUNT)) == {}


def test_copies_across_splits(films: list[np.ndarray]) -> None:
    changed = list(films)
    changed[40], changed[41] = films[0], films[1]
    changed[50] = recompressed(films[2])
    changed[51] = recompressed(films[3], 200, 40)
    assert audit(changed, halves(COUNT)) == {
        "same-pixels": [("leak", 2)], "near-duplicate": [("leak", 2)],
    }  # fmt: skip


def test_copies_within_a_split_count_only_under_another_name(films: list[np.ndarray]) -> None:
    changed = list(films)
    changed[5] = films[4]
    patients = [f"p{i}" for i in range(COUNT)]
    assert audit(changed, halves(COUNT)) == {"same-pixels": [("note", 1)]}
    patients[5] = patients[4]
    assert audit(changed, halves(COUNT), patients=patients) == {}


def test_bad_and_empty_images(films: list[np.ndarray]) -> None:
    changed: list[np.ndarray | str] = list(films)
    changed[7] = "x.png: unreadable image"
    changed[8], changed[45] = np.full((64, 64), 9, np.uint8), np.full((64, 64), 9, np.uint8)
    assert audit(changed, halves(COUNT)) == {
        "unreadable": [("error", 1)], "constant": [("error", 2)],
    }  # fmt: skip


def eye(seed: int, size: int = 128) -> np.ndarray:
    """Draw a photograph: the round field of view in a dark frame is shared by all, the vessels differ."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    detail = Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8))
    fine = np.asarray(detail.resize((size, size), Image.Resampling.BICUBIC), float)
    light = 130 - 120 * (columns**2 + rows**2) + 0.06 * fine
    return np.where(columns**2 + rows**2 < 0.2, light, 0).astype(np.uint8)


def test_a_common_frame_is_not_a_copy() -> None:
    eyes = [eye(seed) for seed in range(40)]
    thumbs = [fingerprint(image).thumb.ravel() for image in eyes]
    assert np.corrcoef(thumbs).min() > 0.995, "the whole thumbnails are alike"
    prints = [dataclasses.replace(fingerprint(image), perceptual=0) for image in eyes]
    assert list(near_duplicates(prints)) == []
    # The same eye, cropped by a hundredth and darker, is one.
    copy = np.asarray(Image.fromarray(eyes[0]).crop((1, 1, 127, 127)).point(lambda v: v * 0.9))
    prints.append(dataclasses.replace(fingerprint(copy), perceptual=0))
    assert list(near_duplicates(prints)) == [(0, 40)]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "cropped"), [("fundus", 0.4), ("covid_cxr", 0.8), ("kermany_cxr", 0.9)]
)
def test_copies_of_real_films(name: str, cropped: float, shared_data: Path) -> None:
    """Recompressed, shrunk, brightened, cropped by a hundredth: found; other patients' films: not."""
    with (shared_data / name / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:100]
    images = [Image.open(shared_data / name / row["image"]).convert("L") for row in rows]
    originals = [fingerprint(np.asarray(image)) for image in images]
    found = list(near_duplicates(originals))
    assert all(rows[a]["patient_id"] == rows[b]["patient_id"] for a, b in found)
    for change, share in ((recompress, 1.0), (brighten, 0.95), (crop, cropped)):
        copies = [fingerprint(change(image)) for image in images]
        pairs = set(near_duplicates([*originals, *copies]))
        caught = sum((k, k + len(images)) in pairs for k in range(len(images)))
        assert caught >= share * len(images), f"{change.__name__}: {caught} of {len(images)}"


def recompress(image: Image.Image) -> np.ndarray:
    file = io.BytesIO()
    image.resize((image.width // 2, image.height // 2)).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


def brighten(image: Image.Image) -> np.ndarray:
    return np.asarray(image.point(lambda v: round(255 * (v / 255) ** 1.3)))


def crop(image: Image.Image) -> np.ndarray:
    x, y = image.width // 100, image.height // 100
    return np.asarray(image.crop((x, y, image.width - x, image.height - y)))


def test_every_pair_is_found_whatever_the_bits() -> None:
    """All pairs within the distance, against a double loop; thumbnails equal so that they pass."""
    rng = np.random.default_rng(0)
    thumb = rng.integers(0, 255, (32, 32), dtype=np.uint8)
    base = [int(v) for v in rng.integers(0, 2**63, 12)]
    hashes = [
        b ^ sum(1 << int(k) for k in rng.choice(64, n, replace=False))
        for b in base
        for n in (0, 3, 6, 9)
    ]
    prints = [Fingerprint("", 1, 1, h, thumb, False) for h in hashes]
    want = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= 6
    }
    got = list(near_duplicates(prints))
    assert len(got) == len(set(got))
    assert set(got) == want


def test_shortcuts_are_named(films: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    many = [films[i % COUNT] for i in range(240)]
    sick = rng.random(240) < 0.5
    marked = []
    for image, label in zip(many, sick, strict=True):
        image = image.copy()
        if label:
            image[:6] = 255  # a burnt-in bar
        marked.append(image)
    labels = sick[:, None].astype(float)
    findings = audit(marked, ["train"] * 240, labels=labels, classes=["sick"],
                 patients=[f"p{i}" for i in range(240)])  # fmt: skip
    assert ("note", 240) in findings["shortcut"]
    fair = audit(many, ["train"] * 240, labels=labels, classes=["sick"],
                 patients=[f"p{i % COUNT}" for i in range(240)])  # fmt: skip
    assert "shortcut" not in fair


def test_an_archive_shows_in_the_names_of_its_files(films: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    many, sick = [films[i % COUNT] for i in range(240)], rng.random(240) < 0.5
    labels = sick[:, None].astype(float)
    more = {
        "labels": labels,
        "classes": ["sick"],
        "patients": [f"p{i % COUNT}" for i in range(240)],
    }
    # Words and folders are the user's names, not evidence of an origin.
    named = [
        f"{'sick' if s else 'healthy'}/{'sick' if s else 'healthy'}-{i}.png"
        for i, s in enumerate(sick)
    ]
    assert "shortcut" not in audit(many, ["train"] * 240, files=named, **more)
    pooled = [f"{i:08x}-1a.dcm" if s else f"IM-{i}-0001.jpeg" for i, s in enumerate(sick)]
    assert ("note", 240) in audit(many, ["train"] * 240, files=pooled, **more)["shortcut"]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a/b/person12_virus_3.jpeg", "a9_a_9.jpeg"),
        ("IM-0115-0001.jpeg", "a-9-9.jpeg"),
        ("œil7.tif", "a9.tif"),
    ],
)
def test_forms_of_names(path: str, form: str) -> None:
    assert name_pattern(path) == form


def test_a_box_that_appears_twice_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    Image.fromarray(np.eye(64, dtype=np.uint8) * 200).save(tmp_path / "b.png")
    (tmp_path / "t.csv").write_text("id,image\na,a.png\nb,b.png\n")
    box = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 10]}
    notes = [{"id": 1, **box}, {"id": 2, **box}, {"id": 3, **box, "category_id": 2}]
    (tmp_path / "boxes.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "nodule"}, {"id": 2, "name": "mass"}], "annotations": notes,
    }))  # fmt: skip
    (tmp_path / "set.yaml").write_text(
        "name: own\nversion: 1\ntable: t.csv\nid: id\nimage: image\npatient: id\n"
        "split: {hash: {train: 0.5, test: 0.5}}\nboxes: boxes.json\n"
    )
    for _ in range(2):  # read, then from the cache
        run(["data", "audit", str(tmp_path / "set.yaml"), "--cache", str(tmp_path / "cache")])
        output = capsys.readouterr().out
        assert "box-twice: 1 boxes are duplicates of another on the same image." in output


def test_an_interrupted_audit_resumes(tmp_path: Path, films: list[np.ndarray]) -> None:
    path, keys = tmp_path / "prints.jsonl", [str(i) for i in range(10)]
    read: list[int] = []

    def reader(i: int) -> Fingerprint:
        read.append(i)
        if i == 6 and len(read) == 7:
            raise KeyboardInterrupt
        if i == 8:
            raise DataError("8.png: unreadable")
        return fingerprint(films[i])

    with pytest.raises(KeyboardInterrupt):
        FingerprintStore(path).compute(keys, reader)
    path.write_text(path.read_text() + '{"key": "6", "pix')  # the line that a kill cut
    again = FingerprintStore(path).compute(keys, reader)
    assert read == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9]
    assert again[8] == "8.png: unreadable"
    plain = FingerprintStore(None).compute(keys[:8], lambda i: fingerprint(films[i]))
    for a, b in zip(again[:8], plain, strict=True):
        assert isinstance(a, Fingerprint)
        assert isinstance(b, Fingerprint)
        assert (a.pixels, a.perceptual, a.width) == (b.pixels, b.perceptual, b.width)
        assert np.array_equal(a.thumb, b.thumb)


POOLED = """
name: pooled
version: 1
table: pooled.csv
root: {root}
id: id
image: image
patient: patient
split: {{hash: {{train: 0.6, val: 0.15, test: 0.25}}}}
labels: {{multilabel: [covid]}}
licence: test
"""


@pytest.mark.slow
@pytest.mark.real
def test_pooled_sites_are_a_shortcut(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """COVID from one archive, normal from another: what the pandemic's first papers did."""
    import csv

    rows = []
    for name, want, label in (
        ("covid_cxr", ("covid19", "1"), 1),
        ("kermany_cxr", ("label", "normal"), 0),
    ):
        with (shared_data / name / "manifest.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row[want[0]] == want[1] and not row.get("duplicate_of"):
                    rows.append((f"{name}-{row['id']}", f"{name}/{row['image']}",
                                 f"{name}-{row['patient_id']}", label))  # fmt: skip
    with (tmp_path / "pooled.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "image", "patient", "covid"), *rows])
    (tmp_path / "pooled.yaml").write_text(POOLED.format(root=shared_data))
    code = run(["data", "audit", str(tmp_path / "pooled.yaml"), "--cache", str(tmp_path / "cache")])
    out = capsys.readouterr().out
    assert code == 0, out
    for kind in ("image size", "grey of the border"):
        assert re.search(rf"'covid' can be predicted from the {kind} alone: AUROC (0\.9|1\.0)", out)
