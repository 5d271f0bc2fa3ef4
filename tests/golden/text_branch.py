"""text_branch.safetensors: the masked-language model over an image's tokens, small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig

from ecamp.pretext.ecamp.text_tower import TextTower
from ecamp.published.pretraining.keys import BIAS_TWIN, UNUSED, our_name, to_ours
from tests.golden.check import EXACT, Check, Vectors, compare, read_json, worst
from tests.golden.compared import Outputs, against, gradient_floor, leaf
from tests.golden.recipe import make

FILE = "text_branch.safetensors"
PREFIX = "bert_encoder.model."  # of the whole model; this file's names go without it
INPUTS = ("latent", "gap_token")


def text_config(sizes: Mapping[str, Any]) -> BertConfig:
    """The published text configuration with a folder's sizes, without dropout."""
    return BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def checks(folder: Path) -> Iterator[Check]:
    """Weights by recipe, parameter names, results, gradients."""
    vectors, meta = Vectors(folder / FILE), read_json(folder / "meta.json")["text_branch"]
    names = [name.removeprefix("weight/") for name in vectors.names("weight/")]
    weights = {name: vectors.tensor(f"weight/{name}") for name in names}
    yield worst(
        f"{FILE}/weight",
        [
            compare(name, make(name, value.shape, meta["weight_seed"]), value, EXACT)
            for name, value in weights.items()
        ],
    )
    twin = BIAS_TWIN.removeprefix(PREFIX)
    yield compare(f"{FILE}/names", sorted({*weights, twin}), sorted(meta["state_dict_keys"]), EXACT)
    unused = [name.removeprefix(PREFIX) for name in UNUSED]
    without = sorted(meta["parameters_without_gradient"])
    yield compare(f"{FILE}/parameters_without_gradient", sorted(unused), without, EXACT)
    double = _run(vectors, meta, weights, torch.float64)
    single = _run(vectors, meta, weights, torch.float32)
    for name in double[0]:
        yield from against(vectors, "", name, double[0][name], single[0][name])
    for name, gradient in double[1].items():
        floor = gradient_floor(name, double[1])
        values = gradient, single[1][name]
        yield from against(vectors, "", name, *values, gradient=True, floor=floor)
    yield from vectors.unread()


def _run(
    vectors: Vectors, meta: Mapping[str, Any], weights: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results and gradients by their recorded names."""
    config = text_config(meta["config"])
    # The projection of image tokens is no part of this file: latent is already projected.
    tower = TextTower(config, config.hidden_size, tied=False).to(dtype)
    state = to_ours({PREFIX + name: value.to(dtype) for name, value in weights.items()})
    tower.load_state_dict(
        {name.removeprefix("text."): value for name, value in state.items()}, strict=False
    )
    inputs = [leaf(vectors, f"in/{name}", dtype) for name in INPUTS]
    ids, labels, real, types = (
        vectors.tensor(f"in/{name}") for name in ("ids", "labels", "attention_mask", "type_ids")
    )
    inner = {
        "mid/embeddings": tower.embeddings,
        "mid/fusion": tower.fusion,
        "mid/encoder": tower.layers[-1],
    }
    with Outputs(inner) as results:
        hidden = tower.encode(ids, real == 0, inputs[0], inputs[1], type_ids=types)
    assert isinstance(hidden, Tensor)
    logits = tower.logits(hidden)
    entropy = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    loss = (entropy * vectors.tensor("in/weights", dtype)).mean()
    loss.backward()
    results |= {
        "logits": logits.detach(),
        "loss": loss.detach().reshape(1),
        "cross_entropy_per_position": entropy.detach(),
    }
    gradients = {f"grad_in/{name}": value.grad for name, value in zip(INPUTS, inputs, strict=True)}
    parameters = dict(tower.named_parameters())
    for name in weights:
        ours = our_name(PREFIX + name)
        if ours is not None:
            gradients[f"grad/{name}"] = parameters[ours.removeprefix("text.")].grad
    return results, {name: value for name, value in gradients.items() if value is not None}
