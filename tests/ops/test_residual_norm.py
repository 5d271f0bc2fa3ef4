"""`residual_norm`: a float64 oracle with its own Philox, eager torch, the reference, the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecamp.ops import residual_norm as op
from ecamp.ops.residual_norm import residual_norm
from tests.ops.checks import (
    FLOATS,
    assert_as_good_as_eager,
    guarded,
    lane,
    native,
    philox_plain,
    spread,
)

NAMES = ("x", "residual", "gamma", "beta", "row_bias")


class Case:
    """Arguments, random but always the same; sample lengths differ."""

    def __init__(
        self, rows: int, width: int, dtype: torch.dtype = torch.float32, *, batch: int = 3,
        dropout: float = 0.0, biased: bool = True, seed: int = 0, shuffled: bool = False,
        parameters: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int, type: torch.dtype = dtype) -> Tensor:
            return torch.randn(shape, generator=g).to(type)

        self.x, self.residual = draw(rows, width) + 1, draw(rows, width)
        self.gamma = draw(width, type=parameters or dtype) * 0.1 + 1
        self.beta = draw(width, type=parameters or dtype)
        self.row_bias = draw(batch, width) if biased else None
        self.row_batch = torch.randint(0, batch, (rows,), generator=g)
        if not shuffled:
            self.row_batch = self.row_batch.sort().values
        self.samples = self.row_batch * 977 + 2**32  # the low 32 bits count
        self.positions = torch.arange(rows) % 256
        self.grad = draw(rows, width)
        self.numbers: dict[str, Any] = {
            "eps": 1e-12,
            "dropout": dropout,
            "seed": 2**40 + 3,
            "step": 9,
        }

    def arguments(self) -> list[Tensor]:
        return [getattr(self, n) for n in NAMES if getattr(self, n) is not None]

    def run(self, change: Any = lambda t: t, grad: Any = None) -> dict[str, Tensor]:
        """Result and gradients of the op; `change` prepares each floating argument."""
        leaves = {n: change(t.detach()).requires_grad_() for n, t in self.floats()}
        y = residual_norm(**leaves, row_batch=self.row_batch, samples=self.samples,
                          positions=self.positions, **self.numbers)  # fmt: skip
        upstream = (self.grad if grad is None else grad).to(y.dtype)
        return {"y": y, **dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), upstream),
                                   strict=True))}  # fmt: skip

    def floats(self) -> Iterator[tuple[str, Tensor]]:
        for name in NAMES:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def eager(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Plain torch with the oracle's dropout; in float64 it is the oracle."""
        leaves = {
            n: (t if dtype is None else t.to(dtype)).detach().requires_grad_()
            for n, t in self.floats()
        }
        z = leaves["x"]
        if self.row_bias is not None:
            z = z + leaves["row_bias"][self.row_batch]
        p = self.numbers["dropout"]
        if p:
            z = torch.where(keep_of(self, z.shape), z / (1 - p), 0.0)
        z = z + leaves["residual"]
        y = F.layer_norm(z, z.shape[1:], leaves["gamma"].to(z.dtype), leaves["beta"].to(z.dtype),
                         self.numbers["eps"])  # fmt: skip
        grads = torch.autograd.grad(y, list(leaves.values()), self.grad.to(y.dtype))
        return {"y": y, **dict(zip(leaves, grads, strict=True))}


def keep_of(case: Case, shape: torch.Size) -> Tensor:
    """The op's rule with numpy's Philox (the plain one is too slow for large cases)."""
    return op._factor(case.numbers["dropout"], case.numbers["seed"], case.numbers["step"],
                      case.samples, case.positions, shape[1]) > 0  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("rows", "width", "dropout", "biased", "shuffled"),
    [(1, 8, 0.0, True, False), (49, 20, 0.3, True, False), (50, 7, 0.1, True, True),
     (196, 64, 0.0, False, False), (255, 768, 0.1, True, False), (256, 96, 0.5, False, True)],
)  # fmt: skip
def test_as_good_as_eager(
    dtype: torch.dtype, rows: int, width: int, dropout: float, biased: bool, shuffled: bool
) -> None:
    case = Case(rows, width, dtype, dropout=dropout, biased=biased, shuffled=shuffled)
    exact, eager = case.eager(torch.float64), case.eager()
    for change in (lambda t: t.clone(), spread, lambda t: guarded(t)[0]):
        got = case.run(change)
        for name, value in got.items():
            assert_as_good_as_eager(value, eager[name], exact[name], name)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_types_may_differ(low: torch.dtype) -> None:
    case = Case(60, 40, low, dropout=0.2, parameters=torch.float32)
    case.residual = case.residual.float() * 1.01
    exact, eager, got = case.eager(torch.float64), case.eager(), case.run(lambda t: t.clone())
    assert got["y"].dtype == torch.float32
    assert got["x"].dtype == got["row_bias"].dtype == low
    assert got["residual"].dtype == got["gamma"].dtype == torch.float32
    for name, value in got.items():
        assert_as_good_as_eager(value, eager[name], exact[name], name)
    case.residual = case.residual.to(low)
    assert case.run(lambda t: t.clone())["y"].dtype == low  # float32 gamma does not widen
    with torch.autocast("cpu", low):
        assert case.run(lambda t: t.clone())["y"].dtype == torch.float32


def test_dropout_follows_the_rule_word_by_word() -> None:
    case = Case(6, 10, dropout=0.4)
    p, key = 0.4, [3, 2**8]  # 2**40 + 3 in two words
    keep = [
        [philox_plain([t % 256, j // 4, int(case.samples[t]) % 2**32, 9], key)[j % 4] >= round(p * 2**32)
         for j in range(10)]
        for t in range(6)
    ]  # fmt: skip
    z = (case.x + case.row_bias[case.row_batch]).double()  # type: ignore[index]
    z = z * torch.tensor(keep) / (1 - p) + case.residual
    want = F.layer_norm(z, (10,), case.gamma.double(), case.beta.double(), 1e-12)
    torch.testing.assert_close(case.run()["y"].double(), want, atol=1e-5, rtol=1e-5)
    many = Case(256, 768, dropout=0.4)
    assert (
        abs(keep_of(many, many.x.shape).double().mean() - 0.6) < 5 * (0.24 / many.x.numel()) ** 0.5
    )


def test_packed_rows_equal_padded_rows_in_any_order() -> None:
    case = Case(90, 24, dropout=0.3)
    packed = case.run(lambda t: t.clone())
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    place = torch.arange(90) * 2 + 1  # every second row of a padded layout
    padded = Case(181, 24, dropout=0.3)
    for name in ("x", "residual", "samples", "positions", "row_batch", "grad"):
        wide = torch.zeros_like(getattr(padded, name))
        wide[place] = getattr(case, name)[order]
        setattr(padded, name, wide)
    padded.row_bias, padded.gamma, padded.beta = case.row_bias, case.gamma, case.beta
    got = padded.run(lambda t: t.clone())
    for name in ("y", "x", "residual"):
        assert torch.equal(got[name][place], packed[name][order]), name
    for name in ("gamma", "beta", "row_bias"):
        torch.testing.assert_close(got[name], packed[name], atol=1e-4, rtol=1e-4)


def test_threads_change_no_bit() -> None:
    case = Case(700, 64, dropout=0.2, shuffled=True)
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            results.append(case.run(lambda t: t.clone()))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(other[n], results[0][n]) for n in other)


@native
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_every_lane_equals_the_reference(lane_index: int, dtype: torch.dtype) -> None:
    case = Case(70, 100, dtype, dropout=0.2, shuffled=True)
    best = case.run(lambda t: t.clone())
    with lane(lane_index):
        got = case.run(lambda t: t.clone())
    assert all(torch.equal(got[n], best[n]) for n in got)
    y, mean, rstd = op._reference(*samples_of(case), dtype)
    bits = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(got["y"], y, atol=bits, rtol=bits)
    x, residual, gamma, _, _, *rest = samples_of(case)
    grads = op._backward_reference(case.grad, x, residual, gamma, mean, rstd, *rest)
    for name, grad in zip(NAMES, grads, strict=True):
        torch.testing.assert_close(got[name], grad, atol=10 * bits, rtol=bits, msg=name)


def samples_of(case: Case) -> tuple[Any, ...]:
    """Arguments of the op as `torch.ops` takes them, without dtype."""
    n = case.numbers
    return (case.x, case.residual, case.gamma, case.beta, n["eps"], case.row_bias, case.row_batch,
            n["dropout"], n["seed"], n["step"], case.samples, case.positions)  # fmt: skip


def test_gradcheck_and_no_second_derivative() -> None:
    case = Case(5, 6, torch.float64, dropout=0.3)
    leaves = [t.requires_grad_() for t in case.arguments()]

    def call(*floats: Tensor) -> Tensor:
        return residual_norm(*floats[:4], row_bias=floats[4], row_batch=case.row_batch,
                             samples=case.samples, positions=case.positions, **case.numbers)  # fmt: skip

    assert torch.autograd.gradcheck(call, leaves)
    (dx,) = torch.autograd.grad(call(*leaves).square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@settings(max_examples=6, deadline=None)
@given(rows=st.integers(0, 9), width=st.integers(1, 9), dropout=st.sampled_from([0.0, 0.5]),
       biased=st.booleans(), dtype=st.sampled_from(FLOATS))  # fmt: skip
def test_opcheck(rows: int, width: int, dropout: float, biased: bool, dtype: torch.dtype) -> None:
    case = Case(rows, width, dtype, dropout=dropout, biased=biased)
    arguments = samples_of(case)
    torch.library.opcheck(torch.ops.ecamp.residual_norm.default, (*arguments, dtype))
    _, mean, rstd = torch.ops.ecamp.residual_norm(*arguments, dtype)
    x, residual, gamma, _, _, *rest = arguments
    torch.library.opcheck(torch.ops.ecamp.residual_norm_backward.default,
                          (case.grad, x, residual, gamma, mean, rstd, *rest))  # fmt: skip


def test_compiles_into_one_graph_for_every_step() -> None:
    case = Case(20, 12, dropout=0.2)
    graphs = []

    def backend(module: Any, example: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        graphs.append(module)
        return aot_eager(module, example)

    def call(x: Tensor, step: int) -> Tensor:
        return residual_norm(x, case.residual, case.gamma, case.beta, row_bias=case.row_bias,
                             row_batch=case.row_batch, samples=case.samples,
                             positions=case.positions, **{**case.numbers, "step": step})  # fmt: skip

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend=backend)
    x = case.x.requires_grad_()
    for step in (9, 10, 11, 12):
        got, want = compiled(x, step), call(x, step)
        assert torch.equal(got, want)
        assert torch.equal(*(torch.autograd.grad(y, x, case.grad)[0] for y in (got, want)))
    assert len(graphs) <= 2  # the second with a symbol for the step


def test_no_rows() -> None:
    case = Case(0, 4, dropout=0.1)
    got = case.run(lambda t: t.clone())
    assert got["y"].shape == got["x"].shape == (0, 4)
    assert not got["gamma"].any()
    assert got["row_bias"].shape == (3, 4)
    assert not got["row_bias"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4)}, "x must be floating"),
        ({"residual": torch.zeros(4, 5)}, "residual must be floating"),
        ({"gamma": torch.zeros(3)}, "gamma must be floating"),
        ({"beta": torch.zeros(4, dtype=torch.int64)}, "beta must be floating"),
        ({"row_bias": torch.zeros(2, 5)}, "row_bias must be floating"),
        ({"row_batch": None}, "row_bias needs row_batch"),
        ({"row_batch": torch.tensor([0, 1, 2])}, r"row_batch\[2\] = 2 lies outside 0..1"),
        ({"row_batch": torch.tensor([0, -1, 1])}, r"row_batch\[1\] = -1"),
        ({"samples": None}, "dropout needs samples"),
        ({"positions": torch.zeros(3)}, "positions must be int64"),
        ({"dropout": 1.0}, "dropout must lie"),
        ({"gamma": torch.zeros(4, device="meta")}, "move them together"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    good = {
        "x": torch.zeros(3, 4), "residual": torch.zeros(3, 4), "gamma": torch.zeros(4),
        "beta": torch.zeros(4), "eps": 1e-12, "row_bias": torch.zeros(2, 4),
        "row_batch": torch.tensor([0, 0, 1]), "dropout": 0.1, "samples": torch.arange(3),
        "positions": torch.arange(3),
    }  # fmt: skip
    with pytest.raises((ValueError, RuntimeError), match=message):
        residual_norm(**{**good, **change})
