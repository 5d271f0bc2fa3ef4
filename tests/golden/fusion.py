"""fusion.safetensors: the context-fusion layer with all its gradients, in three sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig

from ecamp.pretext.ecamp.fusion import ContextFusion
from ecamp.published.pretraining.keys import our_name
from tests.golden.check import EXACT, Check, Vectors, compare, read_json, worst
from tests.golden.compared import Outputs, against, gradient_floor, leaf, recorded
from tests.golden.recipe import digest, make

PUBLISHED, OURS = "bert_encoder.model.bert.context_fusion_layer.", "text.fusion."
INPUTS = ("hidden_states", "encoder_hidden_states", "gap_token")


def checks(folder: Path) -> Iterator[Check]:
    """Each group of the file: weights, outputs, inner results, gradients."""
    vectors = Vectors(folder / "fusion.safetensors")
    for group, meta in read_json(folder / "meta.json")["fusion"].items():
        yield from _group(vectors, group, meta)
    yield from vectors.unread()


def _name(published: str) -> str:
    name = our_name(PUBLISHED + published)
    assert name is not None
    return name.removeprefix(OURS)


def _group(vectors: Vectors, group: str, meta: Mapping[str, Any]) -> Iterator[Check]:
    shapes = meta["weight_shapes"]
    weights = {name: make(name, shape, meta["weight_seed"]) for name, shape in shapes.items()}
    yield worst(
        f"fusion.safetensors/{group}/weight",
        [
            compare(name, digest(value), meta["weight_sha256"][name], EXACT)
            for name, value in weights.items()
        ]
        + [
            compare(name, weights[name.split("/weight/")[1]], vectors[name], EXACT)
            for name in vectors.names(f"{group}/weight/")
        ],
    )
    double = _run(vectors, group, meta, weights, torch.float64)
    single = _run(vectors, group, meta, weights, torch.float32)
    prefix = f"{group}/"
    for name in double[0]:
        yield from against(vectors, prefix, name, double[0][name], single[0][name])
    for name, gradient in double[1].items():
        floor = gradient_floor(name, double[1])
        for part, get in _parts(vectors, prefix, name):
            values = get(gradient), get(single[1][name])
            yield from against(vectors, prefix, part, *values, gradient=True, floor=floor)


def _parts(vectors: Vectors, prefix: str, name: str) -> list[tuple[str, Any]]:
    """How a gradient was recorded: whole, or as values at flat positions and the norm."""
    if recorded(vectors, prefix, name):
        return [(name, lambda g: g)]
    index = vectors.tensor(f"{prefix}{name}@index")
    return [
        (f"{name}@sample", lambda g: g.flatten()[index]),
        (f"{name}@norm", lambda g: g.double().norm().reshape(1)),
    ]


def _run(
    vectors: Vectors, group: str, meta: Mapping[str, Any], weights: Mapping[str, Any],
    dtype: torch.dtype,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """Results and gradients by their recorded names."""
    config = BertConfig(**meta["config"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    layer = ContextFusion(config).to(dtype)
    layer.load_state_dict(
        {_name(name): torch.from_numpy(value).to(dtype) for name, value in weights.items()}
    )
    inputs = [leaf(vectors, f"{group}/in/{name}", dtype) for name in INPUTS]
    padding = [vectors.tensor(f"{group}/in/{name}_mask") == 0 for name in ("text", "image")]
    inner = {
        "mid/self_attention_block": layer.attention,
        "mid/cross_attention_context": layer.cross_attention,
        "mid/gap_mlp": layer.global_projection,
        "mid/out_layer": layer.merge,
    }
    with Outputs(inner) as results:
        output = layer(*inputs, *padding)
    scalar = (output * vectors.tensor(f"{group}/in/projection", dtype)).sum()
    scalar.backward()
    results |= {"output": output.detach(), "scalar": scalar.detach().reshape(1)}
    gradients = {f"grad_in/{name}": value.grad for name, value in zip(INPUTS, inputs, strict=True)}
    parameters = dict(layer.named_parameters())
    gradients |= {f"grad/{name}": parameters[_name(name)].grad for name in weights}
    return results, {name: value for name, value in gradients.items() if value is not None}
