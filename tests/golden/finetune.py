"""finetune_fullsize.npz: the published downstream models at full size, weights by recipe.

The downstream parts of checkpoint_keys.json are checked in `finetune_keys`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ecamp.published.downstream.classification import classifier
from ecamp.published.downstream.detection import Detector
from ecamp.published.downstream.segmentation import SegViT
from ecamp.published.downstream.vit import ViTShape, published_names
from tests.golden.check import FLOAT32, ROUNDED, Check, Vectors, compare, read_json
from tests.golden.finetune_keys import key_checks
from tests.golden.recipe import make

FILE = "finetune_fullsize.npz"
RUNS = {"f32": (torch.float32, FLOAT32), "f64r": (torch.float64, ROUNDED)}


def checks(folder: Path) -> Iterator[Check]:
    """Every vector of the file, and the downstream models of checkpoint_keys.json."""
    vectors, meta = Vectors(folder / FILE), read_json(folder / "meta.json")["finetune_fullsize"]
    images = _images(folder, meta["images"])
    shape = ViTShape(image_size=images.shape[-1])
    samples = meta["samples"]
    for prefix, build, run in (
        ("cls", lambda: classifier(meta["cls"]["num_classes"], shape), _classify),
        ("seg", lambda: SegViT(shape, outputs=meta["seg"]["output_shape"][1]), _segment),
        ("det", lambda: Detector(shape, expansion=meta["det"]["expansion"]), _detect),
    ):
        model = _with_recipe_weights(build, meta[prefix]["weight_seed"])
        for name, (dtype, tolerance) in RUNS.items():
            with torch.inference_mode():
                outputs = run(model.to(dtype), images.to(dtype))
            yield from _shapes(prefix, name, meta[prefix], outputs)
            yield from _compare(vectors, name, outputs, samples, tolerance)
        del model
    yield from vectors.unread()
    yield from key_checks(folder)


def _images(folder: Path, text: str) -> Tensor:
    """Read images as meta.json describes them: `<tensor>[<slice>] of <file>, (u8/255 - mean)/std`."""
    match = re.match(r"(\S+?)(\[.*?\]) of (\S+?), \(u8/255 - ([\d.]+)\)/([\d.]+)", text)
    if match is None:
        raise ValueError(f"meta.json, finetune_fullsize.images: not understood: {text}")
    name, cut, file, mean, std = match.groups()
    with safe_open(folder / file, "numpy") as stored:
        raw = stored.get_tensor(name)[slices(cut)]
    return (torch.from_numpy(np.ascontiguousarray(raw)) / 255 - float(mean)) / float(std)


def slices(text: str) -> tuple[slice, ...]:
    """The first `[a:b:c, ...]` of a text as slices."""
    inner = text[text.index("[") + 1 : text.index("]")]
    return tuple(
        slice(*[int(part) if part.strip() else None for part in axis.split(":")])
        for axis in inner.split(",")
    )


def _with_recipe_weights(build: Any, seed: int) -> nn.Module:
    """A model in eval mode that never drew random weights: they come from its published names."""
    with torch.device("meta"):
        model: nn.Module = build()
    names = published_names(model)
    state = {
        ours: torch.zeros((), dtype=torch.int64)
        if ours.endswith("num_batches_tracked")
        else torch.from_numpy(make(names[ours], tuple(tensor.shape), seed))
        for ours, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval()


def _classify(model: Any, images: Tensor) -> dict[str, Tensor]:
    tokens = model.forward_features(images)
    features = model.forward_head(tokens, pre_logits=True)
    return {"classifier/features": features, "classifier/logits": model.head(features)}


def _segment(model: Any, images: Tensor) -> dict[str, Tensor]:
    encoded = model.encode(images)
    (output,) = (decoder(encoded) for decoder in model.decoders.values())
    spread = torch.stack([output.mean(), output.std(correction=0)])
    return {
        "segvit/encoder": encoded,
        "segvit/output": output,
        "segvit/output_mean_std": spread,
    }


def _detect(model: Any, images: Tensor) -> dict[str, Tensor]:
    maps = model.feature_maps(images)
    outputs = {f"detector/backbone{i}": features for i, features in enumerate(maps)}
    return outputs | {f"detector/out{i}": out for i, out in enumerate(model.head(maps))}


def _shapes(
    prefix: str, run: str, meta: dict[str, Any], outputs: dict[str, Tensor]
) -> Iterator[Check]:
    """The shapes that meta.json records, once per run."""
    found = {
        "output_shape": [list(outputs[k].shape) for k in outputs if k == "segvit/output"],
        "encoder_shape": [list(outputs[k].shape) for k in outputs if k == "segvit/encoder"],
        "output_shapes": [list(v.shape) for k, v in outputs.items() if "/out" in k],
        "backbone_shapes": [list(v.shape) for k, v in outputs.items() if "/backbone" in k],
    }
    for name, ours in found.items():
        if name in meta:
            theirs = meta[name] if name.endswith("s") else [meta[name]]
            yield Check(f"meta.json/finetune_fullsize/{prefix}/{name} ({run})", ours != theirs, 0.0)


def _compare(
    vectors: Vectors,
    run: str,
    outputs: dict[str, Tensor],
    samples: dict[str, str],
    tolerance: float,
) -> Iterator[Check]:
    for vector in vectors.names(f"{run}/"):
        name = vector.removeprefix(f"{run}/")
        value = outputs.get(name.split("@")[0])
        if value is not None:
            pattern = re.sub(r"(backbone)\d", r"\1{i}", name)
            if pattern in samples:
                value = value[slices(samples[pattern])]
            yield compare(f"{FILE}/{vector}", value, vectors[vector], tolerance)
