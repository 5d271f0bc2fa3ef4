"""Checks of a training recipe for any test: the flaws of published recipes.

Each raises AssertionError, which names the flaw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ecamp.api.encoder import Features


def check_schedule(rates: Sequence[float], end: float = 0.05) -> None:
    """Check that a learning rate rises once, then falls, and training ends where the schedule ends.

    An example that fails: docs/published-flaws.md#f17.

    Args:
        rates: The learning rate of every step.
        end: Largest fraction of the peak at the last step.
    """
    assert rates, "no step was made"
    peak = max(range(len(rates)), key=lambda step: rates[step])
    for step in range(1, len(rates)):
        rises = rates[step] > rates[step - 1] * (1 + 1e-9)
        if step <= peak:
            fell = rates[step] < rates[step - 1] * (1 - 1e-9)
            assert not fell, f"the rate falls at step {step}, before its peak at {peak}"
        else:
            assert not rises, f"the rate rises again at step {step} of {len(rates)}"
    last = rates[-1] / rates[peak]
    assert last <= end, f"training ends at {last:.0%} of the peak rate: the schedule aims elsewhere"


def check_frozen(encode: Callable[[Tensor], Features], images: Tensor) -> None:
    """Check that frozen features are a function of the image: equal twice, and with other images.

    Fails where dropout or drop-path is on, or batch norm takes its statistics from the batch
    (docs/published-flaws.md#f20).

    Args:
        images: float (batch, channels, size, size), three or more.
    """
    first, again, alone = encode(images), encode(images), encode(images[:2])
    assert not first.pooled.requires_grad, "frozen features carry a graph"
    for name, parts in (
        ("pooled", (first.pooled, again.pooled, alone.pooled)),
        *(
            (f"pyramid[{i}]", parts)
            for i, parts in enumerate(zip(first.pyramid, again.pyramid, alone.pyramid, strict=True))
        ),
    ):
        one, two, few = parts
        assert torch.equal(one, two), f"{name}: the same images give other features: dropout is on"
        assert torch.allclose(one[:2].float(), few.float(), atol=1e-2, rtol=1e-2), (
            f"{name}: an image's features depend on the other images of the batch"
        )
