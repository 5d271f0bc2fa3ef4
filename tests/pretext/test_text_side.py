"""A text side that a pretext task adds: saved whole, evaluated by the protocols that need it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ecamp.api.plugin_ref import PluginRef
from ecamp.cli import run
from ecamp.testing.contract import check_plugin
from tests.plugin.packages import fake_package

VIT = "vit-micro?image_size=32&patch_size=8&width=32&depth=1&heads=2"
DATA = "phantom?pretrain=64&train=24&val=12&test=24"


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Installs the stranger's package."""
    body = (Path(__file__).parent / "toy_clip.py").read_text()
    fake_package(tmp_path / "site", "toy-clip", "ecamp.pretext", "my-clip", body)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "my-clip?joint_width=32&steps=150&batch_size=32&scale=1&lr=3e-3"


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, dict]]:
    """Runs a bench; returns the results of its cells by task and pretext, and what it said."""

    def command(name: str, pretext: str, tasks: str = "ret,cls") -> dict[str, dict]:
        code = run([
            "bench", "--tasks", tasks, "--datasets", DATA, "--pretrain-data", DATA, "--encoders", VIT,
            "--pretext", pretext, "--protocols", "zero-shot,linear", "--fractions", "1", "--seeds", "0",
            "--bootstrap", "100", "--run", str(tmp_path / name), "--cache", str(tmp_path / "cache"),
        ])  # fmt: skip
        said = capsys.readouterr().err
        assert code == 0, said
        cells = [json.loads(p.read_text()) for p in (tmp_path / name).glob("cells/*/result.json")]
        found = {
            f"{c['cell']['task']} {c['cell']['protocol']} {c['cell']['pretext'].partition('?')[0]}": c
            for c in cells
            if c["kind"] == "cell"
        }
        return {**found, "said": {"text": said}}

    return command


@pytest.mark.slow
def test_a_pretext_adds_a_text_side_that_is_evaluated_and_kept(
    clip: str, bench: Callable[..., dict[str, dict]], tmp_path: Path
) -> None:
    found = bench("run", f"none,{clip}")
    assert set(found) == {
        "said", "cls linear none", "cls linear my-clip", "cls zero-shot my-clip",
        "ret zero-shot my-clip",
    }  # fmt: skip
    assert "has no 'text': ret zero-shot is left out" in found["said"]["text"]
    retrieved = found["ret zero-shot my-clip"]["metrics"]
    # 150 steps teach little, but more than chance, on the phantom's reports.
    chance = sum(retrieved[f"chance_recall@{k}"]["value"] for k in (1, 5, 10)) / 3
    assert retrieved["mean_recall"]["value"] > chance
    (weights,) = (tmp_path / "run" / "pretrain").glob("*/weights.safetensors")
    again = bench("again", f"weights?path={weights}")
    for name in ("ret zero-shot", "cls zero-shot", "cls linear"):
        mine = found[f"{name} my-clip"]["metrics"]
        (theirs,) = (v["metrics"] for k, v in again.items() if k.startswith(name))
        assert theirs == mine


@pytest.mark.slow
def test_weights_with_a_text_side_are_not_continued_in_silence(
    clip: str,
    bench: Callable[..., dict[str, dict]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench("run", clip, tasks="ret")
    (weights,) = (tmp_path / "run" / "pretrain").glob("*/weights.safetensors")
    code = run([
        "pretrain", "--encoder", VIT, "--pretext", "mae?steps=2", "--data", DATA, "--init-from",
        str(weights), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"),
    ])  # fmt: skip
    assert code == 2
    said = capsys.readouterr().err
    assert "an encoder with 'text', added by 'my-clip" in said
    assert "weights?path=" in said


def test_it_keeps_the_contract(clip: str, tmp_path: Path) -> None:
    check_plugin("ecamp.pretext", str(PluginRef.parse("my-clip?joint_width=8")), tmp_path)
