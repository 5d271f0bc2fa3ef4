"""`masked_mse` and `window_mse`, forward and backward, against the published losses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from ecamp.ops._ext import load_extension
from ecamp.ops.masked_mse import masked_mse
from ecamp.ops.window_mse import window_mse

BATCH, SIDE, PATCH, LARGE, WINDOW = 16, 224, 16, 448, 208
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def step(call: Callable[[Tensor], Tensor], leaf: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(call(leaf), leaf)


def tiles_of(images: Tensor) -> Tensor:
    grid = SIDE // PATCH
    tiles = images.reshape(BATCH, 3, grid, PATCH, grid, PATCH)
    return torch.einsum("bchpwq->bhwpqc", tiles).reshape(BATCH, grid * grid, -1)


def published_masked(predicted: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """Compute MAE's loss: every patch extracted and normalised, the mask last."""
    target = tiles_of(images)
    mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
    target = (target - mean) / (variance + 1e-6) ** 0.5
    loss = ((predicted - target) ** 2).mean(-1)
    return (loss * mask).sum() / mask.sum()


def eager_masked(predicted: Tensor, images: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    """Compute it on masked patches only; their `index` is given, so that nothing is counted here."""
    target = tiles_of(images).flatten(0, 1).index_select(0, index)
    variance, mean = torch.var_mean(target, -1, keepdim=True)
    target = (target - mean) * (variance + 1e-6).rsqrt()
    return (predicted.flatten(0, 1).index_select(0, index) - target).square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_masked_mse(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    """`dtype` is that of the prediction; images are float32."""
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.manual_seed(0)
    patches, values = (SIDE // PATCH) ** 2, 3 * PATCH**2
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=DEVICE)
    leaf = torch.randn(BATCH, patches, values, device=DEVICE, dtype=dtype, requires_grad=True)
    order = torch.rand(BATCH, patches, device=DEVICE).argsort(1)
    mask = order >= patches // 4
    index = mask.flatten().nonzero().flatten()
    compiled = torch.compile(published_masked)
    measure(
        f"masked_mse {BATCH}x3x{SIDE} patch {PATCH} {dtype}",
        step(lambda p: masked_mse(p, images, mask, PATCH, normalise=True), leaf),
        {
            "published, all patches": step(lambda p: published_masked(p, images, mask), leaf),
            "eager, masked patches": step(lambda p: eager_masked(p, images, mask, index), leaf),
            "torch.compile, published": step(lambda p: compiled(p, images, mask), leaf),
        },
        benchmark=benchmark,
        dtype=str(dtype),
        mode="masked",
    )


def published_window(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Loop over the batch; every .item() makes a GPU wait."""
    loss = predicted.new_zeros(())
    for b in range(BATCH):
        top, left = int(row[b].item()), int(column[b].item())
        target = images[b, :, top : top + WINDOW, left : left + WINDOW]
        loss = loss + ((predicted[b] - target) ** 2).mean()
    return loss / BATCH


def eager_window(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Gather once, as `ecamp.pretext.ecamp.super_resolution.crop_windows`."""
    offsets = torch.arange(WINDOW, device=row.device)
    y, x = row[:, None, None] + offsets[:, None], column[:, None, None] + offsets
    pixel_index = (y * LARGE + x).view(BATCH, 1, -1).expand(-1, 3, -1)
    target = images.flatten(2).gather(2, pixel_index).view(BATCH, 3, WINDOW, WINDOW)
    return (predicted - target).square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_window_mse(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, LARGE, LARGE, device=DEVICE)
    leaf = torch.randn(BATCH, 3, WINDOW, WINDOW, device=DEVICE, dtype=dtype, requires_grad=True)
    row, column = torch.randint(0, LARGE - WINDOW + 1, (2, BATCH), device=DEVICE)
    compiled = torch.compile(eager_window)
    measure(
        f"window_mse {BATCH}x3x{LARGE} window {WINDOW} {dtype}",
        step(lambda p: window_mse(p, images, row, column), leaf),
        {
            "published, loop": step(lambda p: published_window(p, images, row, column), leaf),
            "eager, gather": step(lambda p: eager_window(p, images, row, column), leaf),
            "torch.compile, gather": step(lambda p: compiled(p, images, row, column), leaf),
        },
        benchmark=benchmark,
        dtype=str(dtype),
        mode="valid",
    )
