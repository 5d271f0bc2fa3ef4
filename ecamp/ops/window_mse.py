"""`window_mse`: mean squared error of a prediction against one window of each image.

loss = mean((predicted[b] - images[b, :, row[b] : row[b] + h, column[b] : column[b] + w])^2)

Only the windows are read, in place. Computed in float32 (in float64 when an argument is float64,
which has no kernel); sums of strips are added in a fixed order in float64, so the loss has the same
bits for any number of threads. Rows and columns stay on the device, so nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define


def window_mse(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Compute the loss of a predicted window.

    Args:
        predicted: Floating (B, C, h, w).
        images: Floating (B, C, H, W) with H >= h, W >= w; gets no gradient.
        row, column: int64 (B,), the first pixel of each window, 0..H-h and 0..W-w.

    Returns:
        float32 scalar; NaN without values, as `torch.mean`.

    Raises:
        ValueError: Wrong shape, dtype or device.
        RuntimeError: On the CPU: a window that leaves its image. On a GPU it is moved inside.
    """
    _check(predicted, images, row, column)
    load_extension()
    out: Tensor = _WindowMSE.apply(predicted, images.detach(), row, column)
    return out


def _check(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> None:
    for name, tensor in (("predicted", predicted), ("images", images)):
        if tensor.dim() != 4 or not tensor.is_floating_point():
            raise ValueError(
                f"window_mse: {name} must be floating with 4 axes, "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if predicted.shape[:2] != images.shape[:2]:
        raise ValueError(
            f"window_mse: predicted must have the batch and channels of images, "
            f"got {tuple(predicted.shape)} and {tuple(images.shape)}"
        )
    if predicted.shape[2] > images.shape[2] or predicted.shape[3] > images.shape[3]:
        raise ValueError(
            f"window_mse: predicted must not be larger than images, "
            f"got {tuple(predicted.shape)} and {tuple(images.shape)}"
        )
    for name, tensor in (("row", row), ("column", column)):
        if tensor.shape != (images.shape[0],) or tensor.dtype != torch.int64:
            raise ValueError(
                f"window_mse: {name} must be int64 ({images.shape[0]},), "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
    devices = {t.device for t in (predicted, images, row, column)}
    if len(devices) > 1:
        raise ValueError(
            f"window_mse: tensors lie on {sorted(map(str, devices))}; move them together"
        )


class _WindowMSE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
        predicted, row, column = predicted.contiguous(), row.contiguous(), column.contiguous()
        images = images if images.stride(3) == 1 else images.contiguous()
        ctx.save_for_backward(predicted, images, row, column)
        op: Callable[..., Tensor] = _reference
        if torch.float64 not in (predicted.dtype, images.dtype):
            op = torch.ops.ecamp.window_mse
        return op(predicted, images, row, column)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        op: Callable[..., Tensor] = _backward_reference
        if grad.dtype != torch.float64:
            op = torch.ops.ecamp.window_mse_backward
        return op(grad, *ctx.saved_tensors), None, None, None


def _difference(op: str, predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return predicted minus its windows, in the type to compute in."""
    b, c, h, w = predicted.shape
    last_row, last_column = images.shape[2] - h, images.shape[3] - w
    if row.device.type == "cpu":
        for name, first, last in (("row", row, last_row), ("column", column, last_column)):
            for i in ((first < 0) | (first > last)).nonzero().flatten().tolist()[:1]:
                raise RuntimeError(f"{op}: {name}[{i}] = {int(first[i])} lies outside 0..{last}")
    y = row.clamp(0, last_row)[:, None, None] + torch.arange(h, device=row.device)[:, None]
    x = column.clamp(0, last_column)[:, None, None] + torch.arange(w, device=row.device)
    pixel_index = (y * images.shape[3] + x).reshape(b, 1, h * w).expand(-1, c, -1)
    window = images.flatten(2).gather(2, pixel_index).reshape(b, c, h, w)
    double = torch.float64 in (predicted.dtype, images.dtype)
    wide = torch.float64 if double else torch.float32
    return predicted.to(wide) - window.to(wide)


def _reference(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Apply the rules above in plain torch."""
    d = _difference("window_mse", predicted, images, row, column)
    return d.square().mean(dtype=torch.float64).to(d.dtype)


def _backward_reference(
    grad: Tensor, predicted: Tensor, images: Tensor, row: Tensor, column: Tensor
) -> Tensor:
    d = _difference("window_mse_backward", predicted, images, row, column)
    return (d * (2 * grad / max(1, d.numel()))).to(predicted.dtype)


def _fake(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return predicted.new_empty((), dtype=torch.float32)


def _backward_fake(grad: Tensor, predicted: Tensor, *_: object) -> Tensor:
    return torch.empty_like(predicted)


define(
    "window_mse(Tensor predicted, Tensor images, Tensor row, Tensor column) -> Tensor",
    _reference,
    _fake,
)
define(
    "window_mse_backward(Tensor grad, Tensor predicted, Tensor images, Tensor row, Tensor column)"
    " -> Tensor",
    _backward_reference,
    _backward_fake,
)
