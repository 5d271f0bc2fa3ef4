"""`window_mse` against slices of each image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecamp.ops import window_mse as op
from ecamp.ops.window_mse import window_mse
from tests.ops.checks import FLOATS, assert_as_good_as_eager, guarded, lane, native, spread

Case = tuple[Tensor, Tensor, Tensor, Tensor]


def draw(
    batch: int, channels: int, window: tuple[int, int], image: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Case:  # fmt: skip
    g = torch.Generator().manual_seed(0)
    predicted = torch.randn(batch, channels, *window, generator=g).to(dtype)
    images = torch.randn(batch, channels, *image, generator=g).to(dtype)
    row = torch.randint(0, image[0] - window[0] + 1, (batch,), generator=g)
    column = torch.randint(0, image[1] - window[1] + 1, (batch,), generator=g)
    return predicted, images, row, column


def eager(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> dict[str, Tensor]:
    leaf = predicted.detach().requires_grad_()
    h, w = predicted.shape[2:]
    windows = [
        image[:, r : r + h, c : c + w]
        for image, r, c in zip(images, row.tolist(), column.tolist(), strict=True)
    ]
    loss = (leaf - torch.stack(windows)).square().mean()
    return {"loss": loss.detach(), "predicted": torch.autograd.grad(loss, leaf)[0]}


def ours(predicted: Tensor, images: Tensor, row: Tensor, column: Tensor) -> dict[str, Tensor]:
    leaf = predicted.detach().requires_grad_()
    loss = window_mse(leaf, images, row, column)
    return {"loss": loss.detach(), "predicted": torch.autograd.grad(loss, leaf)[0]}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("batch", "channels", "window", "image"),
    [(3, 3, (50, 49), (96, 100)), (1, 1, (1, 1), (1, 1)), (2, 2, (17, 33), (17, 40))],
)
def test_as_good_as_eager(
    batch: int, channels: int, window: tuple[int, int], image: tuple[int, int], dtype: torch.dtype
) -> None:
    predicted, images, row, column = draw(batch, channels, window, image, dtype)
    exact = eager(predicted.double(), images.double(), row, column)
    same_type = eager(predicted, images, row, column)
    same_type["loss"] = same_type["loss"].float()  # ours is float32 always
    wide = torch.zeros(batch, channels, image[0] + 3, image[1] + 5, dtype=dtype)
    wide[:, :, 2:-1, 1:-4] = images
    for p, i in (
        (predicted, images),
        (spread(predicted), spread(images)),
        (guarded(predicted)[0], guarded(images)[0]),
        (predicted, wide[:, :, 2:-1, 1:-4]),
        (predicted, images.clone(memory_format=torch.channels_last)),
    ):
        for name, value in ours(p, i, spread(row), spread(column)).items():
            assert_as_good_as_eager(value, same_type[name], exact[name], name)


def test_types_may_differ() -> None:
    predicted, images, row, column = draw(2, 3, (20, 20), (30, 30))
    predicted = predicted.half()
    exact = eager(predicted.double(), images.double(), row, column)
    same = eager(predicted, images, row, column)
    for name, value in ours(predicted, images, row, column).items():
        assert_as_good_as_eager(value, same[name], exact[name], name)


def test_no_values_give_nan_as_the_mean_does() -> None:
    predicted, images, row, column = draw(0, 3, (4, 4), (8, 8))
    got = ours(predicted, images, row, column)
    assert got["loss"].isnan()
    assert got["predicted"].shape == (0, 3, 4, 4)


def test_gradcheck_and_no_second_derivative() -> None:
    predicted, *rest = draw(2, 2, (3, 2), (4, 4), torch.float64)
    predicted.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: window_mse(p, *rest), predicted)
    loss = window_mse(predicted, *rest)
    (d,) = torch.autograd.grad(loss**2, predicted, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        d.sum().backward()


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(batch=st.integers(1, 3), channels=st.integers(1, 3), window=st.integers(1, 5),
       more=st.integers(0, 4), dtype=st.sampled_from(FLOATS))  # fmt: skip
def test_opcheck(batch: int, channels: int, window: int, more: int, dtype: torch.dtype) -> None:
    case = draw(batch, channels, (window, window + 1), (window + more, window + 2), dtype)
    torch.library.opcheck(torch.ops.ecamp.window_mse.default, case)
    torch.testing.assert_close(torch.ops.ecamp.window_mse(*case), op._reference(*case))
    backward = (torch.tensor(0.5), *case)
    torch.library.opcheck(torch.ops.ecamp.window_mse_backward.default, backward)
    torch.testing.assert_close(
        torch.ops.ecamp.window_mse_backward(*backward), op._backward_reference(*backward)
    )


def test_compiles_into_one_graph() -> None:
    predicted, *rest = draw(2, 3, (10, 10), (20, 20))
    predicted.requires_grad_()

    def call(*case: Tensor) -> Tensor:
        return window_mse(*case) * 2

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    got, want = (f(predicted, *rest) for f in (compiled, call))
    assert torch.equal(got, want)
    assert torch.equal(*(torch.autograd.grad(y, predicted)[0] for y in (got, want)))


@native
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_lanes_and_threads_change_no_bit(lane_index: int, dtype: torch.dtype) -> None:
    case = draw(4, 3, (100, 70), (120, 120), dtype)
    want = ours(*case)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            with lane(lane_index):
                got = ours(*case)
            assert all(torch.equal(got[name], want[name]) for name in want)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": torch.zeros(2, 3, 4)}, "predicted must be floating with 4 axes"),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "images must be floating"),
        ({"predicted": torch.zeros(2, 1, 4, 4)}, "batch and channels"),
        ({"predicted": torch.zeros(2, 3, 9, 4)}, "must not be larger"),
        ({"row": torch.zeros(3, dtype=torch.int64)}, r"row must be int64 \(2,\)"),
        ({"column": torch.zeros(2)}, "column must be int64"),
        ({"row": torch.tensor([0, 5])}, r"row\[1\] = 5 lies outside 0..4"),
        ({"column": torch.tensor([-1, 0])}, r"column\[0\] = -1 lies outside 0..4"),
        ({"row": torch.zeros(2, dtype=torch.int64, device="meta")}, "move them together"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    good = {"predicted": torch.zeros(2, 3, 4, 4), "images": torch.zeros(2, 3, 8, 8),
            "row": torch.tensor([0, 4]), "column": torch.tensor([2, 3])}  # fmt: skip
    with pytest.raises((ValueError, RuntimeError), match=message):
        window_mse(**{**good, **change})
    if "[" in message:
        with pytest.raises(RuntimeError, match=message):
            op._reference(*{**good, **change}.values())
