"""`residual_norm`: BERT's post-norm tail over packed rows, in one pass.

y = LayerNorm(dropout(x + row_bias[row_batch]) + residual)

Types. Computed in float32 (in float64 when an argument is float64, which has no kernel). The
result has the type eager would give: under autocast float32, as LayerNorm there; else that of
x + row_bias + residual. gamma and beta may be float32 with bfloat16 rows. Each gradient has the
type of its argument.

Random numbers. Philox4x32-10 with counter (position, column // 4, sample id, step) and the seed as
key; column j is kept when word j % 4 >= round(dropout * 2**32), and then scaled by
1 / (1 - dropout). So a decision depends on (seed, step, sample id, position, column) alone: packed
and padded rows, any batch and any number of threads agree bit for bit. Layers need different seeds.

Only the arguments, mean and 1 / deviation of each row are kept for the backward; it adds up
in a fixed order, so gradients too have the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._ext import load_extension
from ecamp.ops._library import autocast_dtype, define
from ecamp.ops.dropout_rows import keep_mask


def residual_norm(
    x: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float,
    row_bias: Tensor | None = None,
    row_batch: Tensor | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    step: int = 0,
    samples: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Add a bias by sample, drop out, add the residual, normalise.

    Args:
        x: (T, D), rows of all samples one after another.
        residual: (T, D).
        gamma, beta: (D,).
        row_bias: (B, D), one for each sample; needs row_batch.
        row_batch: int64 (T,), the sample 0..B-1 of a row; sorted or not.
        dropout: Probability to drop, 0 <= dropout < 1; above 0 it needs samples and positions.
        seed, step: Non-negative.
        samples: int64 (T,), the number of a row's sample in its data set.
        positions: int64 (T,), the position of a row in its sample.

    Returns:
        (T, D), of the type above.

    Raises:
        ValueError: Wrong shape, dtype or device.
        RuntimeError: On the CPU: a row_batch entry outside 0..B-1.
    """
    _check(x, residual, gamma, beta, row_bias, row_batch, dropout, samples, positions)
    load_extension()
    dtype = torch.promote_types(x.dtype, residual.dtype)
    if row_bias is not None:
        dtype = torch.promote_types(dtype, row_bias.dtype)
    if dtype != torch.float64 and autocast_dtype(x) is not None:
        dtype = torch.float32
    if row_bias is None:
        row_batch = None
    if dropout == 0.0:
        samples = positions = None
    out: Tensor = _ResidualNorm.apply(
        x, residual, gamma, beta, row_bias, row_batch, samples, positions, eps, dropout, seed, step,
        dtype,
    )  # fmt: skip
    return out


def _check(
    x: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, row_bias: Tensor | None,
    row_batch: Tensor | None, dropout: float, samples: Tensor | None, positions: Tensor | None,
) -> None:  # fmt: skip
    if x.dim() != 2 or x.shape[1] == 0 or not x.is_floating_point():
        raise ValueError(
            f"residual_norm: x must be floating (T, D), got {x.dtype} {tuple(x.shape)}"
        )
    rows, width = x.shape
    floating = [("residual", residual, (rows, width)), ("gamma", gamma, (width,)),
                ("beta", beta, (width,))]  # fmt: skip
    if row_bias is not None:
        batch = row_bias.shape[0] if row_bias.dim() else 0
        floating.append(("row_bias", row_bias, (batch, width)))
    for name, tensor, shape in floating:
        if tensor.shape != shape or not tensor.is_floating_point():
            raise ValueError(
                f"residual_norm: {name} must be floating {shape}, "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"residual_norm: dropout must lie in [0, 1), got {dropout}")
    needed = {"row_batch": row_bias is not None, "samples": dropout > 0, "positions": dropout > 0}
    indices = {"row_batch": row_batch, "samples": samples, "positions": positions}
    for name, index in indices.items():
        if needed[name] and index is None:
            argument = "row_bias" if name == "row_batch" else "dropout"
            raise ValueError(f"residual_norm: {argument} needs {name}")
        if index is not None and (index.shape != (rows,) or index.dtype != torch.int64):
            raise ValueError(
                f"residual_norm: {name} must be int64 ({rows},), "
                f"got {index.dtype} {tuple(index.shape)}"
            )
    tensors = [residual, gamma, beta, row_bias, row_batch, samples, positions]
    devices = {t.device for t in [x, *tensors] if t is not None}
    if len(devices) > 1:
        raise ValueError(
            f"residual_norm: tensors lie on {sorted(map(str, devices))}; move them together"
        )


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        tensors: list[Any] = [None if t is None else t.contiguous() for t in arguments[:8]]
        x, residual, gamma, beta, row_bias, row_batch, samples, positions = tensors
        eps, dropout, seed, step, dtype = arguments[8:]
        op: Callable[..., Any] = _reference
        if dtype != torch.float64:
            op = torch.ops.ecamp.residual_norm
        y: Tensor
        y, mean, rstd = op(
            x, residual, gamma, beta, eps, row_bias, row_batch, dropout, seed, step, samples,
            positions, dtype,
        )  # fmt: skip
        ctx.save_for_backward(
            x, residual, gamma, mean, rstd, row_bias, row_batch, samples, positions
        )
        ctx.numbers = dropout, seed, step
        ctx.beta_dtype = beta.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, residual, gamma, mean, rstd, row_bias, row_batch, samples, positions = ctx.saved_tensors
        op: Callable[..., Any] = _backward_reference
        if grad.dtype != torch.float64:
            op = torch.ops.ecamp.residual_norm_backward
        dx, dresidual, dgamma, dbeta, dbias = op(
            grad.contiguous(), x, residual, gamma, mean, rstd, row_bias, row_batch, *ctx.numbers,
            samples, positions,
        )  # fmt: skip
        if _is_shared(x, residual, ctx.numbers[0]):
            dresidual = dx
        dbeta = dbeta.to(ctx.beta_dtype)
        return dx, dresidual, dgamma, dbeta, None if row_bias is None else dbias, *[None] * 8


def _is_shared(x: Tensor, residual: Tensor, dropout: float) -> bool:
    """Whether both gradients are the same numbers; the op then returns those of x only."""
    return _limit(dropout) == 0 and x.dtype == residual.dtype


def _limit(dropout: float) -> int:
    """Compute the bound below which a word drops its column; at most 2**32 - 1, to fit 32 bits."""
    return min(int(np.rint(np.float64(dropout) * 2.0**32)), 2**32 - 1)


def _factor(
    dropout: float, seed: int, step: int, samples: Tensor, positions: Tensor, width: int
) -> Tensor:
    """Return 0 or 1 / (1 - dropout) for each value, float32 (T, width)."""
    keep = keep_mask(samples, positions, width, _limit(dropout), seed, step)
    return keep * torch.tensor(1.0 / (1.0 - dropout))


def _add_up(
    x: Tensor, residual: Tensor, row_bias: Tensor | None, row_batch: Tensor | None,
    dropout: float, seed: int, step: int, samples: Tensor | None, positions: Tensor | None,
    wide: torch.dtype,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return dropout(x + bias) + residual, and the factor of dropout."""
    z = x.to(wide)
    if row_bias is not None and row_batch is not None:
        if row_batch.device.type == "cpu":
            wrong = ((row_batch < 0) | (row_batch >= len(row_bias))).nonzero().flatten().tolist()
            for t in wrong[:1]:
                raise RuntimeError(
                    f"residual_norm: row_batch[{t}] = {int(row_batch[t])} lies outside "
                    f"0..{len(row_bias) - 1}"
                )
        z = z + row_bias.to(wide)[row_batch]
    factor = None
    if _limit(dropout) > 0 and samples is not None and positions is not None:
        factor = _factor(dropout, seed, step, samples, positions, x.shape[1]).to(wide)
        z = z * factor
    return z + residual.to(wide), factor


def _wide(*tensors: Tensor | None) -> torch.dtype:
    double = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if double else torch.float32


def _reference(
    x: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float, row_bias: Tensor | None,
    row_batch: Tensor | None, dropout: float, seed: int, step: int, samples: Tensor | None,
    positions: Tensor | None, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Apply the rules above in plain torch; mean and rstd are saved for the backward."""
    wide = _wide(x, residual, row_bias)
    z, _ = _add_up(
        x, residual, row_bias, row_batch, dropout, seed, step, samples, positions, wide
    )  # fmt: skip
    mean = z.mean(-1)
    centred = z - mean[:, None]
    rstd = (centred.square().mean(-1) + eps).rsqrt()
    y = centred * rstd[:, None] * gamma.to(wide) + beta.to(wide)
    return y.to(dtype), mean, rstd


def _backward_reference(
    grad: Tensor, x: Tensor, residual: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor,
    row_bias: Tensor | None, row_batch: Tensor | None, dropout: float, seed: int, step: int,
    samples: Tensor | None, positions: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    wide = _wide(x, residual, row_bias)
    z, factor = _add_up(
        x, residual, row_bias, row_batch, dropout, seed, step, samples, positions, wide
    )  # fmt: skip
    normalised = (z - mean[:, None]) * rstd[:, None]
    dy = grad.to(wide)
    scaled = dy * gamma.to(wide)
    along_one = scaled.mean(-1, keepdim=True)
    along_z = (scaled * normalised).mean(-1, keepdim=True)
    dz = (scaled - along_one - normalised * along_z) * rstd[:, None]
    dx = dz if factor is None else dz * factor
    dbias = x.new_empty(0, x.shape[1])
    if row_bias is not None and row_batch is not None:
        total = torch.zeros_like(row_bias, dtype=wide)
        dbias = total.index_add_(0, row_batch, dx).to(row_bias.dtype)
    dresidual = residual[:0].clone() if _is_shared(x, residual, dropout) else dz.to(residual.dtype)
    return (
        dx.to(x.dtype, copy=True), dresidual, (dy * normalised).sum(0).to(gamma.dtype),
        dy.sum(0).to(gamma.dtype), dbias,
    )  # fmt: skip


def _fake(
    x: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float, row_bias: Tensor | None,
    row_batch: Tensor | None, dropout: float, seed: int, step: int, samples: Tensor | None,
    positions: Tensor | None, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    statistic = x.new_empty(x.shape[0], dtype=torch.float32)
    return x.new_empty(x.shape, dtype=dtype), statistic, torch.empty_like(statistic)


def _backward_fake(
    grad: Tensor, x: Tensor, residual: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor,
    row_bias: Tensor | None, row_batch: Tensor | None, dropout: float, *_: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    rows = 0 if _is_shared(x, residual, dropout) else x.shape[0]
    dbias = x.new_empty(0, x.shape[1]) if row_bias is None else torch.empty_like(row_bias)
    return (
        torch.empty_like(x), residual.new_empty(rows, x.shape[1]), torch.empty_like(gamma),
        torch.empty_like(gamma), dbias,
    )  # fmt: skip


# SymInt: a step that changes does not compile the model again.
_RANDOM = "float dropout, SymInt seed, SymInt step, Tensor? samples, Tensor? positions"
define(
    "residual_norm(Tensor x, Tensor residual, Tensor gamma, Tensor beta, float eps,"
    f" Tensor? row_bias, Tensor? row_batch, {_RANDOM}, ScalarType dtype)"
    " -> (Tensor, Tensor, Tensor)",
    _reference,
    _fake,
)
define(
    "residual_norm_backward(Tensor grad, Tensor x, Tensor residual, Tensor gamma, Tensor mean,"
    f" Tensor rstd, Tensor? row_bias, Tensor? row_batch, {_RANDOM})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_reference,
    _backward_fake,
)
