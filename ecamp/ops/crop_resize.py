"""Op `crop_resize`: stored 8-bit images to normalised crops at two sizes, in one pass.

Bilinear between the two nearest pixels each way; beyond the centres of the outer pixels their value
continues. The small image is the mean of pool x pool pixels of the large one. All in float32, in one
order of operations, so that kernels agree bit for bit, on any device.

Source: the published recipe crops to 448 with Pillow's bicubic filter (`pretrain_datasets.py` of
ToniChopp/ECAMP) and halves to 224 (`model_ecamp.py`).

Why: docs/decisions.md#bilinear-crops.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define


def crop_resize(
    images: Tensor, crop: Tensor, flip: Tensor, mean: Sequence[float], std: Sequence[float],
    size: int, pool: int = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Crop, mirror, resize, normalise.

    Args:
        images: uint8 (B, H, W, C).
        crop: float32 (B, 4) x0, y0, x1, y1 in 0..1 of the image.
        flip: bool (B,), mirror left-right.
        mean, std: Of pixels scaled to 0..1, one per channel or one for all.
        size: Side of the large result, a multiple of `pool`.

    Returns:
        float32 (B, C, size, size), and (B, C, size / pool, size / pool); with `pool` 1 the same.

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    _check(images, crop, flip, mean, std, size, pool)
    load_extension()
    channels = images.shape[3]
    channel_std = torch.tensor(std, dtype=torch.float64).expand(channels)
    shift = -torch.tensor(mean, dtype=torch.float64).expand(channels) / channel_std
    factors = torch.stack([1 / (255 * channel_std), shift]).float().to(images.device)
    large, small = torch.ops.ecamp.crop_resize(
        images.contiguous(),
        crop.contiguous(),
        flip.contiguous(),
        factors[0],
        factors[1],
        size,
        pool,
    )
    return large, large if pool == 1 else small


def _check(
    images: Tensor, crop: Tensor, flip: Tensor, mean: Sequence[float], std: Sequence[float],
    size: int, pool: int,
) -> None:  # fmt: skip
    if images.dim() != 4 or images.dtype != torch.uint8:
        raise ValueError(
            f"crop_resize: images must be uint8 (B, H, W, C), got {images.dtype} {tuple(images.shape)}"
        )
    batch, height, width, channels = images.shape
    for name, tensor, shape, dtype in (
        ("crop", crop, (batch, 4), torch.float32), ("flip", flip, (batch,), torch.bool),
    ):  # fmt: skip
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(
                f"crop_resize: {name} must be {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}"
            )
        if tensor.device != images.device:
            raise ValueError(
                f"crop_resize: images lie on {images.device}, {name} on {tensor.device}"
            )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(
                f"crop_resize: {name} has {len(values)} entries, images {channels} channels"
            )
    if pool < 1 or size < 0 or size % pool:
        raise ValueError(f"crop_resize: size {size} is not a multiple of pool {pool}")
    if batch and not (height and width):
        raise ValueError(f"crop_resize: an image of {height} x {width} has no pixels")


def _taps(low: Tensor, high: Tensor, size: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first and second neighbour, int64, and the second's weight; all (B, size)."""
    fraction = (torch.arange(size, dtype=torch.float32, device=low.device) + 0.5) / size
    position = (low[:, None] + fraction * (high - low)[:, None]) * count - 0.5
    position = torch.where(position > 0, position, torch.zeros_like(position)).clamp(max=count - 1)
    first = position.long()
    return first, (first + 1).clamp(max=count - 1), position - first


def _blend(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return a * (1 - weight) + b * weight


def _reference(
    images: Tensor, crop: Tensor, flip: Tensor, scale: Tensor, shift: Tensor, size: int, pool: int
) -> tuple[Tensor, Tensor]:
    batch, height, width, channels = images.shape
    first, second, column_weight = (
        torch.where(flip[:, None], value.flip(1), value)
        for value in _taps(crop[:, 0], crop[:, 2], size, width)
    )
    above, below, row_weight = _taps(crop[:, 1], crop[:, 3], size, height)
    pixels = images.permute(0, 3, 1, 2).float()

    def pick_columns(index: Tensor) -> Tensor:
        return pixels.gather(3, index[:, None, None].expand(-1, channels, height, -1))

    rows = _blend(pick_columns(first), pick_columns(second), column_weight[:, None, None])

    def pick_rows(index: Tensor) -> Tensor:
        return rows.gather(2, index[:, None, :, None].expand(-1, channels, -1, size))

    large = _blend(pick_rows(above), pick_rows(below), row_weight[:, None, :, None])
    large = large * scale[:, None, None] + shift[:, None, None]
    if pool == 1:
        return large, large.new_empty(batch, channels, 0, 0)
    parts = large.unflatten(3, (-1, pool)).unflatten(2, (-1, pool))
    total = _sum(_sum(parts, 3), 4)
    return large, total * torch.tensor(1 / (pool * pool), dtype=torch.float32)


def _sum(parts: Tensor, axis: int) -> Tensor:
    """Add one after another, as the kernels do."""
    first, *rest = parts.unbind(axis)
    for part in rest:
        first = first + part
    return first


def _fake(
    images: Tensor, crop: Tensor, flip: Tensor, scale: Tensor, shift: Tensor, size: int, pool: int
) -> tuple[Tensor, Tensor]:
    batch, channels = images.shape[0], images.shape[3]
    small = 0 if pool == 1 else size // pool
    new_empty = scale.new_empty
    return new_empty(batch, channels, size, size), new_empty(batch, channels, small, small)


define(
    "crop_resize(Tensor images, Tensor crop, Tensor flip, Tensor scale, Tensor shift, int size,"
    " int pool) -> (Tensor, Tensor)",
    _reference,
    _fake,
)
