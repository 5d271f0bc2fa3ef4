"""Learning rate over steps: linear warm-up, then a cosine that ends where training ends."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.0) -> float:
    """Compute the factor of the base learning rate.

    Args:
        step: From 0; steps past the end keep the floor (the published schedule rises again there).
        total: Steps of the whole training.
        warmup: Steps of linear rise.
        floor: Factor at the end.

    Returns:
        In (0, 1]: rises to 1 at step `warmup - 1`, falls to `floor` at step `total - 1`.
    """
    if step < warmup:
        return (step + 1) / warmup
    if step >= total - 1:
        return floor if total > warmup else 1.0
    progress = (step - warmup + 1) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
