"""`linear_weighted_ce`: a float64 oracle with gradients by hand, eager's error as the budget."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from ecamp.ops import linear_weighted_ce as op
from tests.ops.checks import FLOATS, TINY, assert_as_good_as_eager, guarded, spread

NAMES = ("loss", "d_hidden", "d_weight", "d_bias", "d_weights")


def sample(
    n: int, width: int, vocabulary: int, dtype: torch.dtype = torch.float32, bias: bool = True,
    seed: int = 0,
) -> list[Tensor | None]:  # fmt: skip
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=g).to(dtype)
    weight = (torch.randn(vocabulary, width, generator=g) * 0.3).to(dtype)
    shift = torch.randn(vocabulary, generator=g).to(dtype) if bias else None
    labels = torch.randint(vocabulary, (n,), generator=g)
    weights = torch.rand(n, generator=g) * 3
    weights[: n // 5] = 0
    return [hidden, weight, shift, labels, weights]


def oracle(inputs: list, factor: float) -> list[Tensor | None]:
    """Loss and gradients in float64, from the definition of the softmax."""
    h, w, b, labels, weights = (None if t is None else t.detach() for t in inputs)
    logits = h.double() @ w.double().T
    if b is not None:
        logits = logits + b.double()
    e = (logits - logits.max(1, keepdim=True).values).exp() if len(h) else logits
    p = e / e.sum(1, keepdim=True)
    row = torch.arange(len(h))
    losses = -p[row, labels].log()
    d = p.clone()
    d[row, labels] -= 1
    d *= weights.double()[:, None] * factor
    d_bias = None if b is None else d.sum(0)
    loss = (losses * weights.double()).sum()
    return [loss, d @ w.double(), d.T @ h.double(), d_bias, losses * factor]


def run(loss_of, inputs: list, factor: float = 1.0) -> list[Tensor | None]:
    """Loss and gradients of hidden, weight, bias, weights."""
    h, w, b, labels, weights = inputs
    leaves = [None if t is None else t.detach().requires_grad_() for t in (h, w, b, weights)]
    loss = loss_of(*leaves[:3], labels, leaves[3])
    (loss * factor).backward()
    return [loss.detach(), *(None if t is None else t.grad for t in leaves)]


def eager(hidden, weight, bias, labels, weights) -> Tensor:
    logits = F.linear(hidden, weight, bias).float()
    return (F.cross_entropy(logits, labels, reduction="none") * weights).sum()


def compare(inputs: list, factor: float = 1.0, cast=lambda loss_of: loss_of) -> None:
    """The error rule. A sum's error is luck, as rows' errors cancel: its budget is their norm."""
    got, plain = run(cast(op.linear_weighted_ce), inputs, factor), run(cast(eager), inputs, factor)
    exact = oracle(inputs, factor)
    for name, a, e, x in zip(NAMES[1:], got[1:], plain[1:], exact[1:], strict=True):
        if x is None:
            assert a is None
            continue
        # One row's loss is as good as the luck of its 16-bit logits: judge it as one of them.
        kind = a.dtype if len(inputs[0]) > 1 else inputs[0].dtype
        assert_as_good_as_eager(a.to(kind), e.to(kind), x, name)
    row_errors = (plain[4].double() - exact[4]) / factor * inputs[4].double()
    budget = 2 * row_errors.norm() + (exact[0] * TINY[inputs[0].dtype] / max(1, len(inputs[0])))
    assert abs(got[0].double() - exact[0]) <= budget + 1e-6 * exact[0]


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "many chunks":
        monkeypatch.setitem(op.CHUNK_BYTES, "cpu", 1)  # the least: 16 rows
        monkeypatch.setitem(op.BLOCK_ROWS, "cpu", 100)
    return request.param


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("n", "vocabulary"), [(1, 1), (1, 63), (49, 64), (50, 1000), (196, 257)])
@pytest.mark.parametrize("bias", [True, False])
def test_as_good_as_eager(chunks: str, dtype: torch.dtype, n: int, vocabulary: int, bias: bool):
    compare(sample(n, 48, vocabulary, dtype, bias), factor=1.7)


@pytest.mark.parametrize("dtype", FLOATS)
def test_published_vocabulary(dtype: torch.dtype) -> None:
    compare(sample(20, 16, 30522, dtype), factor=0.1)


@pytest.mark.parametrize("factor", [1.0, 1 / 4096])
def test_small_probabilities_survive_float16(chunks: str, factor: float) -> None:
    """A large vocabulary with flat logits: probabilities of 3e-5, below float16's normal range."""
    inputs = sample(64, 32, 30522, torch.float16)
    inputs[1] *= 0.01
    compare(inputs, factor)


@pytest.mark.parametrize("dtype", FLOATS)
def test_views(chunks: str, dtype: torch.dtype) -> None:
    inputs = sample(49, 32, 255, dtype)
    want = run(op.linear_weighted_ce, inputs)
    for change in (
        lambda t: guarded(t)[0],
        spread,
        lambda t: t.mT.contiguous().mT if t.dim() == 2 else t,
    ):
        views = [change(t) for t in inputs]
        for a, b in zip(run(op.linear_weighted_ce, views), want, strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-2
            )


@pytest.mark.parametrize("chunk_rows", [2, 16])
def test_gradcheck(monkeypatch: pytest.MonkeyPatch, chunk_rows: int) -> None:
    monkeypatch.setattr(op, "_chunks", lambda n, *_: (min(n, chunk_rows), -(-n // chunk_rows)))
    h, w, b, labels, weights = (t.double() if t.is_floating_point() else t for t in sample(5, 3, 7))
    leaves = [t.requires_grad_() for t in (h, w, b, weights)]
    assert torch.autograd.gradcheck(
        lambda h, w, b, weights: op.linear_weighted_ce(h, w, b, labels, weights), leaves
    )


def test_only_wanted_gradients_are_computed() -> None:
    h, w, b, labels, weights = sample(9, 8, 33)
    full = run(op.linear_weighted_ce, [h, w, b, labels, weights])
    for needs_grad in itertools.product((False, True), repeat=4):
        leaves = [
            t.detach().requires_grad_(want)
            for t, want in zip((h, w, b, weights), needs_grad, strict=True)
        ]
        loss = op.linear_weighted_ce(*leaves[:3], labels, leaves[3])
        assert loss.requires_grad == any(needs_grad)
        torch.testing.assert_close(loss.detach(), full[0])
        if any(needs_grad):
            loss.backward()
        for leaf, want, grad in zip(leaves, needs_grad, full[1:], strict=True):
            if want:
                torch.testing.assert_close(leaf.grad, grad)
            else:
                assert leaf.grad is None
    with torch.no_grad():
        leaf = h.detach().requires_grad_()
        assert not op.linear_weighted_ce(leaf, w, b, labels, weights).requires_grad


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_kept_graph_gives_the_same_gradient_twice(factor: float) -> None:
    h, w, b, labels, weights = sample(9, 8, 33)
    h.requires_grad_()
    w.requires_grad_()
    loss = op.linear_weighted_ce(h, w, b, labels, weights) * factor
    first = [g.clone() for g in torch.autograd.grad(loss, (h, w), retain_graph=True)]
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(h.grad, 2 * first[0])
    torch.testing.assert_close(w.grad, 2 * first[1])


def test_second_derivatives_are_refused() -> None:
    h, w, b, labels, weights = sample(3, 4, 5)
    h.requires_grad_()
    scale = torch.ones((), requires_grad=True)
    loss = op.linear_weighted_ce(h, w, b, labels, weights) * scale
    (grad,) = torch.autograd.grad(loss, h, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_that_of_linear(chunks: str, dtype: torch.dtype) -> None:
    inputs = sample(50, 32, 500)

    def cast(loss_of):
        def call(*args):
            with torch.autocast("cpu", dtype):
                return loss_of(*args)

        return call

    compare(inputs, cast=cast)
    assert {t.dtype for t in run(cast(op.linear_weighted_ce), inputs)} == {torch.float32}


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_rows(dtype: torch.dtype) -> None:
    got = run(op.linear_weighted_ce, sample(0, 8, 33, dtype))
    assert [t.shape for t in got] == [(), (0, 8), (33, 8), (33,), (0,)]
    assert all((t == 0).all() for t in got)


def test_rows_are_returned_unweighted() -> None:
    h, w, b, labels, weights = sample(9, 8, 33)
    h.requires_grad_()
    loss, rows = op.linear_weighted_ce_rows(h, w, b, labels, weights)
    torch.testing.assert_close(rows, F.cross_entropy(F.linear(h, w, b), labels, reduction="none"))
    torch.testing.assert_close(loss, (rows * weights).sum())
    assert not rows.requires_grad


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, torch.zeros(9), "hidden must be floating"),
        (0, torch.zeros(9, 8, dtype=torch.int64), "hidden must be floating"),
        (1, torch.zeros(33, 7), r"weight must be \(V, 8\)"),
        (1, torch.zeros(0, 8), "weight must be"),
        (1, torch.zeros(33, 8).half(), "weight is torch.float16, hidden torch.float32"),
        (2, torch.zeros(32), r"bias must be \(33,\)"),
        (3, torch.zeros(9), "labels must be torch.int64"),
        (3, torch.zeros(8, dtype=torch.int64), r"labels must be torch.int64 \(9,\)"),
        (4, torch.zeros(9).double(), "weights must be torch.float32"),
        (3, torch.tensor([0] * 7 + [33, 0]), r"labels\[7\] = 33 lies outside 0..32"),
        (3, torch.tensor([0] * 8 + [-100]), r"labels\[8\] = -100 lies outside 0..32"),
        (0, torch.zeros(9, 8, device="meta"), "tensors lie on"),
    ],
)
def test_wrong_arguments_are_named(index: int, value: Tensor, message: str) -> None:
    inputs = sample(9, 8, 33)
    inputs[index] = value
    with pytest.raises((ValueError, RuntimeError), match=message):
        op.linear_weighted_ce(*inputs)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 40), st.sampled_from([1, 7, 64]), st.sampled_from(FLOATS), st.booleans(),
       st.tuples(*[st.booleans()] * 4))  # fmt: skip
def test_opcheck(n: int, vocabulary: int, dtype: torch.dtype, bias: bool, flags: tuple) -> None:
    inputs = sample(n, 4, vocabulary, dtype, bias)
    torch.library.opcheck(torch.ops.ecamp.linear_weighted_ce.default, (*inputs, *flags))


@pytest.mark.parametrize("autocast", [False, True])
def test_compiles_whole_and_once_for_any_number_of_rows(autocast: bool) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def head(h, w, b, labels, weights):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return op.linear_weighted_ce(h * 1.0, w, b, labels, weights) / weights.sum()

    compiled = torch.compile(head, fullgraph=True, backend=counter, dynamic=True)
    for n in (49, 50, 196):
        inputs = sample(n, 16, 129)
        for a, b in zip(run(compiled, inputs), run(head, inputs), strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_switched_off_gives_the_same_loss() -> None:
    script = (
        "import torch\nfrom ecamp.ops.linear_weighted_ce import linear_weighted_ce\n"
        "torch.manual_seed(0)\n"
        "h = torch.randn(40, 16, requires_grad=True); w = torch.randn(99, 16)\n"
        "loss = linear_weighted_ce(h, w, None, torch.arange(40), torch.rand(40))\n"
        "loss.backward(); print(loss.item(), h.grad.norm().item())"
    )
    out = [
        subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True,
                       check=True, env={**os.environ, "ECAMP_DISABLE_EXT": off}).stdout.split()
        for off in ("0", "1")
    ]  # fmt: skip
    assert [float(x) for x in out[0]] == pytest.approx([float(x) for x in out[1]], rel=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_was_never_written_does_not_reach_a_gradient(dtype: torch.dtype) -> None:
    """Deterministic mode fills new memory with NaN; a kernel that reads beyond the vocabulary shows it."""
    inputs = sample(50, 48, 1000, dtype)
    torch.use_deterministic_algorithms(True)
    try:
        results = run(op.linear_weighted_ce, inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.isfinite(value).all() for value in results)
