"""`masked_mse` against plain functions in float64 and in the same type."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecamp.ops import masked_mse as op
from ecamp.ops.masked_mse import masked_mse
from ecamp.pretext.images import patchify
from tests.ops.checks import FLOATS, assert_as_good_as_eager, guarded, lane, native, spread


def normalise_patches(target: Tensor) -> Tensor:
    """Zero mean, unit variance a patch (MAE's `norm_pix_loss`), (b, n, values)."""
    mean = target.mean(-1, keepdim=True)
    variance = target.var(-1, keepdim=True)
    return (target - mean) / (variance + 1e-6).sqrt()


def plain_mse(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over masked patches only; (b, n, values), bool (b, n)."""
    error = (predicted - target).square().mean(-1)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def draw(
    batch: int,
    channels: int,
    rows: int,
    columns: int,
    patch: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    images = torch.randn(batch, channels, rows * patch, columns * patch, generator=g) * 0.3 + 1
    predicted = torch.randn(batch, rows * columns, patch * patch * channels, generator=g)
    mask = torch.rand(batch, rows * columns, generator=g) < 0.75
    return predicted.to(dtype), images.to(dtype), mask


def eager(
    predicted: Tensor, images: Tensor, mask: Tensor, patch: int, normalise: bool
) -> dict[str, Tensor]:
    leaf = predicted.detach().requires_grad_()
    target = patchify(images, patch)
    target = normalise_patches(target) if normalise else target
    loss = plain_mse(leaf, target, mask)
    return {"loss": loss.detach(), "predicted": torch.autograd.grad(loss, leaf)[0]}


def ours(
    predicted: Tensor, images: Tensor, mask: Tensor, patch: int, normalise: bool
) -> dict[str, Tensor]:
    leaf = predicted.detach().requires_grad_()
    loss = masked_mse(leaf, images, mask, patch, normalise=normalise)
    return {"loss": loss.detach(), "predicted": torch.autograd.grad(loss, leaf)[0]}


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(2, 3, 14, 14, 16), (3, 1, 7, 7, 4), (2, 2, 5, 10, 3), (1, 4, 1, 1, 2)]
)
def test_as_good_as_eager(shape: tuple[int, ...], dtype: torch.dtype, normalise: bool) -> None:
    patch = shape[-1]
    predicted, images, mask = draw(*shape, dtype=dtype)
    mask[0, 0] = True
    exact = eager(predicted.double(), images.double(), mask, patch, normalise)
    same_type = eager(predicted, images, mask, patch, normalise)
    same_type["loss"] = same_type["loss"].float()  # ours is float32 always
    wide = torch.zeros(*images.shape[:3], images.shape[3] + 8, dtype=dtype)
    wide[..., 3:-5] = images
    for p, i in (
        (predicted, images),
        (spread(predicted), spread(images)),
        (guarded(predicted)[0], guarded(images)[0]),
        (predicted, wide[..., 3:-5]),
        (predicted, images.clone(memory_format=torch.channels_last)),
    ):
        got = ours(p, i, spread(mask), patch, normalise)
        for name, value in got.items():
            assert_as_good_as_eager(value, same_type[name], exact[name], name)
        assert not got["predicted"][~mask].any()


def test_types_may_differ() -> None:
    predicted, images, mask = draw(2, 3, 4, 4, 8)
    predicted = predicted.bfloat16()
    exact = eager(predicted.double(), images.double(), mask, 8, True)
    same = eager(predicted, images, mask, 8, True)
    for name, value in ours(predicted, images, mask, 8, True).items():
        assert_as_good_as_eager(value, same[name], exact[name], name)


def test_nothing_masked_gives_zero() -> None:
    predicted, images, mask = draw(2, 3, 4, 4, 8)
    for got in (
        ours(predicted, images, torch.zeros_like(mask), 8, True),
        ours(predicted[:0], images[:0], mask[:0], 8, True),
    ):
        assert got["loss"] == 0
        assert not got["predicted"].any()


def test_unmasked_patches_are_not_read() -> None:
    predicted, images, mask = draw(1, 3, 2, 2, 8)
    mask[:] = torch.tensor([True, False, True, True])
    want = ours(predicted, images, mask, 8, True)
    predicted[0, 1] = float("nan")
    images[0, :, :8, 8:] = float("nan")
    got = ours(predicted, images, mask, 8, True)
    assert torch.equal(got["loss"], want["loss"])
    assert torch.equal(got["predicted"], want["predicted"])


def test_gradcheck_and_no_second_derivative() -> None:
    predicted, images, mask = draw(2, 2, 2, 2, 2, dtype=torch.float64)
    predicted.requires_grad_()

    def call(predicted: Tensor) -> Tensor:
        return masked_mse(predicted, images, mask, 2, normalise=True)

    assert torch.autograd.gradcheck(call, predicted)
    (d,) = torch.autograd.grad(call(predicted) ** 2, predicted, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        d.sum().backward()


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(batch=st.integers(0, 3), channels=st.integers(1, 3), rows=st.integers(1, 3),
       columns=st.integers(1, 3), patch=st.integers(2, 3), normalise=st.booleans(),
       dtype=st.sampled_from(FLOATS))  # fmt: skip
def test_opcheck(
    batch: int, channels: int, rows: int, columns: int, patch: int, normalise: bool,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    predicted, images, mask = draw(batch, channels, rows, columns, patch, dtype)
    arguments = (predicted, images, mask, patch, normalise)
    torch.library.opcheck(torch.ops.ecamp.masked_mse.default, arguments)
    loss, *saved = torch.ops.ecamp.masked_mse(*arguments)
    for got, want in zip((loss, *saved), op._reference(*arguments), strict=True):
        torch.testing.assert_close(got, want)
    backward = (torch.tensor(0.5), predicted, images, mask, *saved, patch)
    torch.library.opcheck(torch.ops.ecamp.masked_mse_backward.default, backward)
    torch.testing.assert_close(
        torch.ops.ecamp.masked_mse_backward(*backward), op._backward_reference(*backward)
    )


def test_compiles_into_one_graph() -> None:
    predicted, images, mask = draw(2, 3, 4, 4, 8)
    predicted.requires_grad_()

    def call(predicted: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        return masked_mse(predicted, images, mask, 8, normalise=True) * 2

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    got, want = (f(predicted, images, mask) for f in (compiled, call))
    assert torch.equal(got, want)
    assert torch.equal(*(torch.autograd.grad(y, predicted)[0] for y in (got, want)))


@native
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_lanes_and_threads_change_no_bit(lane_index: int, dtype: torch.dtype) -> None:
    predicted, images, mask = draw(2, 3, 14, 14, 16, dtype)
    want = ours(predicted, images, mask, 16, True)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            with lane(lane_index):
                got = ours(predicted, images, mask, 16, True)
            assert all(torch.equal(got[name], want[name]) for name in want)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 8, 8)}, "images must be floating"),
        ({"predicted": torch.zeros(2, 4, 47)}, r"predicted must be floating \(2, 4, 48\)"),
        ({"predicted": torch.zeros(2, 4, 48, dtype=torch.int64)}, "predicted must be floating"),
        ({"mask": torch.zeros(2, 4)}, r"mask must be bool \(2, 4\)"),
        ({"patch": 3}, "patch 3 does not divide"),
        ({"mask": torch.zeros(2, 4, dtype=torch.bool, device="meta")}, "move them together"),
        ({"images": torch.zeros(2, 1, 2, 2), "patch": 1}, "at least two values"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    good = {"predicted": torch.zeros(2, 4, 48), "images": torch.zeros(2, 3, 8, 8),
            "mask": torch.zeros(2, 4, dtype=torch.bool), "patch": 4, "normalise": True}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        masked_mse(**{**good, **change})
