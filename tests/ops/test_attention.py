"""`attention`: values and gradients against float64, dropout's decisions, lanes and threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.ops import attention as op
from ecamp.ops._attention_reference import backward_reference, forward_reference
from ecamp.ops.philox import philox
from tests.ops.checks import FLOATS, assert_as_good_as_eager, guarded, lane, native

SEED, STEP = 2**40 + 5, 7


def draw(rows: int, heads: int, width: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, heads, width, generator=generator).to(dtype)


def layout_of(queries: list[int], keys: list[int], samples: list[int]) -> op.AttentionLayout:
    """Both sides packed."""
    nq, nk = (torch.tensor(rows, dtype=torch.int64) for rows in (queries, keys))
    return op.AttentionLayout(
        nq.cumsum(0) - nq, nq, nk.cumsum(0) - nk, nk, torch.tensor(samples, dtype=torch.int64),
        max(queries, default=0), max(keys, default=0),
    )  # fmt: skip


def oracle_keep(nq: int, nk: int, heads: int, sample: int, p: float) -> Tensor:
    """Decision by decision, from the rule in the module's docstring."""
    head, query, key = np.meshgrid(np.arange(heads), np.arange(nq), np.arange(nk), indexing="ij")
    counter = np.stack(
        [
            query,
            head * 65536 + key // 4,
            np.full_like(key, sample % 2**32),
            np.full_like(key, STEP),
        ],
        -1,
    )
    words = philox(counter.astype(np.uint32), (SEED % 2**32, SEED // 2**32))
    word = np.take_along_axis(words, (key % 4)[..., None], -1)[..., 0]
    return torch.from_numpy(word >= round(p * 2**32)).double() / (1 - p)


def eager(q: Tensor, k: Tensor, v: Tensor, layout: op.AttentionLayout, p: float) -> Tensor:
    """The published steps in the dtype of the arguments, sample by sample."""
    out = torch.zeros_like(q)
    for b, sample in enumerate(layout.sample_ids.tolist()):
        i, n = layout.query_start[b], layout.query_length[b]
        j, m = layout.key_start[b], layout.key_length[b]
        if m == 0 or n == 0:
            continue
        qs, ks, vs = (x.transpose(0, 1) for x in (q[i : i + n], k[j : j + m], v[j : j + m]))
        weight = (qs @ ks.transpose(1, 2) / q.shape[2] ** 0.5).softmax(-1)
        if p > 0:
            weight = weight * oracle_keep(int(n), int(m), q.shape[1], sample, p).to(q.dtype)
        out = out.index_add(0, torch.arange(int(n)) + i, (weight @ vs).transpose(0, 1))
    return out


def run(function, tensors: list[Tensor], grad: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Output and the three gradients."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))]


CASES = [
    # queries, keys, width, dropout
    ([1, 3], [49, 1], 64, 0.0),
    ([255, 20], [50, 50], 32, 0.1),
    ([256, 1], [196, 196], 64, 0.1),
    ([75, 64, 17], [75, 64, 17], 128, 0.3),
    ([33, 31], [33, 31], 48, 0.0),
    ([256], [256], 64, 0.0),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("queries", "keys", "width", "p"), CASES)
def test_error_is_within_twice_that_of_eager(queries, keys, width, p, dtype) -> None:
    layout = layout_of(queries, keys, [2**33 + 4, 9, 1][: len(queries)])
    tensors = [
        draw(sum(rows), 3, width, dtype, seed)
        for seed, rows in enumerate((queries, keys, keys, queries))
    ]
    *tensors, grad = tensors
    ours = run(
        lambda *t: op.attention(*t, layout, dropout=p, seed=SEED, step=STEP), tensors, grad, dtype
    )
    plain = run(lambda *t: eager(*t, layout, p), tensors, grad, dtype)
    exact = run(lambda *t: eager(*t, layout, p), tensors, grad, torch.float64)
    names = ("output", "query", "key", "value")
    for name, a, b, c in zip(names, ours, plain, exact, strict=True):
        assert_as_good_as_eager(a, b, c, name)


@pytest.mark.parametrize("dtype", FLOATS)
def test_equals_torch_without_dropout(dtype) -> None:
    q, k, v = (draw(3 * 50, 4, 64, dtype, seed) for seed in range(3))
    layout = op.pad_layout(3, 50, torch.full((3,), 50), torch.arange(3))

    def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.view(3, 50, 4, 64).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(150, 4, 64)

    exact = padded(q.double(), k.double(), v.double())
    assert_as_good_as_eager(op.attention(q, k, v, layout), padded(q, k, v), exact)


def test_large_scores_and_small_ones() -> None:
    """Softmax is safe: scores of some hundreds, and all alike."""
    q, k, v = (draw(40, 2, 64, torch.float32, seed) for seed in range(3))
    layout = layout_of([40], [40], [0])
    for factor in (0.0, 60.0):
        out = op.attention(q * factor, k, v, layout)
        exact = eager((q * factor).double(), k.double(), v.double(), layout, 0.0)
        assert_as_good_as_eager(out, eager(q * factor, k, v, layout, 0.0), exact)


def test_one_key_gives_no_gradient_to_scores() -> None:
    q, k, v = (draw(5, 2, 32, torch.bfloat16, seed).requires_grad_() for seed in range(3))
    layout = layout_of([1] * 5, [1] * 5, list(range(5)))
    out = op.attention(q, k, v, layout, dropout=0.4, seed=1)
    query_grad, key_grad, _ = torch.autograd.grad(out.sum(), (q, k, v))
    assert not query_grad.any()
    assert not key_grad.any()


def numbers(layout: op.AttentionLayout, p: float, scale: float) -> tuple:
    return (
        layout.query_start, layout.query_length, layout.key_start, layout.key_length,
        layout.sample_ids, layout.max_query, layout.max_key, op.threshold(p), 1 / (1 - p), SEED,
        STEP, scale,
    )  # fmt: skip


@native
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_native_equals_reference_in_every_lane(lane_index: int, dtype) -> None:
    layout = layout_of([50, 7, 0, 3], [49, 70, 5, 0], [3, 2**32 - 1, 5, 6])
    q, g = (draw(60, 2, 80, dtype, seed) for seed in (0, 1))
    k, v = (draw(124, 2, 80, dtype, seed) for seed in (2, 3))
    rest = numbers(layout, 0.25, 0.11)
    with lane(lane_index):
        out, lse = torch.ops.ecamp.attention_forward(q, k, v, *rest)
        grads = torch.ops.ecamp.attention_backward(g, q, k, v, out, lse, *rest)
    want, want_lse = forward_reference(q, k, v, *rest)
    want_grads = backward_reference(g, q, k, v, want, want_lse, *rest)
    unit = {torch.float32: 3e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    torch.testing.assert_close(lse, want_lse, rtol=1e-5, atol=1e-5)
    for a, b in zip((out, *grads), (want, *want_grads), strict=True):
        torch.testing.assert_close(a, b, rtol=unit, atol=unit * b.abs().max().item())


@native
@pytest.mark.parametrize("lane_index", [0, 1, 2])
@pytest.mark.parametrize("p", [2.0**-32, 0.1, 0.5, 1 - 2.0**-33])
def test_every_lane_makes_the_same_decisions(lane_index: int, p: float) -> None:
    """Equal weights over keys and values that are unit vectors show what was kept."""
    keys, heads = 128, 3
    layout = layout_of([9], [keys], [2**35 + 11])
    q, k = torch.zeros(9, heads, 128), torch.zeros(keys, heads, 128)
    v = torch.eye(keys)[:, None].expand(keys, heads, 128)
    with lane(lane_index):
        out = op.attention(q, k, v, layout, dropout=p, seed=SEED, step=STEP)
    kept = oracle_keep(9, keys, heads, 2**35 + 11, p).transpose(0, 1) > 0
    assert torch.equal(out > 0, kept)


def test_dropout_fraction_and_expectation() -> None:
    queries, keys, heads, p = 128, 128, 8, 0.1
    layout = layout_of([queries], [keys], [3])
    q, k = torch.zeros(queries, heads, 128), torch.zeros(keys, heads, 128)
    v = torch.eye(keys)[:, None].expand(keys, heads, 128)
    dropped = torch.stack(
        [op.attention(q, k, v, layout, dropout=p, seed=1, step=s) == 0 for s in range(4)]
    ).double()
    n = dropped.numel()
    assert abs(dropped.mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    for axis in range(4):  # no step, query, head or key is favoured
        others = [a for a in range(4) if a != axis]
        sigma = (p * (1 - p) / (n / dropped.shape[axis])) ** 0.5
        assert ((dropped.mean(others) - p).abs() < 5 * sigma).all()
    pairs = (dropped[..., 1:] * dropped[..., :-1]).mean()  # neighbours are independent
    assert abs(pairs - p * p) < 5 * (p * p / n) ** 0.5
    # Unbiased: kept weights carry the dropped ones' share.
    kept = (1 - dropped).mean() / (1 - p)
    assert abs(kept - 1) < 5 * (p / (1 - p) / n) ** 0.5


@native
@pytest.mark.parametrize("dtype", FLOATS)
def test_reads_and_writes_stay_inside(dtype) -> None:
    """A view in the middle of a larger buffer gives the same, NaN around it notwithstanding."""
    layout = layout_of([19, 30], [5, 50], [0, 1])
    plain = [draw(rows, 2, 48, dtype, i) for i, rows in enumerate((49, 55, 55, 49))]
    views = [guarded(t, float("nan"))[0] for t in plain]
    results = []
    for q, k, v, g in (plain, views):
        results.append(run(lambda *t: op.attention(*t, layout, dropout=0.2), [q, k, v], g, dtype))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_threads_do_not_matter() -> None:
    lengths = [50, 256, 3, 77, 120]
    layout = layout_of(lengths, lengths, list(range(5)))
    tensors = [draw(sum(lengths), 4, 64, torch.float32, seed) for seed in range(4)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(
                run(
                    lambda *t: op.attention(*t, layout, dropout=0.1, seed=3),
                    tensors[:3], tensors[3], torch.float32,
                )
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
