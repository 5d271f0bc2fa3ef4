"""fullsize.safetensors: the published model at full size, by recipe; nothing is stored but samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecamp.published.pretraining.keys import UNUSED, our_name, published_name
from ecamp.published.pretraining.model import Losses, PublishedModel
from tests.golden.check import (
    EXACT,
    FLOAT32_GRADIENT,
    FLOAT64,
    Check,
    Vectors,
    compare,
    read_json,
    worst,
)
from tests.golden.compared import against, gradient_floor
from tests.golden.image_branch import TABLES, images, results, tensors
from tests.golden.model_sizes import PUBLISHED_HEADS, model_of_shapes
from tests.golden.recipe import digest, make
from tests.golden.slices import take

FILE = "fullsize.safetensors"


def checks(folder: Path) -> Iterator[Check]:
    """Parameters, then losses, samples, gradient norms and projections in two precisions."""
    vectors, meta = Vectors(folder / FILE), read_json(folder / "meta.json")["fullsize"]
    batch = _inputs(folder, meta)
    model = model_of_shapes(
        {name: shape for name, shape, _ in meta["parameters"]},
        heads=PUBLISHED_HEADS,
        side=batch[0].shape[-1],
        mask_ratio=meta["mask_ratio"],
    )
    yield from _load(model, meta)
    runs = []
    for dtype in (torch.float64, torch.float32):  # one after the other: 1.5 GB of weights each
        model.zero_grad(set_to_none=True)
        model.to(dtype).eval()
        losses = model.losses(*tensors(batch, dtype))
        losses.total.backward()
        samples = _samples(model, losses, meta)
        del losses
        runs.append((samples, *_gradients(model, meta)))
    for name in runs[0][0]:
        yield from against(vectors, "", name, runs[0][0][name], runs[1][0][name])
    names = [name for name, _, _ in meta["parameters"]]
    for kind, run, bound in (("f64", runs[0], FLOAT64), ("f32", runs[1], FLOAT32_GRADIENT)):
        norms = dict(zip(names, vectors[f"{kind}/grad_norms"].tolist(), strict=True))
        for what, ours in (("grad_norms", run[1]), ("grad_dots", run[2])):
            # A product may be small by chance: it is measured against the gradient's norm.
            recorded, small = vectors[f"{kind}/{what}"], what == "grad_dots"
            yield worst(
                f"{FILE}/{kind}/{what}",
                [
                    compare(
                        name, ours[i], recorded[i], bound,
                        floor=gradient_floor(name, norms) or (norms[name] if small else 0.0),
                    )
                    for i, name in enumerate(names)
                ],
            )  # fmt: skip
    yield from vectors.unread()


def _load(model: PublishedModel, meta: Mapping[str, Any]) -> Iterator[Check]:
    """Write recipe weights into the model, one at a time, and check each one's digest."""
    state, every = model.state_dict(), []
    for name, shape, sha in meta["parameters"]:
        ours = our_name(name)
        by_recipe = name not in TABLES
        value = make(name, shape, meta["weight_seed"]) if by_recipe else state[str(ours)].numpy()
        every.append(compare(name, digest(value), sha, EXACT))
        if name in UNUSED:
            continue
        known = ours in state and state[str(ours)].shape == tuple(shape)
        every.append(Check(name, 0.0 if known else float("nan"), EXACT, "name and shape"))
        if known:
            state[str(ours)].copy_(torch.from_numpy(value))
    recorded = {name for name, _, _ in meta["parameters"]} - set(UNUSED)
    ours_published = {published_name(name) for name in state}
    yield worst(f"{FILE}/parameters", every)
    yield Check(f"{FILE}/names", float(len(recorded ^ ours_published)), EXACT)


def _inputs(folder: Path, meta: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The first images of image_branch with two texts of masking.json."""
    picture = Vectors(folder / "image_branch.safetensors")
    cases = {case["id"]: case for case in read_json(folder / "masking.json")["cases"]}
    runs = [cases[case]["runs"][run] for case, run in meta["masking_cases"]]
    images_part = [picture[f"in/{name}"][: len(runs)] for name in ("noise", "row", "column")]
    texts = [
        np.array([run[name] for run in runs]) for name in ("masked_ids", "ids", "attention_mask")
    ]
    weights = np.array([run["weights"] for run in runs], np.float32)
    return (images(picture["in/image_u8"][: len(runs)]), *images_part, *texts, weights)


def _samples(
    model: PublishedModel, losses: Losses, meta: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    whole = results(model, losses)
    samples = {
        name: take(whole[name.removesuffix("@sample")], text)
        for name, text in meta.items()
        if name.endswith("@sample")
    }
    names = ("mim_loss", "res_loss", "mlm_loss")
    samples["losses"] = np.concatenate([whole[name] for name in names]).astype(np.float64)
    return samples


def _gradients(model: PublishedModel, meta: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Norm of each parameter's gradient, and its product with numbers by recipe; -1 and 0: none."""
    parameters = dict(model.named_parameters())
    norms, dots = [], []
    for name, shape, _ in meta["parameters"]:
        parameter = parameters.get(our_name(name) or "")
        gradient = None if parameter is None else parameter.grad
        if gradient is None:
            norms.append(-1.0)
            dots.append(0.0)
            continue
        gradient = gradient.double().flatten()
        other = torch.from_numpy(make(name, shape, 1, "vec")).double().flatten()
        norms.append(float(gradient.norm()))
        dots.append(float(gradient @ other))
    return norms, dots
