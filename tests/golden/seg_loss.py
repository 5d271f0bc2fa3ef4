"""seg_loss.npz: the published segmentation losses and their Dice metric."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ecamp.published.downstream.segmentation import (
    dice_coefficient,
    dice_loss,
    focal_loss,
    get_dice,
    mixed_loss,
)
from tests.golden.check import (
    FLOAT32,
    FLOAT32_GRADIENT,
    FLOAT64,
    ROUNDED,
    Check,
    Vectors,
    compare,
)

FILE = "seg_loss.npz"


def checks(folder: Path) -> Iterator[Check]:
    """Every vector of the file."""
    vectors = Vectors(folder / FILE)
    for case in [
        name.removesuffix("/target") for name in vectors.names() if name.endswith("/target")
    ]:
        yield from _losses(vectors, case)
    if vectors.names("dice_metric/"):
        yield from dice_checks(vectors, "dice_metric")
    yield from vectors.unread()


def _loss_named(name: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Our function for a recorded loss name, which also holds its settings."""
    if match := re.fullmatch(r"mixed_a([\d.]+)_g([\d.]+)", name):
        return partial(mixed_loss, alpha=float(match[1]), gamma=float(match[2]))
    if match := re.fullmatch(r"focal_g([\d.]+)", name):
        return partial(focal_loss, gamma=float(match[1]))
    if name == "dice_coefficient":
        return dice_coefficient
    if name == "DiceLoss_on_sigmoid":
        return lambda logits, target: dice_loss(logits.sigmoid(), target)
    return None


def _losses(vectors: Vectors, case: str) -> Iterator[Check]:
    for dtype, run, tolerance in (
        (torch.float32, "f32", FLOAT32),
        (torch.float64, "f64", FLOAT64),
    ):
        target = vectors.tensor(f"{case}/target", dtype)
        for vector in vectors.names(f"{case}/{run}/"):
            loss = vector.split("/")[-1]
            function = _loss_named(loss)
            if function is None:
                continue  # `unread` reports it
            logits = vectors.tensor(f"{case}/logits", dtype).requires_grad_()
            value = function(logits, target)
            yield compare(f"{FILE}/{vector}", value.reshape(1), vectors[vector], tolerance)
            gradient = f"{case}/f64r/{loss}/grad"
            if gradient in vectors:
                (got,) = torch.autograd.grad(value, logits)
                exact = dtype == torch.float64
                yield compare(
                    f"{FILE}/{gradient}" + ("" if exact else " (float32)"),
                    got,
                    vectors[gradient],
                    ROUNDED if exact else FLOAT32_GRADIENT,
                )


def dice_checks(vectors: Vectors, group: str) -> Iterator[Check]:
    """The `get_dice` vectors under a prefix; metrics.npz holds the same kind."""
    file, prefix = vectors.path.name, f"{group}/"
    probability, truth = vectors.tensor(f"{prefix}prob"), vectors.tensor(f"{prefix}truth")
    for name in vectors.names(f"{prefix}get_dice_t"):
        threshold = float(name.rsplit("_t", 1)[1])
        dice = get_dice(probability, truth, threshold)
        yield compare(f"{file}/{name}", dice, vectors[name], FLOAT32)
        mean = f"{prefix}mean_t{name.rsplit('_t', 1)[1]}"
        if mean in vectors:
            yield compare(f"{file}/{mean}", dice.mean().reshape(1), vectors[mean], FLOAT32)
    for name in vectors.names(f"{prefix}two_batches_"):
        if name.endswith("_mean"):
            continue
        sizes = [int(size) for size in name.rsplit("two_batches_", 1)[1].split("_")]
        parts = zip(probability.split(sizes), truth.split(sizes), strict=True)
        joined = np.concatenate([get_dice(p, t).numpy() for p, t in parts])
        yield compare(f"{file}/{name}", joined, vectors[name], FLOAT32)
        yield compare(
            f"{file}/{prefix}two_batches_mean",
            joined.mean().reshape(1),
            vectors[f"{prefix}two_batches_mean"],
            FLOAT32,
        )
