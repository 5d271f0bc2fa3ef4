"""`ecamp pretrain` and `ecamp ablate`: what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from ecamp.cli import run

SMALL = "phantom?pretrain=64&train=48&val=32&test=48"
ENCODER = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"
Capture = pytest.CaptureFixture[str]
NOTES = Path(__file__).parents[1] / "datasets" / "covid_notes.yaml"


def _pretrain(out: Path, *extra: str, pretext: str = "ecamp", data: str = SMALL) -> list[str]:
    return [
        "pretrain", "--encoder", ENCODER, "--pretext", pretext, "--data", data, "--steps", "4",
        "--set", "batch_size=8", "--out", str(out), "--cache", str(out.parent / "cache"), *extra,
    ]  # fmt: skip


@pytest.mark.slow
def test_pictures_and_curves_are_drawn_and_do_not_change_the_weights(tmp_path: Path):
    assert run(_pretrain(tmp_path / "plain")) == 0
    pictured = _pretrain(tmp_path / "other" / "pictured", "--preview", "3")
    assert run(pictured) == 0
    folder = tmp_path / "other" / "pictured"
    names = sorted(path.name for path in (folder / "preview").iterdir())
    assert names == ["losses.png", *(f"step-{step:06d}.png" for step in range(5))]
    for name in names:
        with Image.open(folder / "preview" / name) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 200
        assert pixels.std() > 10
    plain = (tmp_path / "plain" / "weights.safetensors").read_bytes()
    assert (folder / "weights.safetensors").read_bytes() == plain


@pytest.mark.slow
def test_a_recipe_file_single_fields_and_a_warm_start(tmp_path: Path, capsys: Capture):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 1\nlr: 0.002\naccumulate: 2\n")
    command = _pretrain(tmp_path / "a", "--recipe", str(recipe), "--set", "lr=0.003", pretext="mae")
    command[command.index("--steps") : command.index("--steps") + 2] = []
    assert run(command) == 0
    written = json.loads((tmp_path / "a" / "pretrain.json").read_text())
    assert written["steps"] == 8  # 64 pairs, 8 a step
    assert (written["recipe"]["lr"], written["recipe"]["accumulate"]) == (0.003, 2)

    start = tmp_path / "a" / "weights.safetensors"
    warm = ["--init-from", str(start), "--set", "lr=1e-12"]
    assert run(_pretrain(tmp_path / "warm", *warm, pretext="ecamp")) == 0
    before, after = load_file(start), load_file(tmp_path / "warm" / "weights.safetensors")
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-6)
    capsys.readouterr()
    assert run(_pretrain(tmp_path / "b", "--init-from", str(tmp_path / "none.pth"))) == 4
    assert "none.pth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "lr"], "'lr' has no value"),
        (["--set", "learning=1"], "unknown key 'learning'"),
        (["--recipe", "publishd"], "Did you mean 'published'"),
        (["--set", "precision=int8"], "precision"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, capsys: Capture, extra: list[str], message: str):
    assert run(_pretrain(tmp_path / "out", *extra)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_each_seed_of_an_ablation_pretrains_anew(tmp_path: Path, capsys: Capture):
    command = [
        "ablate", "--parts", "ecamp-no-rebalance,none", "--data", SMALL, "--datasets", SMALL,
        "--encoder", ENCODER, "--tasks", "cls", "--fractions", "1", "--seeds", "0,1", "--steps", "2",
        "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "-f", "json",
    ]  # fmt: skip
    assert run(command) == 0
    rows = {row["pretext"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"ecamp", "ecamp-no-rebalance", "none"}
    assert rows["ecamp"]["delta"] is None
    assert rows["none"]["delta"] is not None
    cards = [
        json.loads(path.read_text()) for path in (tmp_path / "run").glob("pretrain/*/pretrain.json")
    ]
    assert sorted(card["recipe"]["seed"] for card in cards) == [0, 0, 1, 1]
    pictures = list((tmp_path / "run").glob("pretrain/*/preview/step-000002.png"))
    assert len(pictures) == 4


@pytest.mark.slow
@pytest.mark.real
def test_real_notes_and_phantom_pooled_all_losses_fall(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ECAMP_DATA", str(shared_data))
    command = _pretrain(tmp_path / "out", data=f"phantom?pretrain=264&train=6&val=6&test=6,{NOTES}")
    command[command.index("--steps") + 1] = "60"
    command[command.index("batch_size=8")] = "batch_size=32"
    assert run(command) == 0
    err = capsys.readouterr().err
    assert "68 images without a report are left out" in err
    assert "60 steps on 400 pairs" in err
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    for name in ("mim", "sr", "mlm"):
        assert lines[-1][name] < 0.95 * lines[0][name], name
