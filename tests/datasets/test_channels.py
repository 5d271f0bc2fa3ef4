"""Images of other numbers of channels: stacks of slices, from dataset.yaml to a bench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.api.plugin import PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.cli import run
from ecamp.data.arrays import materialise
from ecamp.errors import DataError
from ecamp.export.pack import pack
from ecamp.io.images import as_rgb
from ecamp.plugin.host import make_plugin
from tests.data.test_truths import Films

COLUMNS = ["below", "here", "above", "far"]


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Twelve images of four grey slices each; `sick` shows in the third slice only."""
    rng = np.random.default_rng(0)
    lines = [",".join(["id", "who", "split", "sick", *COLUMNS])]
    for i in range(12):
        paths = []
        for k, column in enumerate(COLUMNS):
            pixels = rng.integers(0, 120, (24, 30)).astype(np.uint8)
            if column == "above" and i % 2:
                pixels[8:16, 8:16] = 250
            Image.fromarray(pixels).save(tmp_path / f"{i}-{k}.png")
            paths.append(f"{i}-{k}.png")
        lines.append(f"{i},p{i},{['train', 'val', 'test'][i // 4]},{i % 2}," + ",".join(paths))
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    layout = {
        "name": "stack", "table": "t.csv", "id": "id", "image": COLUMNS, "patient": "who",
        "split": {"column": "split"}, "labels": {"multilabel": ["sick"]},
    }  # fmt: skip
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(layout))
    return tmp_path / "dataset.yaml"


def test_columns_are_stacked_in_their_order(stack: Path) -> None:
    dataset = make_plugin("ecamp.datasets", PluginRef.parse(str(stack)))
    assert dataset.info.channels == 4
    assert len(dataset.info.mean) == 4
    image = dataset.load(dataset.records()[1], 24).image
    assert image.shape == (24, 30, 4)
    for k in range(4):
        stored = np.asarray(Image.open(stack.parent / f"1-{k}.png"))
        np.testing.assert_array_equal(image[..., k], stored)


@pytest.mark.slow
def test_a_stack_is_benchmarked_packed_and_shown(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vit = "vit-micro?image_size=32&patch_size=8&width=32&depth=1&heads=2"
    code = run([
        "bench", "--tasks", "cls", "--datasets", str(stack), "--pretrain-data", str(stack),
        "--encoders", vit, "--pretext", "none,mae?steps=2&batch_size=4&scale=1", "--protocols",
        "linear,finetune", "--fractions", "1", "--seeds", "0", "--bootstrap", "100",
        "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"),
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    cells = [json.loads(p.read_text()) for p in (tmp_path / "run").glob("cells/*/result.json")]
    assert {cell["cell"]["protocol"] for cell in cells} == {"linear", "finetune", "-"}
    dataset = make_plugin("ecamp.datasets", PluginRef.parse(str(stack)))
    pack(dataset, tmp_path / "pack", 32, workers=1)
    packed = make_plugin("ecamp.datasets", PluginRef.parse(f"packed?path={tmp_path / 'pack'}"))
    assert packed.load(packed.records()[0], 32).image.shape == (32, 32, 4)
    assert run(["data", "show", str(stack), "-o", str(tmp_path / "sheet.png"), "--size", "32"]) == 0
    assert run(["data", "audit", str(stack), "--images", "--cache", str(tmp_path / "cache")]) in (
        0,
        5,
    )


def test_slices_of_two_sizes_are_refused_with_their_row(stack: Path) -> None:
    Image.new("L", (10, 10)).save(stack.parent / "3-2.png")
    dataset = make_plugin("ecamp.datasets", PluginRef.parse(str(stack)))
    with pytest.raises(DataError, match=r"line 5: '3-2.png' is 10x10, '3-0.png' 30x24"):
        dataset.load(dataset.records()[3], 24)


class Volumes(Films):
    """Data set whose images have one axis too many, or 16 bits."""

    wrong = "volume"

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("volumes", "1")

    def records(self) -> list[Record]:
        return [Record(str(i), f"p{i}", "train", f"row {i}") for i in range(2)]

    def load(self, record: Record, size: int) -> Sample:
        if self.wrong == "volume":
            return Sample(np.zeros((4, 8, 8, 1), np.uint8))
        return Sample(np.zeros((8, 8, 1), np.uint16))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("volume", r"0 .row 0.: the image has shape .4, 8, 8, 1.*(?s:.)*Volumes are not read"),
     ("bits", r"0 .row 0.: pixels are uint16, not uint8")],
)  # fmt: skip
def test_what_is_no_image_is_refused_in_a_sentence(
    wrong: str, message: str, tmp_path: Path
) -> None:
    dataset = Volumes(PluginConfig())
    dataset.wrong = wrong
    with pytest.raises(DataError, match=message):
        materialise(dataset, 8, splits=["train"], cache=tmp_path, workers=1)


def test_the_middle_channel_of_a_stack_is_shown() -> None:
    image = np.arange(2 * 2 * 5, dtype=np.uint8).reshape(2, 2, 5)
    np.testing.assert_array_equal(as_rgb(image), np.repeat(image[..., 2:3], 3, axis=2))
    assert as_rgb(image[..., :3]) is not None
    np.testing.assert_array_equal(as_rgb(image[..., :3]), image[..., :3])
