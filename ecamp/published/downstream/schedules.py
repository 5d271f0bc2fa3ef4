"""The published learning-rate schedules (ECAMP fine-tuning and pre-training).

The stop rule is tested at epoch ends only, so training usually runs past its last step, and there the
fine-tuning cosine rises again (docs/published-flaws.md#f17). `ecamp.train.schedule` ends where training ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator


def warmup_linear(step: int, *, warmup: int, total: int) -> float:
    """Compute the factor of the base rate after `step` steps: linear rise, linear fall to 0, then 0."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def warmup_cosine(step: int, *, warmup: int, total: int, cycles: float = 0.5) -> float:
    """Compute the factor of the base rate after `step` scheduler steps: linear rise, then a cosine.

    Args:
        cycles: Waves between `warmup` and `total`; past `total` the wave continues (with 0.5 the
            rate rises again: docs/published-flaws.md#f17).
    """
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * float(cycles) * 2 * progress)))


def pretraining_lr(
    epoch: float, *, lr: float, floor: float, warmup_epochs: float, last_epoch: float
) -> float:
    """Compute the rate at a fractional epoch: linear rise, then half a cosine aimed at `last_epoch`.

    The published run aims at 200 epochs and stops at 120, so its rate never gets low
    (docs/published-flaws.md#f38); past `last_epoch` it rises again. A parameter group with an
    `lr_scale` multiplies this.
    """
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / (last_epoch - warmup_epochs)
    return floor + (lr - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def pretraining_lrs(
    *,
    batches: int,
    accumulate: int,
    epochs: int,
    lr: float,
    floor: float,
    warmup_epochs: float,
    last_epoch: float,
) -> Iterator[float]:
    """Yield the learning rate of every batch of a pre-training, epoch by epoch.

    The rate changes only at the first batch of an accumulation group, counted within the epoch; the
    gradients of a group that the end of the epoch truncates are discarded.
    """
    current = lr
    for epoch in range(epochs):
        for batch in range(batches):
            if batch % accumulate == 0:
                current = pretraining_lr(
                    batch / batches + epoch,
                    lr=lr,
                    floor=floor,
                    warmup_epochs=warmup_epochs,
                    last_epoch=last_epoch,
                )
            yield current
