"""`patch_select` against slices in Python and against the convolution that follows it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecamp.ops import patch_select as op
from ecamp.ops.patch_select import patch_select
from tests.ops.checks import FLOATS, assert_as_good_as_eager, guarded, lane, native, spread


def draw(
    batch: int, channels: int, rows: int, columns: int, kept: int, patch: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, channels, rows * patch, columns * patch, generator=g)
    keep = torch.rand(batch, rows * columns, generator=g).argsort(1)[:, :kept]
    return images, keep.contiguous()


def oracle(images: Tensor, keep: Tensor, patch: int) -> Tensor:
    across = images.shape[3] // patch
    out = torch.zeros(*keep.shape, images.shape[1] * patch * patch, dtype=images.dtype)
    for b, row in enumerate(keep.tolist()):
        for k, index in enumerate(row):
            y, x = index // across * patch, index % across * patch
            out[b, k] = images[b, :, y : y + patch, x : x + patch].reshape(-1)
    return out


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(2, 3, 14, 14, 49, 4), (1, 1, 1, 1, 1, 5), (3, 4, 2, 5, 10, 3), (2, 3, 7, 7, 0, 2)]
)
def test_values_and_gradients_are_those_of_slices(
    shape: tuple[int, ...], dtype: torch.dtype, target: torch.dtype
) -> None:
    images, keep = draw(*shape)
    images, patch = images.to(dtype), shape[-1]
    want = oracle(images, keep, patch).to(target)
    grad = torch.randn(want.shape, generator=torch.Generator().manual_seed(1)).to(target)
    leaf = images.clone().requires_grad_()
    tiles = F.unfold(leaf.float(), patch, stride=patch).transpose(1, 2)
    picked = tiles.gather(1, keep[..., None].expand(-1, -1, tiles.shape[2]))
    (dwant,) = torch.autograd.grad(picked, leaf, grad.float())
    wide = torch.zeros(*images.shape[:3], images.shape[3] + 8, dtype=dtype)
    wide[..., 3:-5] = images
    views = [images.clone(), spread(images), guarded(images)[0], wide[..., 3:-5],
             images.clone(memory_format=torch.channels_last)]  # fmt: skip
    for view in views:
        view = view.detach().requires_grad_()
        got = patch_select(view, spread(keep), patch, dtype=target)
        assert torch.equal(got, want)
        assert torch.equal(torch.autograd.grad(got, view, grad)[0], dwant)


@pytest.mark.parametrize("dtype", FLOATS)
def test_product_equals_the_convolution(dtype: torch.dtype) -> None:
    images, keep = draw(2, 3, 14, 14, 49, 8)
    weight = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(2))

    def by_convolution(images: Tensor, weight: Tensor) -> Tensor:
        tokens = F.conv2d(images, weight, stride=8).flatten(2).transpose(1, 2)
        return tokens.gather(1, keep[..., None].expand(-1, -1, 32))

    exact = by_convolution(images.to(dtype).double(), weight.to(dtype).double())
    eager = by_convolution(images.to(dtype), weight.to(dtype))
    got = F.linear(patch_select(images.to(dtype), keep, 8), weight.to(dtype).flatten(1))
    assert_as_good_as_eager(got, eager, exact)


def test_gradcheck_and_no_second_derivative() -> None:
    images, keep = draw(2, 2, 2, 2, 3, 2)
    images = images.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: patch_select(x, keep, 2), images)
    out = patch_select(images, keep, 2)
    (dx,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@settings(max_examples=8, deadline=None)
@given(batch=st.integers(0, 3), channels=st.integers(0, 3), rows=st.integers(1, 3),
       columns=st.integers(1, 3), kept=st.integers(0, 9), patch=st.integers(1, 3),
       dtype=st.sampled_from(FLOATS), target=st.sampled_from(FLOATS))  # fmt: skip
def test_opcheck(
    batch: int, channels: int, rows: int, columns: int, kept: int, patch: int,
    dtype: torch.dtype, target: torch.dtype,
) -> None:  # fmt: skip
    images, keep = draw(batch, channels, rows, columns, kept, patch)
    images = images.to(dtype)
    if images.numel():  # torch's own copy of an empty tensor can request a negative size
        torch.library.opcheck(torch.ops.ecamp.patch_select.default, (images, keep, patch, target))
    grad = torch.ops.ecamp.patch_select(images, keep, patch, target)
    arguments = (grad, keep, patch, images.shape[2], images.shape[3], dtype)
    if grad.numel():
        torch.library.opcheck(torch.ops.ecamp.patch_select_backward.default, arguments)
    back = torch.ops.ecamp.patch_select_backward(*arguments)
    assert torch.equal(op._reference(images, keep, patch, target), grad)
    assert torch.equal(op._backward_reference(*arguments), back)


def test_compiles_into_one_graph() -> None:
    images, keep = draw(2, 3, 4, 4, 5, 4)
    images = images.requires_grad_()

    def call(images: Tensor, keep: Tensor) -> Tensor:
        return patch_select(images, keep, 4, dtype=torch.bfloat16) * 2

    got, want = (
        torch.compile(call, fullgraph=True, backend="aot_eager")(images, keep),
        call(images, keep),
    )
    assert torch.equal(got, want)
    assert torch.equal(*(torch.autograd.grad(y.sum(), images)[0] for y in (got, want)))


@native
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_lanes_and_threads_change_no_bit(lane_index: int, dtype: torch.dtype) -> None:
    images, keep = draw(3, 3, 14, 14, 49, 16)
    want = oracle(images, keep, 16).to(dtype)
    back = op._backward_reference(want, keep, 16, 224, 224, torch.float32)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            with lane(lane_index):
                leaf = images.clone().requires_grad_()
                got = patch_select(leaf, keep, 16, dtype=dtype)
                assert torch.equal(got, want)
                assert torch.equal(torch.autograd.grad(got, leaf, want)[0], back)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 8, 8)}, "images must be floating"),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "images must be floating"),
        ({"keep": torch.zeros(3, 1, dtype=torch.int64)}, r"keep must be int64 \(2, K\)"),
        ({"keep": torch.zeros(2, 1)}, "keep must be int64"),
        ({"patch": 3}, "patch 3 does not divide"),
        ({"dtype": torch.int64}, "dtype must be floating"),
        ({"keep": torch.tensor([[0, 1], [2, 4]])}, r"keep\[1, 1\] = 4 lies outside 0..3"),
        ({"keep": torch.tensor([[0, -1], [2, 3]])}, r"keep\[0, 1\] = -1 lies outside"),
        ({"keep": torch.tensor([[0, 1], [2, 2]])}, r"keep\[1, 1\] = 2 appears twice"),
        ({"keep": torch.zeros(2, 1, dtype=torch.int64, device="meta")}, "move them together"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    good = {"images": torch.zeros(2, 3, 8, 8), "keep": torch.tensor([[0, 1], [3, 2]]), "patch": 4}
    with pytest.raises((ValueError, RuntimeError), match=message):
        patch_select(**{**good, **change})
    if "[" in message:
        with pytest.raises(RuntimeError, match=message):
            op._reference(*{**good, **change}.values(), torch.float32)
