"""A stranger's encoder is pre-trained, evaluated, continued and inspected as ours are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from ecamp.cli import run
from ecamp.testing.contract import check_plugin
from tests.encoders.test_hf_clip import _write as write_clip
from tests.plugin.packages import run_ecamp
from tests.plugin.strangers import install_strangers

PHANTOM = "phantom?pretrain=32&train=24&val=12&test=12"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = install_strangers(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    return site


def _pretrain(out: Path, encoder: str, *extra: str, data: str = "tinted") -> list[str]:
    return [
        "pretrain", "--encoder", encoder, "--pretext", "brightness", "--data", data, "--steps", "2",
        "--set", "batch_size=8", "--out", str(out), *extra,
    ]  # fmt: skip


def _bench(
    run_folder: Path, encoder: str, pretext: str, data: str = "tinted", protocols: str = "finetune"
) -> list[str]:
    return [
        "bench", "--tasks", "cls", "--datasets", data, "--encoders", encoder, "--pretext", pretext,
        "--protocols", protocols, "--fractions", "1", "--seeds", "0", "--bootstrap", "100",
        "--run", str(run_folder),
    ]  # fmt: skip


def _card(weights: Path) -> dict:
    with safe_open(weights, "np") as file:
        return json.loads(file.metadata()["ecamp"])


@pytest.mark.parametrize("options", ["", "?colours=true"])
def test_encoders_that_state_their_input_keep_the_contract(options: str) -> None:
    check_plugin("ecamp.encoders", f"strider{options}")


@pytest.mark.slow
@pytest.mark.parametrize("data", ["tinted", PHANTOM])
def test_images_reach_every_module_channel_by_channel(
    strangers: Path, tmp_path: Path, data: str
) -> None:
    """In a process of its own: torch's backward pass of its first layer crashes on other strides."""
    for command in (
        _pretrain(tmp_path / "out", "strider", "--preview", "2", data=data),
        _bench(tmp_path / "run", "strider", f"none,weights?path={tmp_path}/out/weights.safetensors", data),
    ):  # fmt: skip
        done = run_ecamp(strangers, *command)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder", ["strider?width=6", "timm/resnet18?image_size=32", "hf-clip/tiny"]
)
def test_what_pretrain_writes_is_evaluated_continued_and_inspected(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.setenv("ECAMP_MODELS", str(tmp_path))
    write_clip(tmp_path / "tiny")
    assert run(_pretrain(tmp_path / "out", encoder)) == 0
    weights = tmp_path / "out" / "weights.safetensors"
    capsys.readouterr()
    assert run(["weights", "inspect", str(weights), "-f", "json"]) == 0
    info = json.loads(capsys.readouterr().out)
    card = info["card"]
    assert card == _card(weights)
    assert (info["kind"], info["ignored"]) == ("ecamp", {})
    assert card["encoder"] == encoder
    assert card["plugin"]["group"] == "ecamp.encoders"
    assert card["plugin"]["dist"] == ("stranger-strider" if "strider" in encoder else "ecamp")
    assert {"version", "code"} <= card["plugin"].keys()
    assert (card["image_size"], card["channels"], card["format"]) == (32, 3, 1)
    assert card["pretext"] == "brightness"
    assert card["normalisation"] == [
        {"data": "tinted/1", "mean": [0.5, 0.4, 0.3], "std": [0.2] * 3}
    ]
    assert run(["weights", "inspect", str(weights)]) == 0
    assert f"encoder  {encoder}\n" in capsys.readouterr().out

    moved = tmp_path / "moved.safetensors"
    shutil.copyfile(weights, moved)
    assert run(_bench(tmp_path / "run", encoder, f"weights?path={moved}", protocols="linear")) == 0
    count = len(load_file(weights))
    assert (
        f"brightness: {count} tensors loaded, 0 of them changed, 0 left out"
        in capsys.readouterr().err
    )
    results = [json.loads(p.read_text()) for p in (tmp_path / "run").glob("cells/*/result.json")]
    assert sum(r["cell"]["pretext"].startswith("weights@") for r in results) == 1

    warm = _pretrain(tmp_path / "warm", encoder, "--init-from", str(weights), "--set", "lr=1e-12")
    assert run(warm) == 0
    after = load_file(tmp_path / "warm" / "weights.safetensors")
    for name, value in load_file(weights).items():
        if "running" not in name and "num_batches" not in name:
            np.testing.assert_allclose(after[name], value, atol=1e-6)


@pytest.mark.slow
def test_a_file_of_another_encoder_is_refused_by_name(tmp_path: Path, capsys: Capture) -> None:
    assert run(_pretrain(tmp_path / "out", "strider")) == 0
    weights = tmp_path / "out" / "weights.safetensors"
    capsys.readouterr()

    def refused(command: list[str], code: int) -> str:
        try:
            got: object = run(command)
        except SystemExit as stop:
            got = stop.code
        said = capsys.readouterr().err
        assert (got, str(weights) in said, "Traceback" in said) == (code, True, False), said
        return said

    for other in ("timm/resnet18?image_size=32", "vit-micro"):
        said = refused(_bench(tmp_path / "run", other, f"weights?path={weights}"), 2)
        assert "weights of encoder 'strider' (stranger-strider 1.0)" in said
        assert "this pair is left out" in said
        assert f"not of '{other}'" in said
        said = refused(_pretrain(tmp_path / "x", other, "--init-from", str(weights)), 2)
        assert "'strider'" in said
    wide = "strider?width=12"
    for said in (
        refused(_bench(tmp_path / "run", wide, f"none,weights?path={weights}"), 3),
        refused(_pretrain(tmp_path / "x", wide, "--init-from", str(weights)), 1),
    ):
        assert "first.weight: file (8, 3, 1, 1), encoder (12, 3, 1, 1)" in said
        assert "'strider' (stranger-strider 1.0) do not fit the encoder 'strider?width=12'" in said
    said = refused(
        _pretrain(tmp_path / "x", "strider", "--init-from", str(weights), data=PHANTOM), 1
    )
    assert "for 3 input channels, the images have 1" in said
    assert run(_pretrain(tmp_path / "y", "strider?slope=0.5", "--init-from", str(weights))) == 0
    assert "its encoder differs: slope 0.0 in the file, 0.5 here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_input_that_weights_expect_is_used_and_part_of_identities(
    tmp_path: Path, capsys: Capture
) -> None:
    runs = {}
    for name in ("strider", "strider?colours=true", "strider?fit=crop"):
        out = tmp_path / str(len(runs))
        assert run(_pretrain(out, name, data=PHANTOM)) == 0
        assert run(_bench(out / "run", name, "none", "tinted")) == 0
        plan = json.loads((out / "pretrain.json").read_text())
        runs[name] = _card(out / "weights.safetensors"), plan["key"]
    card, _ = runs["strider?colours=true"]
    assert card["channels"] == 3  # of grey films
    assert card["expected"]["mean"] == [0.485, 0.456, 0.406]
    assert card["normalisation"][0]["std"] == [0.229, 0.224, 0.225]
    assert runs["strider?fit=crop"][0]["expected"]["fit"] == "crop"
    assert len({key for _, key in runs.values()}) == 3
    capsys.readouterr()
    assert run(["weights", "inspect", str(tmp_path / "1" / "weights.safetensors")]) == 0
    assert "32 px, channels 3, fit pad, mean and std of the encoder" in capsys.readouterr().out
