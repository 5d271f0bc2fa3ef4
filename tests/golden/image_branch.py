"""image_branch.safetensors: the whole published model, small, from pixels to three losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecamp.pretext.images import unpatchify
from ecamp.published.pretraining.image import NORM_EPS
from ecamp.published.pretraining.keys import UNUSED, our_name, to_ours
from ecamp.published.pretraining.model import Losses, PublishedModel
from tests.golden.check import (
    EXACT,
    FLOAT32_GRADIENT,
    FLOAT64,
    Check,
    Vectors,
    as_array,
    compare,
    read_json,
    worst,
)
from tests.golden.compared import against, gradient_floor, recorded
from tests.golden.model_sizes import model_of_shapes
from tests.golden.recipe import digest, make
from tests.golden.slices import take

FILE = "image_branch.safetensors"
MEAN, STD = 0.4721, 0.3037  # of the published loader
TABLES = ("pos_embed", "decoder_pos_embed")
# Parts of big results, unless meta.json specifies otherwise (golden README).
SLICES = {
    "imgs_224@crop": "[:, :, 80:144, 160:224]",
    "super_pred@crop": "[:, :, 200:264, 376:448]",
}


def images(raw: np.ndarray) -> np.ndarray:
    """uint8 pixels as the published loader normalises them, float32."""
    pixels = raw.astype(np.float32) / np.float32(255)
    return (pixels - np.float32(MEAN)) / np.float32(STD)


def checks(folder: Path) -> Iterator[Check]:
    """Weights, masks, windows, inner results, losses, gradients; the antialiased variant."""
    vectors, meta = Vectors(folder / FILE), read_json(folder / "meta.json")["image_branch"]
    weights = {name.removeprefix("weight/"): vectors[name] for name in vectors.names("weight/")}
    yield worst(
        f"{FILE}/weight",
        [
            compare(name, make(name, value.shape, meta["weight_seed"]), value, EXACT)
            for name, value in weights.items()
            if name not in TABLES
        ],
    )
    batch = inputs(vectors)
    yield compare(f"{FILE}/normalised", digest(batch[0]), meta["image_f32_sha256"], EXACT)
    yield compare(f"{FILE}/type_ids", vectors["in/type_ids"].any(), False, EXACT)
    eps = meta["image_config"]["layer_norm_eps"]
    yield Check(f"{FILE}/layer_norm_eps", abs(eps / NORM_EPS - 1), FLOAT64)
    model = model_of_shapes(
        {name: value.shape for name, value in weights.items()},
        heads={**meta["image_config"], **meta["text_config"]},
        side=batch[0].shape[-1],
        mask_ratio=meta["mask_ratio"],
    )
    # Initial position tables of the model, before they are loaded.
    tables = {name: model.state_dict()[str(our_name(name))].clone() for name in TABLES}
    yield from (compare(f"{FILE}/{n}", t, weights[n], EXACT) for n, t in tables.items())
    runs = [_run(model, weights, batch, dtype) for dtype in (torch.float64, torch.float32)]
    yield from _masks(vectors, meta, runs[0][0], runs[0][1])
    for name in runs[0][2]:
        for part in _parts(vectors, name):
            yield from against(vectors, "", part, *(cut(part, run[2][name]) for run in runs))
    yield from _gradients(vectors, meta, runs[0][3], runs[1][3])
    yield from _antialiased(vectors, model, weights, batch)
    yield from vectors.unread()


def inputs(vectors: Vectors) -> tuple[np.ndarray, ...]:
    """Arguments of `PublishedModel.losses`."""
    names = ("noise", "row", "column", "ids", "labels", "attention_mask", "weights")
    return (images(vectors["in/image_u8"]), *(vectors[f"in/{name}"] for name in names))


def load(model: PublishedModel, weights: Mapping[str, np.ndarray], dtype: torch.dtype) -> None:
    """Put published weights into our model; every name and shape has to fit."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    model.to(dtype).load_state_dict(to_ours(tensors, model.state_dict(), FILE))


def tensors(batch: tuple[np.ndarray, ...], dtype: torch.dtype) -> list[Tensor]:
    """A batch's arguments; floating point ones as `dtype`, but the noise as recorded."""
    values = [torch.from_numpy(np.array(value)) for value in batch]
    return [
        value.to(dtype) if value.is_floating_point() and place != 1 else value
        for place, value in enumerate(values)
    ]


def _run(
    model: PublishedModel, weights: Mapping[str, np.ndarray], batch: tuple[np.ndarray, ...],
    dtype: torch.dtype,
) -> tuple[PublishedModel, Losses, dict[str, np.ndarray], dict[str, Tensor]]:  # fmt: skip
    """One run: the losses, results by their recorded names, gradients by published names."""
    load(model, weights, dtype)
    model.eval().zero_grad()
    losses = model.losses(*tensors(batch, dtype))
    losses.total.backward()
    parameters = dict(model.named_parameters())
    names = {name: our_name(name) for name in weights if name not in UNUSED}
    found = {name: parameters.get(str(ours)) for name, ours in names.items()}
    gradients = {
        name: value.grad.clone()
        for name, value in found.items()
        if value is not None and value.grad is not None
    }
    return model, losses, results(model, losses), gradients


def results(model: PublishedModel, losses: Losses) -> dict[str, np.ndarray]:
    """Inner results and losses by their recorded names."""
    encoder, project = model.encoder, model.text.project
    assert project is not None
    with torch.no_grad():
        values = {
            "imgs_224": losses.small,
            "latent": losses.tokens,
            "bert_mlp": project(losses.tokens),
            "pred": losses.predicted,
            "pred_image": unpatchify(losses.predicted, encoder.patch_size, encoder.channels),
            "super_pred": losses.refined,
            "logits": losses.logits,
            "mim_loss": losses.mim.reshape(1),
            "res_loss": losses.sr.reshape(1),
            "mlm_loss": losses.mlm.reshape(1),
        }
    return {name: as_array(value) for name, value in values.items()}


def _parts(vectors: Vectors, name: str) -> list[str]:
    """Names under which a result was recorded: whole, or as slices and summaries."""
    every = {full.split("/", 1)[1] for full in vectors.names("f")}
    return sorted(part for part in every if part == name or part.startswith(f"{name}@"))


def cut(name: str, value: np.ndarray) -> np.ndarray:
    """The recorded part of a result.

    Args:
        name: `result` or `result@part`.
        value: The whole of it.
    """
    result, _, part = name.partition("@")
    if not part:
        return value
    if part == "mean_std":
        return np.stack([value.mean((2, 3)), value.std((2, 3))])
    if part == "sample0":
        first: np.ndarray = value[0]
        return first
    if part.startswith("stride"):
        step = int(part.removeprefix("stride"))
        return value[:, ::step] if result == "pred" else value[:, :, ::step, ::step]
    return take(value, SLICES[name])


def _masks(
    vectors: Vectors, meta: Mapping[str, Any], model: PublishedModel, losses: Losses
) -> Iterator[Check]:
    """Which patches were removed, in which order they were kept, and where the windows lie."""
    noise = vectors.tensor("in/noise")
    removed = losses.removed.float()
    exact = {
        "mask": removed,
        "ids_keep": losses.keep,
        "ids_restore": noise.argsort(1).argsort(1),
        "pixel_mask_grid": removed.unflatten(1, model.encoder.grid),
        "super_mask_grid": losses.window.float(),
    }
    for name, value in exact.items():
        yield compare(f"{FILE}/out/{name}", value, vectors[f"out/{name}"], EXACT)
    yield compare(f"{FILE}/len_keep", losses.keep.shape[1], meta["len_keep"], EXACT)


def _gradients(
    vectors: Vectors, meta: Mapping[str, Any], double: Mapping[str, Tensor],
    single: Mapping[str, Tensor],
) -> Iterator[Check]:  # fmt: skip
    """Gradients that were recorded, the norms of all, and which parameters have none."""
    for name, value in double.items():
        if recorded(vectors, "", f"grad/{name}"):
            yield from against(
                vectors, "", f"grad/{name}", value, single[name],
                gradient=True, floor=gradient_floor(name, double),
            )  # fmt: skip
    norms = dict(meta["grad_norm_f64"])
    yield compare(f"{FILE}/parameters with gradient", sorted(double), sorted(norms), EXACT)
    none = sorted(set(vectors_weights(vectors)) - set(double))
    yield compare(f"{FILE}/no_gradient", none, sorted(meta["no_gradient"]), EXACT)
    for kind, gradients, bound in (
        ("", double, FLOAT64),
        (" (our float32)", single, FLOAT32_GRADIENT),
    ):
        yield worst(
            f"{FILE}/grad_norm_f64{kind}",
            [
                compare(
                    name, gradients[name].double().norm(), norms[name], bound,
                    floor=gradient_floor(name, norms),
                )
                for name in norms
                if name in gradients
            ],
        )  # fmt: skip


def vectors_weights(vectors: Vectors) -> list[str]:
    """Published names of the recorded weights."""
    return [name.removeprefix("weight/") for name in vectors.names("weight/")]


def _antialiased(
    vectors: Vectors, model: PublishedModel, weights: Mapping[str, np.ndarray],
    batch: tuple[np.ndarray, ...],
) -> Iterator[Check]:  # fmt: skip
    """The run whose images were made small with antialiasing, as newer torchvision does."""
    marker = "alt_antialias/"
    names = {name.split(marker)[1] for name in vectors.names("f") if marker in name}
    runs = []
    for dtype in (torch.float64, torch.float32) if names else ():
        load(model, weights, dtype)
        with torch.no_grad():
            losses = model.losses(*tensors(batch, dtype), antialias=True)
            total = torch.stack([losses.mim, losses.sr, losses.mlm])
        runs.append({"losses": as_array(total), **results(model, losses)})
    for name in sorted(names):
        whole = name.split("@")[0]
        yield from against(vectors, "", marker + name, *(cut(name, run[whole]) for run in runs))
