"""The pre-training loop: exact resume, and losses that stop making sense."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecamp.api.plugin_ref import PluginRef
from ecamp.api.pretext import Objective
from ecamp.data.arrays import materialise
from ecamp.errors import CorruptFileError, EcampError, UsageError
from ecamp.plugin.host import make_plugin
from ecamp.testing.pretexts import InterruptAfter, Interrupted
from ecamp.train.observer import Observer
from ecamp.train.optim import adamw, layer_scales
from ecamp.train.pairs import PairDataset, PairSubset, batch_rows, make_batches
from ecamp.train.pretrain import Trainer, load_weights, pretrain
from ecamp.train.recipe import PretrainRecipe, load_preset, native_precision
from ecamp.train.schedule import warmup_cosine

RECIPE = PretrainRecipe(steps=7, batch_size=8, precision="fp32", checkpoint_seconds=1e-9)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    data = make_plugin(
        "ecamp.datasets", PluginRef.parse("phantom?pretrain=24&train=6&val=6&test=6")
    )
    arrays = materialise(data, 64, splits=["pretrain"], cache=tmp_path_factory.mktemp("cache"))
    return PairDataset([PairSubset(arrays, arrays.where("pretrain"))])


def _objective(source: PairDataset, pretext: str = "ecamp?dropout=0.1") -> Objective:
    """ECAMP with dropout by default, so that its random numbers count too."""
    torch.manual_seed(0)
    encoder = make_plugin(
        "ecamp.encoders", PluginRef.parse("vit-micro?width=32&depth=1&heads=2&image_size=32")
    ).build(1)
    plugin = make_plugin("ecamp.pretext", PluginRef.parse(pretext))
    return plugin.build(encoder, source.context(RECIPE))


def _train(
    source: PairDataset, recipe: PretrainRecipe, folder: Path, observer: Observer | None = None
) -> Path:
    return pretrain(_objective(source), source, recipe, folder, "key", observer=observer)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 4])
def test_resumed_weights_are_the_same_bytes(source: PairDataset, tmp_path: Path, stop: int):
    whole = _train(source, RECIPE, tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(source, RECIPE, tmp_path / "parts", InterruptAfter(stop + 1))
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    resumed = _train(source, RECIPE, tmp_path / "parts")
    assert resumed.read_bytes() == whole.read_bytes()
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [0, 6]  # every tenth and the last, none twice
    assert json.loads((tmp_path / "parts/time.json").read_text())["from_step"] == stop


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_training_starts_again(
    source: PairDataset, tmp_path: Path, logged: pytest.LogCaptureFixture
):
    whole = _train(source, RECIPE, tmp_path / "whole")
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"PK torn")
    again = _train(source, RECIPE, folder)
    assert again.read_bytes() == whole.read_bytes()
    assert "checkpoint.pt: damaged" in logged.messages[0]
    assert (folder / "checkpoint.damaged").read_bytes() == b"PK torn"


def test_a_checkpoint_of_another_recipe_is_refused(source: PairDataset, tmp_path: Path):
    with pytest.raises(Interrupted):
        _train(source, RECIPE, tmp_path, InterruptAfter(3))
    with pytest.raises(EcampError, match="belongs to another pre-training"):
        pretrain(_objective(source), source, RECIPE, tmp_path, "another key")


def test_a_loss_that_is_not_finite_names_samples_and_keeps_the_last_good_weights(
    source: PairDataset, tmp_path: Path
):
    good: dict[str, torch.Tensor] = {}

    class Poison(Observer):
        def on_step(self, step: int, objective: Objective) -> None:
            if step == 4:
                good.update({k: v.clone() for k, v in objective.encoder.state_dict().items()})
                objective.forward = lambda batch: {
                    "loss": torch.tensor(math.nan),
                    "mim": torch.ones(()),
                }

    with pytest.raises(EcampError, match=r"loss nan at step 4; samples phantom-\d+") as caught:
        _train(source, RECIPE, tmp_path, Poison())
    assert "Lower the learning rate" in str(caught.value)
    named = json.loads((tmp_path / "not-finite.json").read_text())
    assert named["step"] == 4
    assert named["losses"] == {"loss": "nan", "mim": 1.0}
    (batch,) = make_batches(source, RECIPE, 4)
    assert named["samples"] == source.names(batch.index.tolist())
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 4
    for name, value in good.items():
        assert torch.equal(kept["objective"][f"encoder.{name}"], value)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [{"ema": 0.8}, {"precision": "fp16"}, {"accumulate": 3}])
def test_every_kind_of_training_resumes_to_the_same_bytes(
    source: PairDataset, tmp_path: Path, extra: dict[str, object]
):
    recipe = RECIPE.model_copy(update=extra)
    whole = _train(source, recipe, tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(source, recipe, tmp_path / "parts", InterruptAfter(4))
    resumed = _train(source, recipe, tmp_path / "parts")
    assert resumed.read_bytes() == whole.read_bytes()
    plain = _train(source, RECIPE, tmp_path / "plain")
    assert plain.read_bytes() != whole.read_bytes()  # the option does something


def test_parts_of_a_batch_add_up_to_the_whole_batch(source: PairDataset):
    """MAE's loss is a mean over samples: the gradient must not depend on how a batch is parted."""
    gradients = []
    for accumulate in (1, 3):
        recipe = PretrainRecipe(batch_size=8, accumulate=accumulate, precision="fp32", clip=None)
        batches = make_batches(source, recipe, 0)
        assert [len(b.index) for b in batches] == ([8] if accumulate == 1 else [3, 3, 2])
        assert torch.equal(
            torch.cat([b.index for b in batches]), make_batches(source, RECIPE, 0)[0].index
        )
        objective = _objective(source, "mae").double()
        trainer = Trainer(objective, recipe, len(source))
        trainer.update([replace(b, images=b.images.double()) for b in batches])
        gradients.append(
            torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_averaged_weights_equal_a_plain_average(source: PairDataset, tmp_path: Path):
    recipe = RECIPE.model_copy(update={"ema": 0.5, "steps": 3})
    name = "vit.norm.weight"
    plain = _objective(source).encoder.state_dict()[name].double().clone()

    class Follow(Observer):
        def on_step(self, step: int, objective: Objective) -> None:
            if step:
                plain.mul_(0.5).add_(0.5 * objective.encoder.state_dict()[name].double())

    path = _train(source, recipe, tmp_path, Follow())
    torch.testing.assert_close(load_file(path)[name].double(), plain, rtol=1e-6, atol=0)


def test_layers_below_learn_slower(source: PairDataset):
    objective = _objective(source)
    scales = layer_scales(objective.encoder, 0.5, "encoder.")
    # One block: embedding two below the end, block one below it, the final norm at full rate.
    assert scales["encoder.vit.patch_embed."] == 0.25
    assert scales["encoder.vit.blocks.0."] == 0.5
    optimizer = adamw(objective, lr=1.0, weight_decay=0.0, scale=scales)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    vit = objective.encoder.vit
    assert rates[id(vit.patch_embed.proj.weight)] == rates[id(vit.cls_token)] == 0.25
    assert rates[id(vit.blocks[0].mlp.fc1.weight)] == 0.5
    assert rates[id(vit.norm.weight)] == rates[id(objective.decoder.out.weight)] == 1.0
    assert layer_scales(objective.encoder, 1.0, "encoder.") == {}


def test_the_published_recipe_is_a_preset_and_its_cosine_does_not_end(source: PairDataset):
    recipe = PretrainRecipe(**load_preset("published"))
    assert recipe.total_steps(377_110) == math.ceil(120 * 377_110 / 8192)
    trainer = Trainer(_objective(source, "mae"), recipe, 377_110)
    trainer.step = trainer.total - 1
    # Epoch 120 of 200, warm-up 40: half of 1 + cos(pi * 80 / 160).
    assert trainer.lr() == pytest.approx(
        1.5e-4 * 0.5 * (1 + math.cos(math.pi * 80 / 160)), rel=2e-3
    )
    with pytest.raises(UsageError, match="Did you mean 'published'"):
        load_preset("publisched")


def test_length_in_epochs(source: PairDataset):
    assert PretrainRecipe(epochs=2.5, batch_size=8).total_steps(24) == 8
    assert PretrainRecipe(steps=5).total_steps(24) == 5


def test_data_sets_are_pooled_and_each_keeps_its_own_normalisation(source: PairDataset):
    part = source.parts[0]
    other = replace(part.arrays, info=replace(part.arrays.info, mean=(0.0,), std=(1.0,)))
    pooled = PairDataset([part, PairSubset(other, part.rows[:5])])
    assert len(pooled) == len(source) + 5
    index = np.array([25, 2, 28])
    whole, same = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.zeros(3, dtype=torch.bool)
    small, images = pooled.crops(index, whole.repeat(3, 1), same, 2)
    torch.testing.assert_close(images[1], source.crops(index[1:2], whole, same[:1], 2)[1][0])
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(images, 2))
    raw = (
        torch.from_numpy(np.array(part.arrays.images[part.rows[[1, 4]]])).permute(0, 3, 1, 2) / 255
    )
    torch.testing.assert_close(images[[0, 2]], raw.float(), rtol=0, atol=2e-6)
    assert pooled.names([25]) == [source.names([1])[0]]


@pytest.mark.slow
def test_weights_that_do_not_fit_are_named(source: PairDataset, tmp_path: Path):
    path = _train(source, RECIPE, tmp_path)
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
    for has, expected in (({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert native_precision() == PretrainRecipe().precision == expected
    assert PretrainRecipe(precision="bf16").identity_fields()["precision"] == "bf16"
