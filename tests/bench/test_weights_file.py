"""`--pretext weights?path=FILE`: imported weights are evaluated like pre-trained ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ecamp.api.plugin_ref import PluginRef
from ecamp.cli import run
from ecamp.encoders.checkpoints import load_encoder
from ecamp.plugin.host import make_plugin

SMALL = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"  # that of `small_bench`


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Published layout, three channels, another grid: both must be made to fit."""
    torch.manual_seed(5)
    ref = PluginRef.parse(SMALL.replace("image_size=32", "image_size=48"))
    vit = make_plugin("ecamp.encoders", ref).build(3).get_submodule("vit")
    path = tmp_path / "published.pth"
    torch.save({"model": {**vit.state_dict(), "mask_token": torch.zeros(1, 1, 4)}}, path)
    return path


def cells(folder: Path) -> dict[str, dict]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in folder.glob("cells/*/result.json")
    }


@pytest.mark.slow
def test_a_file_is_evaluated_and_known_by_its_content(
    checkpoint: Path, tmp_path: Path, small_bench: list[str]
) -> None:
    def bench(name: str, file: Path) -> dict[str, dict]:
        out = tmp_path / name
        args = ["--tasks", "cls", "--pretext", f"none,weights?path={file}", "--run", str(out)]
        assert run([*small_bench, *args]) == 0
        return cells(out)

    first = bench("first", checkpoint)
    labels = {cell["cell"]["pretext"] for cell in first.values()}
    (label,) = [name for name in labels if name.startswith("weights")]
    assert label.startswith("weights@")
    assert not any(str(tmp_path) in json.dumps(cell) for cell in first.values())
    (card,) = (tmp_path / "first").glob("pretrain/*/pretrain.json")
    assert json.loads(card.read_text())["imported"]["file"] == "published.pth"

    moved = tmp_path / "elsewhere" / "other-name.pth"
    moved.parent.mkdir()
    shutil.copyfile(checkpoint, moved)
    assert set(bench("second", moved)) == set(first)
    state = torch.load(checkpoint, weights_only=True)
    state["model"]["norm.bias"] += 1
    torch.save(state, moved)
    assert set(bench("third", moved)) != set(first)


def test_the_features_are_those_of_the_file(checkpoint: Path) -> None:
    from ecamp.bench.features import build_encoder
    from ecamp.bench.plan import make_plan
    from ecamp.config import BenchSpec

    spec = BenchSpec(
        tasks=["cls"], encoders=SMALL, pretext=f"weights?path={checkpoint}", seeds=[0, 1]
    )
    plan = make_plan(spec)
    mine = [cell for cell in plan.cells if cell.kind == "cell"]
    expected = make_plugin("ecamp.encoders", PluginRef.parse(SMALL)).build(1).eval()
    load_encoder(expected, checkpoint)
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        for cell in mine:
            assert torch.equal(build_encoder(cell, 1, None)(images).pooled, expected(images).pooled)


def test_a_file_that_does_not_fit_fails_its_cells_and_stays(
    checkpoint: Path, tmp_path: Path, small_bench: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [a.replace("width=32", "width=48") for a in small_bench]
    out = tmp_path / "run"
    pretext = f"none,weights?path={checkpoint}"
    with pytest.raises(SystemExit) as stop:
        run([*arguments, "--tasks", "cls", "--pretext", pretext, "--run", str(out)])
    assert stop.value.code == 3
    assert "cls_token: file (1, 1, 32), encoder (1, 1, 48)" in capsys.readouterr().err
    assert checkpoint.exists()
    assert cells(out)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["bench", "--pretext", "weights?path=no/such.pth"], 4, "no/such.pth"),
        (["bench", "--pretext", "weights"], 2, "path"),
        (
            ["bench", "--encoders", "timm/resnet18", "--pretext", "weights?path={file}"],
            2,
            "visible",
        ),
        (["pretrain", "--encoder", SMALL, "--pretext", "weights?path={file}"], 2, "trains nothing"),
    ],
)
def test_mistakes_are_named(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, message: str
) -> None:
    got = run([arg.format(file=checkpoint) for arg in args])
    err = capsys.readouterr().err
    assert (got, message in err, "Traceback" in err) == (code, True, False), err
