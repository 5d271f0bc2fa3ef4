"""The toy dual encoder as an installed package, and planted films with reports on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.tasks.planted import Planted


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the toy dual encoder, installed."""
    site = tmp_path / "site"
    (site / "toy_dual-1.0.dist-info").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("toy_dual.py"), site)
    info = site / "toy_dual-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-dual\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ecamp.encoders]\ntoy = toy_dual:Plugin\n")
    monkeypatch.syspath_prepend(str(site))
    return "toy"


@pytest.fixture
def planted_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes planted films with labels and reports; returns the dataset.yaml."""

    def write(kind: str = "multilabel", count: int = 120) -> Path:
        folder = tmp_path / f"films-{kind}"
        folder.mkdir()
        data = Planted(count)
        lines = ["id,image,patient,split,square,ground,kind,report"]
        for i, (square, ground) in enumerate(data.multilabel.astype(int)):
            Image.fromarray(data.images[i, :, :, 0]).save(folder / f"{i}.png")
            said = f"{'A' if square else 'No'} square. {'Bright' if ground else 'Dark'} ground."
            # Eight images per patient, which stay together.
            split = ("train", "val", "test", "test")[i // 8 % 4]
            name = ("none", "square_on_dark", "square_on_bright")[int(data.multiclass[i].argmax())]
            lines.append(f"{i},{i}.png,p{i // 8},{split},{square},{ground},{name},{said}")
        (folder / "table.csv").write_text("\n".join(lines) + "\n")
        labels = {
            "multilabel": "{multilabel: [square, ground]}",
            "multiclass": "{multiclass: kind, classes: [none, square_on_dark, square_on_bright]}",
        }[kind]
        (folder / "dataset.yaml").write_text(
            "name: films\ntable: table.csv\nid: id\nimage: image\npatient: patient\n"
            f"split: {{column: split}}\nlabels: {labels}\nreports: [report]\n"
        )
        return folder / "dataset.yaml"

    return write
