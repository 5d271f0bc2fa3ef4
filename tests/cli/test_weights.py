"""`ecamp weights`: what a user sees."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ecamp.api.plugin_ref import PluginRef
from ecamp.cli import run
from ecamp.plugin.host import make_plugin


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file as the published pre-training writes it, small."""
    ref = PluginRef.parse("vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8")
    state = make_plugin("ecamp.encoders", ref).build(3).get_submodule("vit").state_dict()
    state |= {"mask_token": torch.zeros(1, 1, 8), "super_res.conv1.bias": torch.zeros(3)}
    path = tmp_path / "ecamp-119.pth"
    torch.save({"model": state, "epoch": 119, "args": argparse.Namespace(lr=1.5e-4)}, path)
    return path


def test_inspect_lists_the_tensors_that_would_be_loaded(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["weights", "inspect", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    assert "ECAMP" in out
    assert "ViT, width 32, depth 2, patch 8, image 32, channels 3" in out
    assert "mask_token (1), super_res (1)" in out
    assert run(["weights", "inspect", str(checkpoint), "-f", "json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["geometry"]["depth"] == 2
    assert info["ignored"] == {"mask_token": 1, "super_res": 1}


def test_convert_writes_weights_and_their_card(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plain.safetensors"
    args = ["weights", "convert", str(checkpoint), "-o", str(out)]
    assert run([*args, "--image-size", "64", "--channels", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(out), str(out.with_suffix(".json"))]
    assert "3 to 1 input channels, summed" in said.err
    assert load_file(out)["pos_embed"].shape == (1, 65, 32)
    # The written file can be read again.
    assert run(["weights", "inspect", str(out)]) == 0
    assert "ViT, width 32, depth 2, patch 8, image 64, channels 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["inspect", "no/such.pth"], 4, "no/such.pth"),
        (["inspect"], 2, "FILE"),
        (["convert", "x.pth"], 2, "--out"),
        (["convert", "{file}", "-o", "{file}.bin"], 2, "safetensors"),
        (["convert", "{file}", "-o", "x.safetensors", "--image-size", "50"], 2, "patch size 8"),
        (["convert", "{file}", "-o", "x.safetensors", "--channels", "2"], 2, "--channels"),
    ],
)
def test_mistakes_are_named(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, message: str
) -> None:
    got = run(["weights", *[arg.format(file=checkpoint) for arg in args]])
    err = capsys.readouterr().err
    assert (got, message in err, "Traceback" in err) == (code, True, False), err
