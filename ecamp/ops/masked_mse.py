"""`masked_mse`: mean squared error over the pixels of masked patches, read from the images.

loss = sum over masked patches, values of (predicted - target)^2 / (masked patches * values)

The target is a patch of the images as row, column, channel (`ecamp.pretext.images.patchify`), and
with `normalise` zero mean and unit variance per patch (MAE's `norm_pix_loss`): the variance is that of
a sample (n - 1) and 1e-6 is added. Without a masked patch the loss is 0.

No table of targets is built and patches that are not masked are not read. Computed in float32 (in
float64 when an argument is float64, which has no kernel); sums of patches are added in a fixed
order in float64, so the loss has the same bits for any number of threads. Mean and 1 / deviation of
a patch are kept for the backward, which goes to `predicted` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define

EPSILON = 1e-6


def masked_mse(
    predicted: Tensor, images: Tensor, mask: Tensor, patch: int, *, normalise: bool
) -> Tensor:
    """Compute the loss of a masked image model.

    Args:
        predicted: Floating (B, L, patch * patch * C), every patch, row by row.
        images: Floating (B, C, H, W), L = (H / patch) * (W / patch); gets no gradient.
        mask: bool (B, L), True = masked, so part of the loss.
        patch: Side of a patch; divides H and W.
        normalise: Targets with zero mean and unit variance per patch.

    Returns:
        float32 scalar.

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    _check(predicted, images, mask, patch, normalise)
    load_extension()
    out: Tensor = _MaskedMSE.apply(predicted, images.detach(), mask, patch, normalise)
    return out


def _check(predicted: Tensor, images: Tensor, mask: Tensor, patch: int, normalise: bool) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"masked_mse: images must be floating (B, C, H, W), "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    b, c, h, w = images.shape
    if patch < 1 or h % patch or w % patch:
        raise ValueError(f"masked_mse: patch {patch} does not divide {(h, w)}")
    if normalise and patch * patch * c == 1:
        raise ValueError("masked_mse: normalise needs at least two values per patch")
    shape = (b, (h // patch) * (w // patch), patch * patch * c)
    if predicted.shape != shape or not predicted.is_floating_point():
        raise ValueError(
            f"masked_mse: predicted must be floating {shape}, "
            f"got {predicted.dtype} {tuple(predicted.shape)}"
        )
    if mask.shape != shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"masked_mse: mask must be bool {shape[:2]}, got {mask.dtype} {tuple(mask.shape)}"
        )
    devices = {t.device for t in (predicted, images, mask)}
    if len(devices) > 1:
        raise ValueError(
            f"masked_mse: tensors lie on {sorted(map(str, devices))}; move them together"
        )


class _MaskedMSE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, predicted: Tensor, images: Tensor, mask: Tensor, patch: int, normalise: bool
    ) -> Tensor:
        predicted, mask = predicted.contiguous(), mask.contiguous()
        images = images if images.stride(3) == 1 else images.contiguous()
        op: Callable[..., Any] = _reference
        if torch.float64 not in (predicted.dtype, images.dtype):
            op = torch.ops.ecamp.masked_mse
        loss: Tensor
        loss, count, mean, rstd = op(predicted, images, mask, patch, normalise)
        ctx.save_for_backward(predicted, images, mask, count, mean, rstd)
        ctx.patch = patch
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        predicted, images, mask, count, mean, rstd = ctx.saved_tensors
        op: Callable[..., Tensor] = _backward_reference
        if grad.dtype != torch.float64:
            op = torch.ops.ecamp.masked_mse_backward
        out = op(grad, predicted, images, mask, count, mean, rstd, ctx.patch)
        return out, None, None, None, None


def _patches(predicted: Tensor, images: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Return predicted and true patches, in the type to compute in."""
    double = torch.float64 in (predicted.dtype, images.dtype)
    wide = torch.float64 if double else torch.float32
    b, c, h, w = images.shape
    tiles = images.to(wide).reshape(b, c, h // patch, patch, w // patch, patch)
    return predicted.to(wide), tiles.permute(0, 2, 4, 3, 5, 1).reshape(predicted.shape)


def _reference(
    predicted: Tensor, images: Tensor, mask: Tensor, patch: int, normalise: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply the rules above in plain torch: loss, number of masked patches, mean, rstd."""
    prediction, target = _patches(predicted, images, patch)
    mean, rstd = torch.zeros_like(prediction[..., 0]), torch.ones_like(prediction[..., 0])
    if normalise:
        variance, average = torch.var_mean(target, -1)
        mean = average.where(mask, 0.0)
        rstd = (variance + EPSILON).rsqrt().where(mask, 1.0)
    normalised = (target - mean[..., None]) * rstd[..., None]
    error = (prediction - normalised).square().sum(-1).where(mask, 0.0)
    count = mask.sum().clamp(min=1).to(prediction.dtype)
    loss = error.sum(dtype=torch.float64) / (count.double() * max(1, predicted.shape[2]))
    return loss.to(prediction.dtype), count, mean, rstd


def _backward_reference(
    grad: Tensor, predicted: Tensor, images: Tensor, mask: Tensor, count: Tensor, mean: Tensor,
    rstd: Tensor, patch: int,
) -> Tensor:  # fmt: skip
    prediction, target = _patches(predicted, images, patch)
    scale = 2 * grad / (count * max(1, predicted.shape[2]))
    normalised = (target - mean[..., None]) * rstd[..., None]
    return ((prediction - normalised) * scale).where(mask[..., None], 0.0).to(predicted.dtype)


def _fake(
    predicted: Tensor, images: Tensor, mask: Tensor, patch: int, normalise: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scalar = predicted.new_empty((), dtype=torch.float32)
    per_patch = torch.empty_like(mask, dtype=torch.float32)
    return scalar, torch.empty_like(scalar), per_patch, torch.empty_like(per_patch)


def _backward_fake(grad: Tensor, predicted: Tensor, *_: object) -> Tensor:
    return torch.empty_like(predicted)


define(
    "masked_mse(Tensor predicted, Tensor images, Tensor mask, int patch, bool normalise)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _reference,
    _fake,
)
define(
    "masked_mse_backward(Tensor grad, Tensor predicted, Tensor images, Tensor mask, Tensor count,"
    " Tensor mean, Tensor rstd, int patch) -> Tensor",
    _backward_reference,
    _backward_fake,
)
