"""`ce_rows_`: cross-entropy of a chunk of logits, which become their own gradient in place.

A step of `linear_weighted_ce`; its own op so that every device brings its own kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecamp.ops._library import define


def loss_dtype_of(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def ce_rows_reference(
    logits: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor, scale: float,
    gradient: bool,
) -> Tensor:  # fmt: skip
    """Run `ce_rows_` in plain torch; labels outside the vocabulary count as absent rows."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    x = logits.to(dtype) if bias is None else logits.to(dtype) + bias.to(dtype)
    valid = (labels >= 0) & (labels < logits.shape[1])
    target = labels.where(valid, 0)[:, None]
    log_p = x.log_softmax(1)
    losses = -log_p.gather(1, target)[:, 0] * valid
    if gradient:
        d = log_p.exp_()
        d.scatter_add_(1, target, -torch.ones_like(target, dtype=dtype))
        logits.copy_(d.mul_((weights * valid * scale)[:, None]))
    return losses


def _fake(logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=loss_dtype_of(logits))


define(
    "ce_rows_(Tensor(a!) logits, Tensor? bias, Tensor labels, Tensor weights, float scale,"
    " bool gradient) -> Tensor",
    ce_rows_reference,
    _fake,
)
