"""schedules.npz: the published learning rates of fine-tuning and pre-training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ecamp.published.downstream.schedules import (
    pretraining_lr,
    pretraining_lrs,
    warmup_cosine,
    warmup_linear,
)
from tests.golden.check import FLOAT64, Check, Vectors, compare

FILE = "schedules.npz"
FINE_TUNING = "lr_after_k_scheduler_steps"
PRE_TRAINING = "returned_group0_group1scale"


def checks(folder: Path) -> Iterator[Check]:
    """Every vector of the file."""
    vectors = Vectors(folder / FILE)
    for name in vectors.names():
        case, _, vector = name.rpartition("/")
        if vector == FINE_TUNING:
            yield compare(f"{FILE}/{name}", _fine_tuning(vectors, case), vectors[name], FLOAT64)
        elif vector.startswith(PRE_TRAINING):
            scale = float(vector.removeprefix(PRE_TRAINING))
            got = _pre_training(vectors, case, scale)
            yield compare(f"{FILE}/{name}", got, vectors[name], FLOAT64)
        elif vector == "lr_per_batch":
            yield compare(f"{FILE}/{name}", _loop(vectors, case), vectors[name], FLOAT64)
    yield from vectors.unread()


def _fine_tuning(vectors: Vectors, case: str) -> np.ndarray:
    rate, warmup, total, cycles = vectors[f"{case}/settings_lr_warmup_total_cycles"].tolist()
    steps, warmup, total = len(vectors[f"{case}/{FINE_TUNING}"]), int(warmup), int(total)
    if cycles:
        factors = [
            warmup_cosine(step, warmup=warmup, total=total, cycles=cycles) for step in range(steps)
        ]
    else:
        factors = [warmup_linear(step, warmup=warmup, total=total) for step in range(steps)]
    result: np.ndarray = rate * np.array(factors)
    return result


def _pre_training(vectors: Vectors, case: str, scale: float) -> np.ndarray:
    lr, floor, warmup, last = vectors[f"{case}/settings_lr_min_warmup_max"].tolist()
    lrs = [
        pretraining_lr(epoch, lr=lr, floor=floor, warmup_epochs=warmup, last_epoch=last)
        for epoch in vectors[f"{case}/epoch"].tolist()
    ]
    return np.stack([lrs, lrs, scale * np.array(lrs)], 1)


def _loop(vectors: Vectors, case: str) -> np.ndarray:
    settings = vectors[f"{case}/settings_batches_accum_epochs_lr_min_warmup_max"].tolist()
    batches, accumulate, epochs, lr, floor, warmup, last = settings
    lrs = pretraining_lrs(
        batches=int(batches),
        accumulate=int(accumulate),
        epochs=int(epochs),
        lr=lr,
        floor=floor,
        warmup_epochs=warmup,
        last_epoch=last,
    )
    return np.array(list(lrs))
