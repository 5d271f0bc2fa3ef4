"""`ce_rows_`: the kernel against its reference, the reference against torch's autograd."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.ops.ce_rows import ce_rows_reference
from tests.ops.checks import FLOATS, lane, native


def sample(n: int, vocabulary: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Bias, labels and weights."""
    g = torch.Generator().manual_seed(0)
    bias = torch.randn(vocabulary, generator=g).to(dtype)
    labels = torch.randint(vocabulary, (n,), generator=g)
    return bias, labels, torch.rand(n, generator=g) * 3


@pytest.mark.parametrize("with_bias", [False, True])
def test_reference_is_the_gradient_of_torch(with_bias: bool) -> None:
    bias, labels, weights = sample(9, 65, torch.float64)
    logits = torch.randn(9, 65, dtype=torch.float64, requires_grad=True)
    want = F.cross_entropy(logits + bias * with_bias, labels, reduction="none")
    (want @ weights.double()).backward()
    got = logits.detach().clone()
    shift = bias if with_bias else None
    losses = ce_rows_reference(got, shift, labels, weights.double(), 2.0, True)
    torch.testing.assert_close(losses, want.detach())
    torch.testing.assert_close(got, 2 * logits.grad)


@native
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("vocabulary", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_kernel_equals_reference_and_keeps_to_its_rows(
    dtype: torch.dtype, vocabulary: int, lane_index: int
) -> None:
    bias, labels, weights = sample(17, vocabulary, dtype)
    g = torch.Generator().manual_seed(1)
    logits = (torch.randn(17, vocabulary, generator=g) * 4).to(dtype)
    for gradient, shift in itertools.product((False, True), (None, bias)):
        want = logits.clone()
        losses = ce_rows_reference(want, shift, labels, weights, 2.0, gradient)
        buffer = torch.full((19, vocabulary + 5), 7.0, dtype=dtype)
        view = buffer[1:18, 3 : 3 + vocabulary]
        view.copy_(logits)
        with lane(lane_index):
            got = torch.ops.ecamp.ce_rows_(view, shift, labels, weights, 2.0, gradient)
        torch.testing.assert_close(got, losses, rtol=1e-5, atol=2e-6)
        exact = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
        torch.testing.assert_close(view, want, rtol=exact, atol=exact)
        view.fill_(7.0)
        assert (buffer == 7.0).all()


@native
def test_lanes_and_threads_give_the_same_bits() -> None:
    logits = torch.randn(300, 1003, generator=torch.Generator().manual_seed(0)) * 5
    bias, labels, weights = sample(300, 1003)
    seen = []
    for lane_index, threads in ((0, 1), (1, 1), (2, 1), (2, 2)):
        before = torch.get_num_threads()
        try:
            with lane(lane_index):
                torch.set_num_threads(threads)
                d = logits.clone()
                losses = torch.ops.ecamp.ce_rows_(d, bias, labels, weights, 1.0, True)
                seen.append((d, losses))
        finally:
            torch.set_num_threads(before)
    for d, losses in seen[1:]:
        assert torch.equal(d, seen[0][0])
        assert torch.equal(losses, seen[0][1])


@native
def test_strange_logits_give_torchs_result() -> None:
    inf = float("inf")
    logits = torch.tensor(
        [[0.0, -inf, 1.0], [-inf] * 3, [inf, 0.0, 0.0], [float("nan"), 0, 0], [1e4, -1e4, 0.0]]
    )
    labels = torch.tensor([1, 0, 0, 1, 0])
    want = F.cross_entropy(logits, labels, reduction="none")
    got = torch.ops.ecamp.ce_rows_(logits, None, labels, torch.ones(5), 1.0, True)
    torch.testing.assert_close(got, want, equal_nan=True)


@native
@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, torch.zeros(7), "logits must have 2 axes"),
        (0, torch.zeros(5, 7).T, "logits must have adjacent columns"),
        (0, torch.zeros(1, 5).expand(7, 5), "rows of logits overlap"),
        (0, torch.zeros(7, 0), "at least one column"),
        (0, torch.zeros(7, 5).double(), "bias has the wrong dtype"),
        (1, torch.zeros(4), "bias must have 5 entries, has 4"),
        (2, torch.zeros(6, dtype=torch.int64), "one entry per row"),
        (2, torch.tensor([0] * 6 + [5]), r"labels\[6\] = 5 lies outside 0..4"),
        (3, torch.zeros(7).double(), "weights has the wrong dtype"),
    ],
)
def test_wrong_arguments_are_named(index: int, value: Tensor, message: str) -> None:
    inputs = [torch.zeros(7, 5), *sample(7, 5)]
    inputs[index] = value
    with pytest.raises(RuntimeError, match=f"ce_rows_: .*{message}"):
        torch.ops.ecamp.ce_rows_(*inputs, 1.0, True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [0, 3])
def test_opcheck(dtype: torch.dtype, n: int) -> None:
    logits = torch.randn(n, 33).to(dtype)
    for gradient, bias in itertools.product((False, True), (True, False)):
        shift, *rest = sample(n, 33, dtype)
        args = (logits.clone(), shift if bias else None, *rest, 1.0, gradient)
        torch.library.opcheck(torch.ops.ecamp.ce_rows_.default, args)
