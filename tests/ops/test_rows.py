"""`gather_rows` and `scatter_rows` against loops in Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecamp.ops import rows as op
from ecamp.ops.rows import gather_rows, scatter_rows
from tests.ops.checks import FLOATS, guarded, lane, native, spread


def oracle_gather(x: Tensor, index: Tensor) -> Tensor:
    empty = torch.zeros(x.shape[1], dtype=x.dtype)
    picked = [x[i] if i >= 0 else empty for i in index.tolist()]
    return torch.stack(picked) if picked else x.new_zeros(0, x.shape[1])


def oracle_scatter(x: Tensor, index: Tensor, rows: int) -> Tensor:
    out = torch.zeros(rows, x.shape[1], dtype=x.dtype)
    for i, position in enumerate(index.tolist()):
        if position >= 0:
            out[position] = x[i]
    return out


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Rows of one side, an index that names some rows of the other side, and their number."""
    rows, count = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    order = draw(st.permutations(list(range(rows)) + [-1] * max(count - rows, 0)))
    gaps = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    index = [-1 if gap else position for gap, position in zip(gaps, order, strict=False)]
    width = draw(st.integers(0, 5))
    dtype = draw(st.sampled_from([*FLOATS, torch.float64, torch.int64, torch.bool]))
    x = torch.arange(len(index) * width).reshape(len(index), width).to(dtype)
    return x, torch.tensor(index, dtype=torch.int64), rows


@settings(max_examples=150, deadline=None)
@given(cases())
def test_equals_the_loop(case: tuple[Tensor, Tensor, int]) -> None:
    x, index, rows = case
    want = oracle_scatter(x, index, rows)
    back = oracle_gather(want, index)
    for values in (x, spread(x), guarded(x)[0]):
        assert torch.equal(scatter_rows(values, spread(index), rows), want)
    assert torch.equal(gather_rows(spread(want), index), back)
    assert torch.equal(op._scatter_reference(x, index, rows), want)
    assert torch.equal(op._gather_reference(want, index), back)


@settings(max_examples=8, deadline=None)
@given(cases())
def test_opcheck(case: tuple[Tensor, Tensor, int]) -> None:
    x, index, rows = case
    torch.library.opcheck(torch.ops.ecamp.scatter_rows.default, (x, index, rows))
    out = torch.ops.ecamp.scatter_rows(x, index, rows)
    torch.library.opcheck(torch.ops.ecamp.gather_rows.default, (out, index))


def some(rows: int = 300, width: int = 257) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    index = torch.randperm(rows, generator=g)
    index[::7] = -1
    return torch.randn(rows, width, generator=g), index


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_are_those_of_indexing(dtype: torch.dtype) -> None:
    x, index = some()
    x = x.to(dtype).requires_grad_()
    grad = torch.randn(300, 257, generator=torch.Generator().manual_seed(1)).to(dtype)
    kept = index >= 0
    want = torch.autograd.grad(x[index.clamp(min=0)] * kept[:, None], x, grad)[0]
    assert torch.equal(torch.autograd.grad(gather_rows(x, index), x, grad)[0], want)
    long = torch.randn(400, 257, generator=torch.Generator().manual_seed(2)).to(dtype)
    got = torch.autograd.grad(scatter_rows(x, index, 400), x, long)[0]
    assert torch.equal(got, oracle_gather(long, index))


def test_gradcheck_and_no_second_derivative() -> None:
    x, index = some(6, 3)
    x = x.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gather_rows(x, index), x)
    assert torch.autograd.gradcheck(lambda x: scatter_rows(x, index, 9), x)
    for y in (gather_rows(x, index), scatter_rows(x, index, 9)):
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            dx.sum().backward()


def test_compiles_into_one_graph() -> None:
    x, index = some()
    x = x.requires_grad_()

    def call(x: Tensor, index: Tensor) -> Tensor:
        return gather_rows(scatter_rows(x, index, 400) * 2, index)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    got, want = compiled(x, index), call(x, index)
    assert torch.equal(got, want)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (got, want)]
    assert torch.equal(*grads)


@native
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_lanes_and_threads_change_no_bit(lane_index: int) -> None:
    x, index = some()
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            with lane(lane_index):
                assert torch.equal(scatter_rows(x, index, 333), oracle_scatter(x, index, 333))
                assert torch.equal(gather_rows(x, index), oracle_gather(x, index))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("x", "index", "message"),
    [
        (torch.zeros(4), torch.arange(4), r"x must be \(rows, D\)"),
        (torch.zeros(4, 2), torch.zeros(4), "index must be int64"),
        (torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64), "index must be int64"),
        (torch.zeros(4, 2), torch.tensor([0, 1, 4, 2]), r"index\[2\] = 4 lies outside -1..3"),
        (torch.zeros(4, 2), torch.tensor([0, -2, 3, 2]), r"index\[1\] = -2 lies outside"),
        (
            torch.zeros(4, 2),
            torch.tensor([-1, 2, -1, 2]),
            r"index\[3\] = 2 appears twice, also at 1",
        ),
        (torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64, device="meta"), "together"),
    ],
)
def test_wrong_arguments_are_named(x: Tensor, index: Tensor, message: str) -> None:
    calls = [lambda: gather_rows(x, index), lambda: scatter_rows(x, index, 4)]
    if "index[" in message.replace("\\", ""):
        calls += [
            lambda: op._gather_reference(x, index),
            lambda: op._scatter_reference(x, index, 4),
        ]
    for call in calls:
        with pytest.raises((ValueError, RuntimeError), match=message):
            call()
    with pytest.raises(ValueError, match="scatter_rows: index must be int64"):
        scatter_rows(torch.zeros(3, 2), torch.arange(2), 4)
    with pytest.raises(ValueError, match="rows must not be negative"):
        scatter_rows(torch.zeros(2, 2), torch.arange(2), -1)
