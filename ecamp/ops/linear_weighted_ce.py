"""`linear_weighted_ce`: the vocabulary head and its weighted cross-entropy without all the logits.

loss = sum_i weights_i * CE(hidden_i @ weight^T + bias, labels_i)

Rows go through in chunks. A chunk's logits are computed, turned in place into their own gradient
(`ce_rows_`: one kernel), and at once multiplied into the gradients of hidden, weight and bias, so
one buffer of a few megabytes takes the place of all logits, their softmax and their gradient.
Backward only multiplies by the loss's gradient. The three matrix products per chunk are ATen's.

The gradients are computed before the factor of backward is known. In float16 a factor that makes
gradients small must therefore come after: divide the loss, not the weights.

Precision. Logits, gradients of logits and matrix products have the inputs' type, as with
`F.linear`; everything between is float32. Gradients of weight and bias are added up over chunks in
float32. In float16 the logits' gradients are stored 64 times too large (weights up to 1,000
fit) and the products divide again: small probabilities of a large vocabulary would vanish otherwise.

One op, `ecamp::linear_weighted_ce`, holds the loop over chunks: to `torch.compile` it is one opaque
node, so there is no graph break, no unrolled loop, and no new compilation for another number of
rows. The `autograd.Function` around it only keeps the gradients.

Why: docs/decisions.md#gradients-in-the-forward-pass.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._ext import load_extension
from ecamp.ops._library import autocast_dtype, define
from ecamp.ops.ce_rows import ce_rows_reference, loss_dtype_of

# Bytes of one chunk's logits. On the CPU the matrix products' speed levels off there: 16 MB take 4 %
# longer, 8 MB 12 %. On a GPU, where a chunk must fill the device, it is an estimate.
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}
# Rows of the weight's gradient at a time when a 16-bit product is added to a float32 sum: the
# product then stays in a cache, which is worth 2.5x.
BLOCK_ROWS = {"cpu": 2048, "cuda": 1 << 30}
HALF_SCALE = 64.0

Result = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def linear_weighted_ce(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor
) -> Tensor:
    """Sum over rows of weight times cross-entropy, with gradients for all float inputs.

    Args:
        hidden: (N, D) float32, bfloat16 or float16; float64 on the slow reference.
        weight: (V, D) of the same type, like `nn.Linear.weight`; any V.
        bias: (V,) of the same type, or None.
        labels: int64 (N,) in 0 .. V - 1. Checked on the CPU; on a GPU a row with another label
            counts as absent.
        weights: float32 (N,).

    Returns:
        float32 scalar; divide it by `weights.sum()` for the weighted mean. Under autocast the
        matrix products run in autocast's type, as in `F.linear`.

    Raises:
        ValueError: Wrong shape, dtype or device. RuntimeError: a label outside the vocabulary.
    """
    return linear_weighted_ce_rows(hidden, weight, bias, labels, weights)[0]


def linear_weighted_ce_rows(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """As `linear_weighted_ce`, with the unweighted float32 (N,) losses, which carry no gradient."""
    autocast = autocast_dtype(hidden)
    _check(hidden, weight, bias, labels, weights, autocast is not None)
    load_extension()
    dtype = autocast or hidden.dtype
    inputs = [hidden, weight, bias, weights]
    needs_grad = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in inputs]
    args = (hidden.to(dtype), weight, bias, labels, weights, dtype, needs_grad)
    if any(needs_grad):
        loss, losses = _LinearWeightedCE.apply(*args)
        return loss, losses
    return _call(*args)[:2]


def _check(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor,
    autocast: bool,
) -> None:  # fmt: skip
    op = "linear_weighted_ce"
    if hidden.dim() != 2 or not hidden.is_floating_point():
        raise ValueError(
            f"{op}: hidden must be floating (N, D), got {hidden.dtype} {tuple(hidden.shape)}"
        )
    n, width = hidden.shape
    if weight.dim() != 2 or weight.shape[1] != width or weight.shape[0] == 0:
        raise ValueError(f"{op}: weight must be (V, {width}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{op}: bias must be ({weight.shape[0]},), got {tuple(bias.shape)}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != hidden.dtype and not autocast:
            raise ValueError(f"{op}: {name} is {tensor.dtype}, hidden {hidden.dtype}")
    loss_dtype = loss_dtype_of(hidden)
    for name, tensor, dtype in (("labels", labels, torch.int64), ("weights", weights, loss_dtype)):
        if tensor.shape != (n,) or tensor.dtype != dtype:
            raise ValueError(
                f"{op}: {name} must be {dtype} ({n},), got {tensor.dtype} {tuple(tensor.shape)}"
            )
    devices = {t.device for t in (hidden, weight, bias, labels, weights) if t is not None}
    if len(devices) > 1:
        raise ValueError(f"{op}: tensors lie on {sorted(map(str, devices))}; move them together")


def _call(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor,
    dtype: torch.dtype, needs_grad: list[bool],
) -> Result:  # fmt: skip
    """Run the op on matrices of one type; the weight's gradient has the weight's own type."""
    wide = weight.dtype == torch.float32
    cast = None if bias is None else bias.to(dtype)
    result: Result = torch.ops.ecamp.linear_weighted_ce(
        hidden, weight.to(dtype), cast, labels, weights, *needs_grad[:3], wide
    )
    return result


class _LinearWeightedCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor,
        weights: Tensor, dtype: torch.dtype, needs_grad: list[bool],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        loss, losses, *grads = _call(hidden, weight, bias, labels, weights, dtype, needs_grad)
        ctx.save_for_backward(losses, *grads)
        ctx.needs_grad = needs_grad
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(losses)
        return loss, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        losses, *grads = ctx.saved_tensors
        # The largest of them has the size of the weight: multiply it in place, unless the graph is
        # kept for another backward. A factor of 1 is seen for free on the CPU only.
        compiling = torch.compiler.is_compiling()
        if compiling or _keeps_graph():
            grads = [g * grad for g in grads]
        elif grad.device.type != "cpu" or grad.item() != 1:
            grads = [g.mul_(grad) for g in grads]
        needs_grad = ctx.needs_grad
        return (
            grads[0] if needs_grad[0] else None,
            grads[1] if needs_grad[1] else None,
            grads[2].to(ctx.bias_dtype) if needs_grad[2] else None,
            None,
            losses * grad if needs_grad[3] else None,
            None,
            None,
        )


def _keeps_graph() -> bool:
    """Whether the running backward leaves the graph usable; True where torch does not report it."""
    query = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return query is None or bool(query())


@torch.no_grad()
def _chunked(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor,
    need_hidden: bool, need_weight: bool, need_bias: bool, wide: bool,
) -> Result:  # fmt: skip
    """Run on any device: matrix products by ATen, `ce_rows_` by the device's kernel.

    Returns:
        loss, losses (N,), and the gradients of hidden, weight and bias, empty where not needed:
        the first of the inputs' type, the second too unless `wide` asks for float32, the third
        float32.
    """
    n, vocabulary = len(hidden), len(weight)
    _check_labels(labels, vocabulary)
    labels, weights = labels.contiguous(), weights.contiguous()
    bias = None if bias is None else bias.contiguous()
    loss_dtype, weight_dtype = loss_dtype_of(hidden), torch.float32 if wide else weight.dtype
    chunk, count = _chunks(n, vocabulary, hidden)
    sum_dtype = weight_dtype if count == 1 else loss_dtype
    losses = hidden.new_empty(n, dtype=loss_dtype)
    d_hidden = hidden.new_empty(hidden.shape if need_hidden else 0)
    d_weight = weight.new_empty(weight.shape if need_weight else 0, dtype=sum_dtype)
    d_bias = weight.new_zeros(vocabulary if need_bias else 0, dtype=loss_dtype)
    if n == 0:
        return losses.sum(), losses, d_hidden, d_weight.zero_(), d_bias
    ce_rows = ce_rows_reference if hidden.dtype == torch.float64 else torch.ops.ecamp.ce_rows_
    scale = HALF_SCALE if hidden.dtype == torch.float16 else 1.0
    gradient = need_hidden or need_weight or need_bias
    # Rows of the buffer start at whole cache lines, whatever the vocabulary: up to 10 % of float32
    # products with 30,522 columns. The weight itself gains nothing by padding then.
    # Zeros, because the bfloat16 product of torch 2.13 on AMX reads the columns beyond the vocabulary
    # (and multiplies them by zero): NaN in memory that was never written would reach the gradient.
    buffer = hidden.new_zeros(chunk, -(-vocabulary // 64) * 64)[:, :vocabulary]
    for start in range(0, n, chunk):
        rows = slice(start, min(n, start + chunk))
        x, logits = hidden[rows], buffer[: len(hidden[rows])]
        torch.mm(x, weight.t(), out=logits)
        losses[rows] = ce_rows(logits, bias, labels[rows], weights[rows], scale, gradient)
        if need_hidden:
            _product(d_hidden[rows], logits, weight, scale, add=False)
        if need_weight:
            _add_weight(d_weight, logits, x, scale, add=start > 0)
        if need_bias:
            _add_columns(d_bias, logits, 1.0 / scale)
    del buffer, logits
    # In float64: how threads split the sum then does not show.
    loss = (losses.double() * weights.double()).sum().to(loss_dtype)
    return loss, losses, d_hidden, d_weight.to(weight_dtype), d_bias


def _chunks(n: int, vocabulary: int, hidden: Tensor) -> tuple[int, int]:
    """Return the rows per chunk and the number of chunks, all of about one size."""
    max_bytes = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cpu"])
    max_rows = max(16, max_bytes // (vocabulary * hidden.element_size()))
    count = max(1, math.ceil(n / max_rows))
    return max(1, math.ceil(n / count)), count


def _product(out: Tensor, a: Tensor, b: Tensor, scale: float, add: bool) -> None:
    """Set out = a @ b / scale, or add it to out; the division precedes the rounding."""
    out.addmm_(a, b, beta=1.0 if add else 0.0, alpha=1.0 / scale)


def _add_weight(total: Tensor, logits: Tensor, x: Tensor, scale: float, add: bool) -> None:
    """Set or add logits^T @ x / scale; a 16-bit product is added to a float32 total by blocks."""
    if total.dtype == x.dtype:
        _product(total, logits.t(), x, scale, add)
        return
    size = min(len(total), BLOCK_ROWS.get(x.device.type, BLOCK_ROWS["cpu"]))
    block = x.new_empty(size, x.shape[1])
    for start in range(0, len(total), size):
        part = total[start : start + size]
        product = block[: len(part)]
        _product(product, logits[:, start : start + size].t(), x, scale, add=False)
        part.add_(product) if add else part.copy_(product)


def _add_columns(total: Tensor, logits: Tensor, factor: float) -> None:
    """Add factor * column sums, a few rows at a time where a sum converts its input first."""
    converts = logits.device.type == "cpu" and logits.dtype != total.dtype
    for part in logits.split(32 if converts else max(1, len(logits))):
        total.add_(part.sum(0, dtype=total.dtype), alpha=factor)


def _check_labels(labels: Tensor, vocabulary: int) -> None:
    if labels.device.type != "cpu":
        return
    wrong = ((labels < 0) | (labels >= vocabulary)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise RuntimeError(
            f"linear_weighted_ce: labels[{row}] = {int(labels[row])} lies outside"
            f" 0..{vocabulary - 1}"
        )


def _reference(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor
) -> Tensor:
    """Compute the loss in plain torch, all logits at once; the op equals it up to rounding."""
    logits = F.linear(hidden, weight, bias).to(loss_dtype_of(hidden))
    return (F.cross_entropy(logits, labels, reduction="none") * weights).sum()


def _fake(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor,
    need_hidden: bool, need_weight: bool, need_bias: bool, wide: bool,
) -> Result:  # fmt: skip
    dtype = loss_dtype_of(hidden)
    return (
        hidden.new_empty((), dtype=dtype),
        hidden.new_empty(hidden.shape[0], dtype=dtype),
        hidden.new_empty(hidden.shape if need_hidden else 0),
        weight.new_empty(
            weight.shape if need_weight else 0, dtype=torch.float32 if wide else weight.dtype
        ),
        weight.new_empty(weight.shape[0] if need_bias else 0, dtype=dtype),
    )


define(
    "linear_weighted_ce(Tensor hidden, Tensor weight, Tensor? bias, Tensor labels, Tensor weights,"
    " bool need_hidden, bool need_weight, bool need_bias, bool wide)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _chunked,
    _fake,
)
