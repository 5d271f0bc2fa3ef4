"""`patch_select` and a matrix product, against embedding every patch and keeping a quarter (MAE)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from ecamp.ops._ext import load_extension
from ecamp.ops.patch_select import patch_select

BATCH, SIDE, PATCH, WIDTH, KEPT = 16, 224, 16, 768, 49


def published(images: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    """Embed all patches by convolution, then gather by an index of the embedded width."""
    tokens = F.conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
    return tokens.gather(1, keep.unsqueeze(-1).repeat(1, 1, WIDTH))


def eager(images: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    """Select first too, with plain torch."""
    grid = SIDE // PATCH
    tiles = images.view(BATCH, 3, grid, PATCH, grid, PATCH).permute(0, 2, 4, 1, 3, 5)
    visible = tiles[torch.arange(BATCH, device=keep.device)[:, None], keep // grid, keep % grid]
    return F.linear(visible.flatten(2), weight.flatten(1), bias)


def ours(images: Tensor, weight: Tensor, bias: Tensor, keep: Tensor) -> Tensor:
    return F.linear(patch_select(images, keep, PATCH), weight.flatten(1), bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_patch_embedding(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device, dtype=dtype)
    weight = torch.randn(WIDTH, 3, PATCH, PATCH, device=device, dtype=dtype, requires_grad=True)
    bias = torch.zeros(WIDTH, device=device, dtype=dtype, requires_grad=True)
    keep = torch.rand(BATCH, (SIDE // PATCH) ** 2, device=device).argsort(1)[:, :KEPT]
    keep = keep.sort(1).values
    grad = torch.randn(BATCH, KEPT, WIDTH, device=device, dtype=dtype)

    def step(call: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(call(images, weight, bias, keep), (weight, bias), grad)

    measure(
        f"patch_select {BATCH}x3x{SIDE} keep {KEPT} width {WIDTH} {dtype}",
        step(ours),
        {
            "published, embed all": step(published),
            "eager, select first": step(eager),
            "torch.compile, select first": step(torch.compile(eager)),
        },
        benchmark=benchmark,
        dtype=str(dtype),
        flops=4 * BATCH * KEPT * WIDTH * 3 * PATCH**2,
        mode="masked",
    )


def test_select_alone(benchmark: BenchmarkFixture) -> None:
    """Without the product: float32 images to bfloat16 patches, as under autocast."""
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    grid = SIDE // PATCH
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device)
    keep = torch.rand(BATCH, grid**2, device=device).argsort(1)[:, :KEPT]

    def plain() -> Tensor:
        tiles = images.view(BATCH, 3, grid, PATCH, grid, PATCH).permute(0, 2, 4, 1, 3, 5)
        rows = torch.arange(BATCH, device=device)[:, None]
        return tiles[rows, keep // grid, keep % grid].flatten(2).bfloat16()

    def every_patch() -> Tensor:
        """MAE's patchify, then its gather."""
        tiles = images.view(BATCH, 3, grid, PATCH, grid, PATCH).permute(0, 2, 4, 1, 3, 5)
        flat = tiles.reshape(BATCH, grid**2, -1)
        return flat.gather(1, keep.unsqueeze(-1).repeat(1, 1, flat.shape[2])).bfloat16()

    measure(
        f"patch_select alone {BATCH}x3x{SIDE} keep {KEPT}",
        lambda: patch_select(images, keep, PATCH, dtype=torch.bfloat16),
        {
            "published, patchify": every_patch,
            "eager": plain,
            "torch.compile": torch.compile(plain),
        },
        benchmark=benchmark,
        bytes=6 * BATCH * KEPT * 3 * PATCH**2,
    )
