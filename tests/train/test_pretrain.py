"""The pre-training loop: exact resume, and losses that stop making sense."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ecamp.config import PluginRef
from ecamp.data.arrays import materialise
from ecamp.errors import CorruptFileError, EcampError
from ecamp.plugin.host import make_plugin
from ecamp.pretext.base import Objective, PretextContext
from ecamp.train.pretrain import (
    PretrainRecipe,
    Source,
    batch_rows,
    load_weights,
    native_precision,
    pretrain,
)
from ecamp.train.schedule import warmup_cosine

RECIPE = PretrainRecipe(steps=7, batch_size=8, precision="fp32", checkpoint_seconds=1e-9)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    data = make_plugin(
        "ecamp.datasets", PluginRef.parse("phantom?pretrain=24&train=6&val=6&test=6")
    )
    arrays = materialise(data, 64, splits=["pretrain"], cache=tmp_path_factory.mktemp("cache"))
    return Source(arrays, arrays.where("pretrain"))


def _objective(source: Source) -> Objective:
    torch.manual_seed(0)
    encoder = make_plugin(
        "ecamp.encoders", PluginRef.parse("vit-micro?width=32&depth=1&heads=2&image_size=32")
    ).build(1)
    context = PretextContext(source.arrays.info, source.arrays.reports, 2)
    ref = PluginRef.parse("ecamp?dropout=0.1")  # dropout, so that its random numbers count too
    return make_plugin("ecamp.pretext", ref).build(encoder, context)


class _Stop(Exception):
    pass


def _stop_after(step: int) -> Callable[[int, dict[str, float]], None]:
    def log(at: int, losses: dict[str, float]) -> None:
        if at == step:
            raise _Stop

    return log


@pytest.mark.parametrize("stop", [1, 4])
def test_resumed_weights_are_the_same_bytes(source: Source, tmp_path: Path, stop: int):
    whole = pretrain(_objective(source), source, RECIPE, tmp_path / "whole", "key")
    with pytest.raises(_Stop):
        pretrain(_objective(source), source, RECIPE, tmp_path / "parts", "key", _stop_after(stop))
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    resumed = pretrain(_objective(source), source, RECIPE, tmp_path / "parts", "key")
    assert resumed.read_bytes() == whole.read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/metrics.jsonl").open()]
    assert steps == [0, 6]  # every tenth and the last, none twice
    assert json.loads((tmp_path / "parts/time.json").read_text())["from_step"] == stop


def test_a_damaged_checkpoint_is_named_and_training_starts_again(source: Source, tmp_path: Path):
    whole = pretrain(_objective(source), source, RECIPE, tmp_path / "whole", "key")
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"PK torn")
    said: list[str] = []
    again = pretrain(_objective(source), source, RECIPE, folder, "key", say=said.append)
    assert again.read_bytes() == whole.read_bytes()
    assert "checkpoint.pt: damaged" in said[0]
    assert (folder / "checkpoint.damaged").read_bytes() == b"PK torn"


def test_a_checkpoint_of_another_recipe_is_refused(source: Source, tmp_path: Path):
    with pytest.raises(_Stop):
        pretrain(_objective(source), source, RECIPE, tmp_path, "key", _stop_after(2))
    with pytest.raises(EcampError, match="belongs to another pre-training"):
        pretrain(_objective(source), source, RECIPE, tmp_path, "another key")


def test_a_loss_that_is_not_finite_names_samples_and_keeps_the_checkpoint(
    source: Source, tmp_path: Path
):
    objective = _objective(source)

    def poison(step: int, losses: dict[str, float]) -> None:
        if step == 3:
            with torch.no_grad():
                next(objective.parameters()).fill_(math.nan)

    with pytest.raises(EcampError, match=r"step 4; samples phantom-\d+") as caught:
        pretrain(objective, source, RECIPE, tmp_path, "key", poison)
    assert "Lower the learning rate" in str(caught.value)


def test_weights_that_do_not_fit_are_named(source: Source, tmp_path: Path):
    path = pretrain(_objective(source), source, RECIPE, tmp_path, "key")
    other = make_plugin("ecamp.encoders", PluginRef.parse("vit-micro?width=64")).build(1)
    with pytest.raises(CorruptFileError, match=r"weights\.safetensors: cannot be loaded"):
        load_weights(other, path)


def test_an_epoch_shows_every_row_once():
    rows = np.concatenate([batch_rows(10, 5, step, seed=3) for step in range(4)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()


def test_the_schedule_rises_then_falls_to_its_end():
    factors = [warmup_cosine(step, 100, 10) for step in range(120)]
    assert factors[9] == 1.0 == max(factors)
    assert factors[:10] == sorted(factors[:10])
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[99:] == [0.0] * 21
    # The cosine's middle, computed by hand: half way between steps 9 and 99.
    assert factors[54] == pytest.approx(0.5)


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch):
    for has, wanted in (({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert native_precision() == PretrainRecipe().precision == wanted
    assert PretrainRecipe(precision="bf16").decisive()["precision"] == "bf16"
