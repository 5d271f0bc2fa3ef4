"""The contract of a pretext task, part by part."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ecamp.api.encoder import Encoder
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.pretext import Objective, PretextPlugin
from ecamp.data.arrays import Arrays, materialise
from ecamp.datasets.phantom import PhantomConfig, PhantomDataset
from ecamp.errors import MissingError
from ecamp.plugin.host import make_plugin
from ecamp.testing.tiny_encoders import TinyCNN, tiny_vit
from ecamp.train.observer import Observer
from ecamp.train.pairs import PairDataset, PairSubset, make_batches
from ecamp.train.pretrain import Trainer, load_weights, pretrain
from ecamp.train.recipe import PretrainRecipe

RECIPE = PretrainRecipe(
    batch_size=8, scale=2, steps=4, warmup=0, precision="fp32", checkpoint_seconds=1e-9
)
KEY = "contract"


def pretext_parts(ref: PluginRef, cache: Path | None) -> Iterator[str]:
    """Check losses, gradients, determinism, parts of a batch, resumption and the stored weights.

    Raises:
        MissingError: It requires a capability that the ViT of this check lacks.
    """
    plugin: PretextPlugin = make_plugin("ecamp.pretext", ref)
    if not plugin.trains or plugin.weights_file() is not None:
        return
    lacking = sorted(plugin.requires - tiny_vit().provides)
    if lacking:
        raise MissingError(
            f"{ref}: requires '{lacking[0]}', which the encoder of this check lacks.",
            "Check a step with an encoder of your own in a test.",
        )
    data = PhantomDataset(PhantomConfig(pretrain=16, train=0, val=0, test=0))
    grey = materialise(data, 64, splits=["pretrain"], cache=cache, workers=1)
    cases = [("a ViT, grey images", grey, False), ("a ViT, colour images", _in_colour(grey), False)]
    if not plugin.requires:
        cases.append(("a CNN", grey, True))
    for title, arrays, cnn in cases:
        yield f"loss and gradients: {title}"
        _check_step(ref, plugin, _pairs(arrays), cnn)
    source = _pairs(grey)
    if not plugin.whole_batch:
        yield "a batch in two parts"
        recipe = RECIPE.model_copy(update={"accumulate": 2})
        objective = _objective(plugin, source)
        losses = Trainer(objective, recipe, len(source)).update(
            make_batches(source, recipe, 0, plugin.views())
        )
        assert all(map(np.isfinite, losses.values())), f"{ref}: in two parts: {losses}"
    with tempfile.TemporaryDirectory() as folder:
        yield "the same weights after an interruption"
        whole = _train(plugin, source, Path(folder) / "whole")
        resumed = _train(plugin, source, Path(folder) / "resumed", stop=2)
        assert whole.read_bytes() == resumed.read_bytes(), (
            f"{ref}: interrupted after two of four steps and resumed, it gives other weights; random "
            "numbers come from batch.generator alone, and everything that is learnt is a parameter or "
            "a buffer"
        )
        yield "stored weights give the result's features"
        _check_stored(ref, plugin, source, whole)


def _in_colour(arrays: Arrays) -> Arrays:
    """Give grey images three channels, each of its own brightness."""
    info = replace(arrays.info, channels=3, mean=arrays.info.mean * 3, std=arrays.info.std * 3)
    images = np.stack([np.asarray(arrays.images)[..., 0] // d for d in (1, 2, 3)], axis=3)
    return replace(arrays, info=info, images=images)


def _pairs(arrays: Arrays) -> PairDataset:
    return PairDataset([PairSubset(arrays, np.arange(len(arrays)))])


def _encoder(channels: int, cnn: bool = False) -> Encoder:
    torch.manual_seed(0)
    return TinyCNN(channels) if cnn else tiny_vit().build(channels)


def _objective(plugin: PretextPlugin, source: PairDataset, cnn: bool = False) -> Objective:
    channels = source.parts[0].arrays.images.shape[-1]
    encoder = _encoder(channels, cnn)
    return plugin.build(encoder, source.context(RECIPE))


def _check_step(ref: PluginRef, plugin: PretextPlugin, source: PairDataset, cnn: bool) -> None:
    losses = []
    for _ in range(2):
        (batch,) = make_batches(source, RECIPE, 0, plugin.views())
        objective = _objective(plugin, source, cnn)
        torch.manual_seed(1)
        out = objective(batch)
        assert torch.isfinite(out["loss"]), f"{ref}: loss is {out['loss'].item()}"
        out["loss"].backward()
        losses.append(out["loss"].item())
        gradients = [p.grad for p in objective.encoder.parameters()]
        moved = any(g is not None and g.abs().sum() > 0 for g in gradients)
        assert moved, f"{ref}: no gradient reaches the encoder"
    assert losses[0] == losses[1], f"{ref}: one batch, two losses"


class Interrupted(Exception):
    """End of a training that is to be resumed."""


class InterruptAfter(Observer):
    """Observer that ends a training after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, step: int, objective: Objective) -> None:
        if step == self.steps:
            raise Interrupted


def _train(plugin: PretextPlugin, source: PairDataset, folder: Path, stop: int = 0) -> Path:
    """Train to the end; with `stop`, in two goes."""
    if stop:
        try:
            pretrain(
                _objective(plugin, source), source, RECIPE, folder, KEY, views=plugin.views(),
                observer=InterruptAfter(stop),
            )  # fmt: skip
        except Interrupted:
            torch.manual_seed(99)  # a new process knows nothing of the old one's numbers
    return pretrain(_objective(plugin, source), source, RECIPE, folder, KEY, views=plugin.views())


def _check_stored(
    ref: PluginRef, plugin: PretextPlugin, source: PairDataset, weights: Path
) -> None:
    objective = _objective(plugin, source)
    trainer = Trainer(objective, RECIPE, len(source))
    objective.train()
    for step in range(RECIPE.steps):
        torch.manual_seed(RECIPE.seed * 1_000_003 + step)  # as `pretrain` does
        trainer.update(make_batches(source, RECIPE, step, plugin.views()))
    extra = json.loads((weights.parent / "pretrain.json").read_text())
    loaded = plugin.rebuild(_encoder(1), extra)
    load_weights(loaded, weights)
    (batch,) = make_batches(source, RECIPE, 0, plugin.views())
    result: nn.Module = objective.result()
    with torch.no_grad():
        ours = loaded.eval()(batch.images).pooled
        trained = result.eval()(batch.images).pooled
    assert torch.equal(ours, trained), (
        f"{ref}: the stored weights give other features than the trained module"
    )
