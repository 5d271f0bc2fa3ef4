"""Masks as PNG and boxes as COCO: read back by other readers, once, and again after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ecamp.api.dataset import Dataset
from ecamp.cli import run
from ecamp.datasets.object_cxr import ObjectCXR
from ecamp.datasets.rsna import RSNA
from ecamp.datasets.siim import SIIM
from ecamp.export.ground_truth import BOXES, TRUTH, write_ground_truth
from ecamp.io.coco import read_coco
from tests.datasets import releases
from tests.export.trees import tree


@pytest.fixture
def rsna(tmp_path: Path) -> Dataset:
    return RSNA(RSNA.Config(root=str(releases.rsna_original(tmp_path).root)))


def test_boxes_as_pycocotools_reads_them(rsna: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = write_ground_truth(rsna, out)
    assert (done.masks, done.boxes, done.new, done.bad) == (12, 6, 12, ())
    coco = COCO(out / BOXES)
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["opacity"]
    by_path = {r.payload.path: r for r in rsna.records()}
    assert {image["file_name"] for image in coco.dataset["images"]} == set(by_path)
    ours = read_coco(out / BOXES)
    for image in coco.dataset["images"]:
        sample = rsna.load(by_path[image["file_name"]], 64)
        assert (image["height"], image["width"]) == sample.image.shape[:2]
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        corners = [
            [x, y, x + w, y + h] for x, y, w, h in (annotation["bbox"] for annotation in found)
        ]
        assert sample.boxes is not None
        assert np.allclose(np.reshape(corners, (-1, 4)), sample.boxes)
        assert np.allclose(ours.by_name[image["file_name"]][0], sample.boxes)
        assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and not a["iscrowd"] for a in found)


@pytest.mark.parametrize("cls", [RSNA, SIIM])
def test_masks_are_those_of_the_set(cls: type[Dataset], tmp_path: Path) -> None:
    release = {RSNA: releases.rsna_original, SIIM: releases.siim_original}[cls](tmp_path)
    dataset = cls(cls.Config(root=str(release.root)))
    write_ground_truth(dataset, tmp_path / "out", workers=2)
    assert (tmp_path / "out" / BOXES).exists() == (cls is RSNA)
    for record in dataset.records():
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{record.id}.png"))
        sample = dataset.load(record, 64)
        assert sample.mask is not None
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, sample.mask[0] * 255)


def test_boxes_alone(tmp_path: Path) -> None:
    release = releases.object_cxr(tmp_path)
    done = write_ground_truth(
        ObjectCXR(ObjectCXR.Config(root=str(release.root))), tmp_path / "new" / "out"
    )
    assert done.masks == 0 < done.boxes == len(COCO(tmp_path / "new/out" / BOXES).anns)


@pytest.mark.slow
def test_classes_have_folders(tmp_path: Path) -> None:
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.plugin.host import make_plugin

    phantom = make_plugin(
        "ecamp.datasets", PluginRef.parse("phantom?pretrain=0&train=2&val=1&test=1")
    )
    done = write_ground_truth(phantom, tmp_path)
    classes = phantom.info.mask_classes
    assert len(classes) > 1
    assert done.masks == 4 * len(classes)
    assert {p.name for p in (tmp_path / "masks").iterdir()} == set(classes)


def test_a_torn_run_resumes_and_a_second_run_changes_nothing(rsna: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_ground_truth(rsna, out)
    whole = tree(out)
    assert write_ground_truth(rsna, out).new == write_ground_truth(rsna, out, verify=True).new == 0
    assert tree(out) == whole
    (out / BOXES).unlink()
    lines = (out / TRUTH).read_text().splitlines(keepends=True)
    (out / TRUTH).write_text("".join(lines[:7]) + lines[7][:30])
    lost = out / next(iter(json.loads(lines[0])["masks"]))
    lost.unlink()
    assert write_ground_truth(rsna, out).new == 6
    assert {name: digest for name, (digest, _) in tree(out).items()} == {
        name: digest for name, (digest, _) in whole.items()
    }
    lost.write_bytes(lost.read_bytes()[:-1])
    assert write_ground_truth(rsna, out).new == 0
    assert write_ground_truth(rsna, out, verify=True).new == 1


def test_another_table_makes_it_anew(rsna: Dataset, tmp_path: Path) -> None:
    write_ground_truth(rsna, tmp_path / "out")
    table = Path(rsna.config.root) / "stage_2_train_labels.csv"
    text = table.read_text()
    table.write_text(text.replace("64.0,128.0,448.0,128.0", "0.0,128.0,512.0,128.0"))
    assert table.read_text() != text
    again = write_ground_truth(RSNA(RSNA.Config(root=rsna.config.root)), tmp_path / "out")
    assert again.new == 12
    box = json.loads((tmp_path / "out" / BOXES).read_text())["annotations"][0]["bbox"]
    assert box == [0, 8, 32, 8]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = releases.rsna_original(tmp_path).root
    out = tmp_path / "out"
    command = ["data", "prepare", "rsna", "--from", str(root), "-o", str(out), "--workers", "1"]
    assert run(command) == 0
    assert "12 masks, 6 boxes, 0 bad" in capsys.readouterr().out
    held = tree(out)
    assert run(command) == 0
    assert tree(out) == held
    bad = next((root / "stage_2_train_images").iterdir())
    bad.write_bytes(bad.read_bytes()[:200])
    assert run(command) == 1
    output = capsys.readouterr().out
    assert bad.name in output
    (root / "stage_2_train_labels.csv").unlink()
    (out / "stage_2_train_labels.csv").unlink()
    assert run([*command, "--no-truth"]) == 1
    assert "no masks and boxes" not in capsys.readouterr().out
    assert run(command) == 1
    output = capsys.readouterr().out
    assert "no masks and boxes" in output
    assert "stage_2_train_labels.csv" in output
