"""Images from disk to arrays of 224: a folder of JPEG files, and the same packed, against Pillow.

    pytest benchmarks/bench_loading.py

Bare: Pillow opens, decodes, resizes (bicubic), nothing else. Ours also checks the row, keeps the
proportions, and gives a `Sample`. One thread; files are in the page cache on both sides.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import interleave, measure
from ecamp.api.dataset import Dataset
from ecamp.api.plugin_ref import PluginRef
from ecamp.data.decoding import check_sample
from ecamp.data.letterbox import letterbox
from ecamp.export.pack import pack
from ecamp.plugin.host import make_plugin

SIZE, COUNT = 224, 200


@pytest.fixture(scope="module")
def films() -> Path:
    """Make the development set of JPEG films."""
    root = Path(os.environ.get("ECAMP_SHARED", Path(__file__).parents[2] / "shared"))
    folder = root / "data" / "covid_cxr"
    if not folder.is_dir():
        pytest.skip("the development data (ECAMP_SHARED, or ../shared) is not on this machine")
    return folder


@pytest.fixture(scope="module")
def folder_set(films: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a data set of images and a label as its YAML file."""
    folder = tmp_path_factory.mktemp("set")
    with (films / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image"].endswith(".jpg")][:COUNT]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "patient", "sick"])
        writer.writerows([[k, row["image"], k, k % 2] for k, row in enumerate(rows)])
    description = {
        "name": "films", "table": "table.csv", "root": str(films), "id": "id", "image": "image",
        "patient": "patient", "split": {"hash": {"train": 0.6, "val": 0.2, "test": 0.2}},
        "labels": {"multilabel": ["sick"]},
    }  # fmt: skip
    (folder / "set.yaml").write_text(json.dumps(description))
    return str(folder / "set.yaml")


def test_loading(
    benchmark: BenchmarkFixture, films: Path, folder_set: str, tmp_path_factory: pytest.TempPathFactory
) -> None:  # fmt: skip
    plain = make_plugin("ecamp.datasets", PluginRef.parse(folder_set))
    folder = tmp_path_factory.mktemp("pack")
    pack(plain, folder, SIZE, workers=1)
    packed = make_plugin("ecamp.datasets", PluginRef.parse(f"packed?path={folder}"))
    paths = [films / record.payload.path for record in plain.records()]
    assert len(paths) == COUNT

    def bare() -> list[np.ndarray]:
        out = []
        for path in paths:
            with Image.open(path) as image:
                grey = image.convert("L").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
                out.append(np.asarray(grey))
        return out

    def load(dataset: Dataset) -> list[np.ndarray]:
        return [
            letterbox(check_sample(dataset, record, SIZE), SIZE).image
            for record in dataset.records()
        ]

    measure(
        f"loading a folder, {COUNT} films",
        lambda: load(plain),
        {"bare Pillow": bare},
        benchmark=benchmark,
        rounds=15,
    )
    # Microseconds per image, mostly the page cache: too unsteady a ratio to be stored.
    ratios, _ = interleave(lambda: load(packed), {"bare Pillow": bare}, 7)
    print(f"loading a pack, {COUNT} films: {ratios['bare Pillow']:.0f}x bare Pillow")
    assert ratios["bare Pillow"] >= 5
