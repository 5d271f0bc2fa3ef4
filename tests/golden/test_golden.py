"""The golden checker: our arithmetic passes it, and it can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from ecamp.encoders.timm import ViTEncoder
from ecamp.errors import DataError
from ecamp.published.pretraining.keys import to_published
from ecamp.published.pretraining.model import PublishedModel
from tests.golden.__main__ import CHECKS, file_checks, folder_checks, main
from tests.golden.check import Check, compare
from tests.golden.compared import gradient_floor
from tests.golden.model_sizes import model_of_shapes
from tests.golden.recipe import kind_of, make
from tests.golden.slices import take
from tests.golden.text_branch import text_config

PRETRAINING = list(CHECKS)[:8]


def _failed(folder: Path, name: str) -> list[Check]:
    return [check for check in file_checks(folder, name) if not check.passed]


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINING)
def test_our_arithmetic_gives_the_recorded_vectors(golden: Path, name: str):
    every = list(file_checks(golden, name))
    assert [check.line() for check in every if not check.passed] == []
    assert len(every) > 3


@pytest.fixture
def copy(golden: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies files of the golden folder to where they may be spoilt."""

    def make(*names: str) -> Path:
        for name in ("meta.json", *names):
            shutil.copy(golden / name, tmp_path / name)
            (tmp_path / name).chmod(0o644)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("vector", "error"),
    [
        ("small/f64/output", 1e-8),
        ("small/f64r/grad/merge_me", None),
        ("small/f32/mid/gap_mlp", 1e-4),
        ("small/weight/gap_mlp.weight", 1e-6),
        ("small/in/gap_token", 1e-2),
    ],
)
def test_a_changed_or_unknown_vector_fails(copy: Callable[..., Path], vector: str, error: float):
    folder = copy("fusion.safetensors")
    vectors = load_file(folder / "fusion.safetensors")
    if error is None:
        vectors[vector] = np.ones(3, np.float32)
    else:
        vectors[vector].flat[0] += error * np.abs(vectors[vector]).max()
    save_file(vectors, folder / "fusion.safetensors")
    failed = _failed(folder, "fusion.safetensors")
    assert failed
    if error is None:
        assert [c.note for c in failed] == ["unknown vector"]
        assert vector in failed[0].name
    elif "/f" in vector:
        assert {c.name.split(" ")[0] for c in failed} == {f"fusion.safetensors/{vector}"}


@pytest.mark.parametrize(
    ("field", "spoil"),
    [
        ("masked_ids", lambda run: run["masked_ids"].__setitem__(1, 7)),
        ("weights", lambda run: run["weights"].__setitem__(0, 1.000001)),
        ("draws", lambda run: run["draws"].pop()),
        ("sentence", lambda run: run.update(sentence=run["sentence"] + ".")),
        ("colour", lambda run: run.update(colour="blue")),
    ],
)
def test_a_changed_or_unknown_field_of_a_report_fails(
    copy: Callable[..., Path], field: str, spoil: Callable[[dict], object]
):
    folder = copy("masking.json")
    content = json.loads((folder / "masking.json").read_text())
    spoil(content["cases"][2]["runs"][1])
    (folder / "masking.json").write_text(json.dumps(content))
    failed = _failed(folder, "masking.json")
    assert [field in check.name for check in failed] == [True]


def test_masking_needs_no_vocabulary_file(
    copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ECAMP_SHARED", raising=False)
    folder = copy("masking.json", "masking_stats.json")
    for name in ("masking.json", "masking_stats.json"):
        assert not _failed(folder, name)


def test_a_changed_count_fails(copy: Callable[..., Path]):
    folder = copy("masking.json", "masking_stats.json")
    content = json.loads((folder / "masking_stats.json").read_text())
    content["stats"][0]["count"][1] += 200
    (folder / "masking_stats.json").write_text(json.dumps(content))
    names = [check.name.split("/")[-1] for check in _failed(folder, "masking_stats.json")]
    assert names == ["count", "count in standard errors"]


@pytest.mark.parametrize("name", ["posembed.npz", "fusion.safetensors", "masking.json"])
def test_a_damaged_file_is_named(copy: Callable[..., Path], name: str):
    folder = copy(name)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    (failed,) = _failed(folder, name)
    assert str(folder / name) in failed.note
    assert "cannot be read" in failed.note


def test_a_file_that_lost_a_field_is_incomplete(copy: Callable[..., Path]):
    folder = copy("fusion.safetensors")
    meta = json.loads((folder / "meta.json").read_text())
    del meta["fusion"]["small"]["config"]
    (folder / "meta.json").write_text(json.dumps(meta))
    assert (
        "damaged or incomplete (KeyError: 'config')"
        in _failed(folder, "fusion.safetensors")[-1].note
    )


def test_unknown_and_missing_files_fail(
    copy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    folder = copy("posembed.npz")
    (folder / "new.npz").write_bytes(b"")
    assert main([str(folder), "--failed"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("new.npz" in line and "unknown file" in line for line in lines)
    assert any("fusion.safetensors" in line and "missing file" in line for line in lines)
    assert lines[-1].endswith("failed")
    assert main([str(folder), "--only", "posembed.npz"]) == 0
    assert "4 passed, 0 failed" in capsys.readouterr().out


def test_a_missing_folder_and_an_unknown_option_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(tmp_path / "none")]) == 4
    assert "no such folder of golden vectors" in capsys.readouterr().err
    assert main([str(tmp_path), "--only", "posembed"]) == 2
    assert "Did you mean 'posembed.npz'?" in capsys.readouterr().err


def test_a_file_without_a_module_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CHECKS, "later.npz", "not_written_yet")
    (tmp_path / "later.npz").write_bytes(b"")
    (check,) = folder_checks(tmp_path, ["later.npz"])
    assert not check.passed
    assert "not_written_yet" in check.note


def test_every_size_is_read_from_the_shapes():
    """Two perceptrons of one model may differ in their ratios, as in no published model."""
    text = text_config(
        {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 9, "type_vocab_size": 3}
    )  # fmt: skip
    vit = VisionTransformer(
        img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=3, mlp_ratio=3, num_classes=0
    )
    model = PublishedModel(ViTEncoder(vit, 3), (16, 1, 4), text, decoder_mlp_ratio=2.0)
    shapes = {name: tuple(value.shape) for name, value in to_published(model.state_dict()).items()}
    heads = {"num_heads": 3, "decoder_num_heads": 4, "num_attention_heads": 2}
    again = model_of_shapes(shapes, heads=heads, side=64 * 3)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert again.decoder.blocks[0].mlp.fc1.out_features == 32
    assert again.super_resolution.scale == 3


def test_slices_are_read_as_written():
    array = np.arange(4 * 60 * 40).reshape(4, 60, 40)
    assert np.array_equal(take(array, "[:, [0,1,7,48], ::16]"), array[:, [0, 1, 7, 48], ::16])
    assert np.array_equal(take(array, "[:, 5:30:2, 3::9]"), array[:, 5:30:2, 3::9])
    assert np.array_equal(take(array, "[-2:]"), array[-2:])
    for text in ("[:, __import__]", "[:, [a]]", "[:, 1.5:]"):
        with pytest.raises(DataError, match="is no slice"):
            take(array, text)


def test_recipe_kinds():
    kinds = {
        ("norm.weight", 1): "ln",
        ("norm.bias", 1): "vec",
        ("cls_token", 3): "emb",
        ("x.word_embeddings.weight", 2): "emb",
        ("x.embeddings.LayerNorm.weight", 1): "ln",
        ("blocks.0.mlp.fc1.weight", 2): "mat",
    }
    assert {key: kind_of(key[0], (1,) * key[1]) for key in kinds} == kinds
    value = make("fc.weight", (4, 25), 5)
    assert value.dtype == np.float32
    assert np.abs(value).max() <= 2 / 5
    assert not np.array_equal(value, make("fc.weight", (4, 25), 6))


def test_a_zero_gradient_is_measured_against_its_matrix():
    gradients = {"key.weight": torch.tensor([[2.0, -3.0]]), "key.bias": torch.tensor([1e-18])}
    floor = gradient_floor("key.bias", gradients)
    assert floor == 3.0
    assert compare("x", gradients["key.bias"], np.array([-1e-18]), 1e-9, floor=floor).passed
    assert gradient_floor("key.weight", gradients) == 0.0
