"""`patch_select`: the pixels of visible patches, gathered before the patch embedding.

The embedding of a masked image model is a matrix product with each patch; selecting first makes it
a quarter of the work at a mask ratio of 75 %, and no index of embedded width is built:

    F.linear(patch_select(images, keep, 16), conv.weight.flatten(1), conv.bias)

equals conv(images) at the patches of `keep`. Linear in the images; the cast is the only rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define


def patch_select(
    images: Tensor, keep: Tensor, patch: int, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Gather the pixels of some patches.

    Args:
        images: Floating (B, C, H, W); a strided view of a larger image is read in place.
        keep: int64 (B, K), patches counted row by row, none twice in an image.
        patch: Side of a patch; divides H and W.
        dtype: Of the result, cast on the way; that of images by default. Under autocast give
            `torch.get_autocast_dtype(...)`, in which the product that follows is computed.

    Returns:
        (B, K, C * patch * patch), each patch by channel, row, column: the order of
        `conv.weight.flatten(1)`. (`ecamp.pretext.images.patchify` has row, column, channel.)

    Raises:
        ValueError: Wrong shape, dtype or device.
        RuntimeError: On the CPU: an entry of keep outside the grid or twice. On a GPU a patch
            outside the grid is zeros.
    """
    _check(images, keep, patch, dtype)
    load_extension()
    out: Tensor = _PatchSelect.apply(images, keep, patch, dtype or images.dtype)
    return out


def _check(images: Tensor, keep: Tensor, patch: int, dtype: torch.dtype | None) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            "patch_select: images must be floating (B, C, H, W), "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if keep.dim() != 2 or keep.dtype != torch.int64 or keep.shape[0] != images.shape[0]:
        raise ValueError(
            f"patch_select: keep must be int64 ({images.shape[0]}, K), "
            f"got {keep.dtype} {tuple(keep.shape)}"
        )
    if patch < 1 or images.shape[2] % patch or images.shape[3] % patch:
        raise ValueError(f"patch_select: patch {patch} does not divide {tuple(images.shape[2:])}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"patch_select: dtype must be floating, got {dtype}")
    if keep.device != images.device:
        raise ValueError(
            f"patch_select: images lie on {images.device}, keep on {keep.device}; move them together"
        )


class _PatchSelect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, keep: Tensor, patch: int, dtype: torch.dtype) -> Tensor:
        keep = keep.contiguous()
        ctx.save_for_backward(keep)
        ctx.rest = patch, images.shape[2], images.shape[3], images.dtype
        row_contiguous = images if images.stride(3) == 1 else images.contiguous()
        op: Callable[..., Tensor] = _reference
        if torch.float64 not in (images.dtype, dtype):
            op = torch.ops.ecamp.patch_select
        return op(row_contiguous, keep, patch, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (keep,) = ctx.saved_tensors
        op: Callable[..., Tensor] = _backward_reference
        if torch.float64 not in (grad.dtype, ctx.rest[-1]):
            op = torch.ops.ecamp.patch_select_backward
        return op(grad.contiguous(), keep, *ctx.rest), None, None, None


def _check_keep(op: str, keep: Tensor, patches: int) -> None:
    if keep.device.type != "cpu":
        return
    for b, k in ((keep < 0) | (keep >= patches)).nonzero().tolist()[:1]:
        raise RuntimeError(
            f"{op}: keep[{b}, {k}] = {int(keep[b, k])} lies outside 0..{patches - 1}"
        )
    sorted_rows = keep.sort(1).values
    for b in (sorted_rows.diff(dim=1) == 0).any(1).nonzero().flatten().tolist()[:1]:
        seen: set[int] = set()
        for k, index in enumerate(keep[b].tolist()):
            if index in seen:
                raise RuntimeError(f"{op}: keep[{b}, {k}] = {index} appears twice in its image")
            seen.add(index)


def _reference(images: Tensor, keep: Tensor, patch: int, dtype: torch.dtype) -> Tensor:
    b, c, h, w = images.shape
    patches = (h // patch) * (w // patch)
    _check_keep("patch_select", keep, patches)
    tiles = images.reshape(b, c, h // patch, patch, w // patch, patch)
    flat = tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, patches, c * patch * patch)
    flat = torch.cat([flat, flat.new_zeros(b, 1, flat.shape[2])], 1)  # for patches outside the grid
    inside = keep.where((keep >= 0) & (keep < patches), patches)
    return flat.gather(1, inside[..., None].expand(-1, -1, flat.shape[2])).to(dtype)


def _backward_reference(
    grad: Tensor, keep: Tensor, patch: int, height: int, width: int, dtype: torch.dtype
) -> Tensor:
    b, _, values = grad.shape
    rows, columns, channels = height // patch, width // patch, values // (patch * patch)
    _check_keep("patch_select_backward", keep, rows * columns)
    inside = keep.where((keep >= 0) & (keep < rows * columns), rows * columns)
    flat = grad.new_zeros(b, rows * columns + 1, values, dtype=dtype)
    flat.scatter_(1, inside[..., None].expand(-1, -1, values), grad.to(dtype))
    tiles = flat[:, :-1].reshape(b, rows, columns, channels, patch, patch)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(b, channels, height, width)


def _fake(images: Tensor, keep: Tensor, patch: int, dtype: torch.dtype) -> Tensor:
    values = images.shape[1] * patch * patch
    return images.new_empty(images.shape[0], keep.shape[1], values, dtype=dtype)


def _backward_fake(
    grad: Tensor, keep: Tensor, patch: int, height: int, width: int, dtype: torch.dtype
) -> Tensor:
    channels = grad.shape[2] // (patch * patch)
    return grad.new_empty(grad.shape[0], channels, height, width, dtype=dtype)


define(
    "patch_select(Tensor images, Tensor keep, int patch, ScalarType dtype) -> Tensor",
    _reference,
    _fake,
)
define(
    "patch_select_backward(Tensor grad, Tensor keep, int patch, SymInt height, SymInt width,"
    " ScalarType dtype) -> Tensor",
    _backward_reference,
    _backward_fake,
)
