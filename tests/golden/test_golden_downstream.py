"""The golden checks of the published downstream pieces: they pass, and they can fail."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden import recipe

FILES = {name: f"{name}.npz" for name in ("seg_loss", "det_loss", "schedules", "metrics")}


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    folder = shared_data.parent / "golden" / "dev"
    if not folder.is_dir():
        pytest.skip("the golden vectors are not on this machine")
    return folder


def failures(module: str, folder: Path) -> list[str]:
    checks = list(importlib.import_module(f"tests.golden.{module}").checks(folder))
    assert len(checks) > 5
    return [check.line() for check in checks if not check.passed]


@pytest.mark.real
@pytest.mark.parametrize("module", FILES)
def test_our_arithmetic_is_the_published_one(golden: Path, module: str) -> None:
    assert failures(module, golden) == []


@pytest.mark.real
@pytest.mark.slow
def test_full_size_models_are_the_published_ones(golden: Path) -> None:
    assert failures("finetune", golden) == []


@pytest.mark.real
@pytest.mark.parametrize(
    ("module", "vector"),
    [
        ("seg_loss", "soft/f64/mixed_a10_g2"),
        ("seg_loss", "dice_metric/get_dice_t0.5"),
        ("det_loss", "rsna/scale1/f64/parts"),
        ("det_loss", "rsna/scale0/assigned_tx_ty_tw_th"),
        ("det_loss", "nms_dense/c0.5_n0.5/boxes"),
        ("schedules", "pretrain_loop/lr_per_batch"),
        ("metrics", "random_boxes/torchmetrics0.7.2/all/map_medium"),
        ("metrics", "classification/multilabel14/valid_loss"),
    ],
)
def test_a_changed_vector_fails(golden: Path, tmp_path: Path, module: str, vector: str) -> None:
    with np.load(golden / FILES[module]) as file:
        arrays = {name: file[name] for name in file.files}
    arrays[vector] = arrays[vector] * (1 + 1e-4)
    np.savez(tmp_path / FILES[module], **arrays)
    assert any(vector in line for line in failures(module, tmp_path))


@pytest.mark.real
@pytest.mark.parametrize("module", FILES)
def test_an_unknown_vector_fails(golden: Path, tmp_path: Path, module: str) -> None:
    with np.load(golden / FILES[module]) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(tmp_path / FILES[module], **arrays, **{"nobody/knows": np.zeros(3)})
    assert ["nobody/knows" in line for line in failures(module, tmp_path)] == [True]


@pytest.mark.real
def test_recipe_weights_have_the_recorded_hash(golden: Path) -> None:
    meta = json.loads((golden / "meta.json").read_text())["fusion"]["base768"]
    made = recipe.weights(meta["weight_shapes"], meta["weight_seed"])
    got = {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in made.items()}
    assert got == meta["weight_sha256"]


def test_recipe_kinds() -> None:
    assert recipe.kind_of("norm.weight", (4,)) == "ln"
    assert recipe.kind_of("bn.running_var", (4,)) == "ln"
    assert recipe.kind_of("bn.running_mean", (4,)) == "vec"
    assert recipe.kind_of("cls_token", (1, 1, 4)) == "emb"
    assert recipe.kind_of("blocks.0.attn.qkv.weight", (12, 4)) == "mat"
    assert recipe.make("x", (5,), 3).dtype == np.float32
    with pytest.raises(ValueError, match="known: ln, vec"):
        recipe.make("x", (5,), 3, "nothing")
