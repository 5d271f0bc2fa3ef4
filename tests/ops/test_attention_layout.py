"""`attention`: packed equals padded, views, empty segments, refusals, and torch's own machinery."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecamp.ops import attention as op
from tests.ops.checks import FLOATS, native, spread
from tests.ops.test_attention import draw, eager, layout_of, numbers, run

LENGTHS = [20, 1, 64, 0, 33]


def pad(packed: Tensor, lengths: list[int], length: int) -> Tensor:
    out = packed.new_full((len(lengths) * length, *packed.shape[1:]), 3.0)
    for b, part in enumerate(packed.split(lengths)):
        out[b * length : b * length + len(part)] = part
    return out


def unpad(padded: Tensor, lengths: list[int], length: int) -> Tensor:
    return torch.cat([padded[b * length : b * length + n] for b, n in enumerate(lengths)])


@pytest.mark.parametrize("patches", [None, 49])
@pytest.mark.parametrize("dtype", FLOATS)
def test_packed_equals_padded_bit_for_bit(dtype, patches: int | None) -> None:
    """With dropout, output and all gradients, for text and for text over patches."""
    lengths, samples = torch.tensor(LENGTHS), torch.tensor([4, 2**34, 9, 1, 0])
    rows, window = sum(LENGTHS), 70
    q, g = (draw(rows, 3, 64, dtype, seed) for seed in (0, 1))
    keys = rows if patches is None else patches * len(LENGTHS)
    k, v = (draw(keys, 3, 64, dtype, seed) for seed in (2, 3))
    settings = {"dropout": 0.2, "seed": 5, "step": 6}
    packed_layout = op.pack_layout(lengths, samples, window, keys=patches)
    padded_layout = op.pad_layout(len(LENGTHS), window, lengths, samples, keys=patches)
    packed = run(lambda *t: op.attention(*t, packed_layout, **settings), [q, k, v], g, dtype)
    wide = [pad(t, LENGTHS, window) for t in (q, g)]
    sides = [k, v] if patches is not None else [pad(t, LENGTHS, window) for t in (k, v)]
    padded = run(
        lambda *t: op.attention(*t, padded_layout, **settings), [wide[0], *sides], wide[1], dtype
    )
    for index, (a, b) in enumerate(zip(packed, padded, strict=True)):
        if patches is not None and index >= 2:
            assert torch.equal(a, b)
            continue
        assert torch.equal(a, unpad(b, LENGTHS, window))
        assert not pad(torch.zeros_like(a), LENGTHS, window).logical_and(b).any()


def test_order_of_samples_does_not_matter() -> None:
    samples = [4, 8, 15, 16, 23]
    q, k, v, g = (draw(sum(LENGTHS), 2, 32, torch.float32, seed) for seed in range(4))
    layout = layout_of(LENGTHS, LENGTHS, samples)
    order = [3, 1, 4, 0, 2]
    moved = layout_of(
        [LENGTHS[b] for b in order], [LENGTHS[b] for b in order], [samples[b] for b in order]
    )
    rows = torch.cat([torch.arange(sum(LENGTHS)).split(LENGTHS)[b] for b in order])
    first = run(lambda *t: op.attention(*t, layout, dropout=0.3, seed=2), [q, k, v], g, q.dtype)
    second = run(
        lambda *t: op.attention(*t, moved, dropout=0.3, seed=2), [q[rows], k[rows], v[rows]],
        g[rows], q.dtype,
    )  # fmt: skip
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[rows], b)


@pytest.mark.parametrize("dtype", FLOATS)
def test_strided_views_are_read_in_place(dtype) -> None:
    """Parts of a fused projection, an expanded gradient, and a view with a wide last stride."""
    fused = draw(sum(LENGTHS), 3 * 4, 32, dtype, 0).view(-1, 3, 4, 32)
    layout = layout_of(LENGTHS, LENGTHS, list(range(5)))
    dense = [part.contiguous().requires_grad_() for part in fused.unbind(1)]
    leaf = fused.clone().requires_grad_()
    out = op.attention(*leaf.unbind(1), layout, dropout=0.1)
    want = op.attention(*dense, layout, dropout=0.1)
    assert torch.equal(out, want)
    (got,) = torch.autograd.grad(out.sum(), leaf)  # sum: the gradient has strides of zero
    assert torch.equal(got, torch.stack(torch.autograd.grad(want.sum(), dense), 1))
    wide = [spread(part.detach()) for part in dense]
    assert torch.equal(op.attention(*wide, layout, dropout=0.1), want)
    turned = [part.detach().transpose(0, 1).contiguous().transpose(0, 1) for part in dense]
    assert torch.equal(op.attention(*turned, layout, dropout=0.1), want)


def test_empty_segments() -> None:
    """No keys: zero output, no gradient. No queries: nothing. No samples, no rows: empty."""
    layout = layout_of([4, 0, 3], [0, 5, 6], [0, 1, 2])
    q, g = (draw(7, 2, 16, torch.float32, seed) for seed in (0, 1))
    k, v = (draw(11, 2, 16, torch.float32, seed) for seed in (2, 3))
    out, *grads = run(lambda *t: op.attention(*t, layout, dropout=0.1), [q, k, v], g, q.dtype)
    assert not out[:4].any()
    assert out[4:].all()
    assert not grads[0][:4].any()
    assert not grads[1][:5].any()
    assert not grads[2][:5].any()
    nothing = layout_of([], [], [])
    for rows in (0, 3):
        few = [t[:rows] for t in (q, k, v)]
        for t in run(lambda *a: op.attention(*a, nothing), few, g[:rows], q.dtype):
            assert t.shape == (rows, 2, 16)
            assert not t.any()


def test_refusals_name_op_and_argument() -> None:
    q, k, v = (torch.randn(10, 2, 32) for _ in range(3))
    good = layout_of([10], [10], [0])

    def refused(error: type[Exception], words: str, **changed: object) -> None:
        arguments = {"query": q, "key": k, "value": v, "layout": good, **changed}
        with pytest.raises(error, match=f"attention.*{words}"):
            op.attention(**arguments)

    refused(ValueError, "query", query=q[0])
    refused(ValueError, "query.*16", query=torch.randn(10, 2, 24))
    refused(ValueError, "query.*128", query=torch.randn(10, 2, 144))
    refused(ValueError, "query.*floating", query=q.long())
    refused(ValueError, "key", key=k.bfloat16())
    refused(ValueError, "value", value=v[:, :1])
    refused(ValueError, "rows", value=v[:9])
    refused(ValueError, "dropout", dropout=1.0)
    refused(ValueError, "dropout", dropout=-0.1)
    refused(ValueError, "scale", scale=float("nan"))
    refused(RuntimeError, "queries of sample 0", layout=layout_of([11], [10], [0]))
    refused(RuntimeError, "keys of sample 1", layout=layout_of([5, 5], [6, 5], [0, 1]))
    refused(RuntimeError, "queries of sample 0", layout=layout_of([-1, 10], [4, 6], [0, 1]))

    def same(length: int, samples: int, most: int, batch: int = 1) -> op.AttentionLayout:
        """Every segment at row 0."""
        start, count = torch.zeros(batch).long(), torch.full((batch,), length)
        return op.AttentionLayout(start, count, start, count, torch.arange(samples), most, most)

    refused(RuntimeError, "two samples share queries from row 0", layout=same(5, 2, 5, batch=2))
    refused(RuntimeError, "maximum 9", layout=same(10, 1, 9))
    narrow = same(9, 9, 9)
    refused(ValueError, "sample_ids", layout=narrow)
    elsewhere = torch.empty(10, 2, 32, device="meta")
    refused(ValueError, "device", key=elsewhere)


def test_gradcheck_in_double() -> None:
    layout = layout_of([3, 2], [4, 5], [0, 1])
    q, k, v = (draw(n, 2, 16, torch.float64, i) for i, n in enumerate((5, 9, 9)))
    leaves = [t.requires_grad_() for t in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda *t: op.attention(*t, layout, dropout=0.3, seed=8), leaves, fast_mode=True
    )


def test_second_derivatives_are_refused() -> None:
    q = draw(5, 2, 16, torch.float32, 0).requires_grad_()
    out = op.attention(q, q, q, layout_of([5], [5], [0]))
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_autocast_casts_as_torch_does() -> None:
    q, k, v = (draw(9, 2, 16, torch.float32, seed) for seed in range(3))
    layout = layout_of([9], [9], [0])
    with torch.autocast("cpu", torch.bfloat16):
        out = op.attention(q, k, v, layout)
        assert eager(*(t.bfloat16() for t in (q, k, v)), layout, 0.0).dtype == out.dtype
    assert torch.equal(out, op.attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), layout))


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=3),
    st.sampled_from(FLOATS), st.sampled_from([0.0, 0.3]), st.sampled_from([16, 48]),
)  # fmt: skip
def test_opcheck(pairs: list[tuple[int, int]], dtype, p: float, width: int) -> None:
    layout = layout_of([a for a, _ in pairs], [b for _, b in pairs], list(range(len(pairs))))
    if not pairs:
        layout = layout_of([0], [0], [0])
    q, g = (draw(int(layout.query_length.sum()), 2, width, dtype, seed) for seed in (0, 1))
    k, v = (draw(int(layout.key_length.sum()), 2, width, dtype, seed) for seed in (2, 3))
    rest = numbers(layout, p, 0.25)
    torch.library.opcheck(torch.ops.ecamp.attention_forward, (q, k, v, *rest))
    out, lse = torch.ops.ecamp.attention_forward(q, k, v, *rest)
    torch.library.opcheck(torch.ops.ecamp.attention_backward, (g, q, k, v, out, lse, *rest))


@native
def test_compiles_whole_and_once() -> None:
    """Equal to eager; other numbers of rows and other steps cause one general graph, no more."""
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def loss(q: Tensor, k: Tensor, v: Tensor, layout: op.AttentionLayout, step: int) -> Tensor:
        return op.attention(q, k, v, layout, dropout=0.1, step=step).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=frames)
    for step, lengths in enumerate(([9, 4], [20, 1], [3, 3], [8, 30])):
        layout = op.pack_layout(torch.tensor(lengths), torch.arange(2), 32)
        leaves = [draw(sum(lengths), 2, 16, torch.float32, s).requires_grad_() for s in range(3)]
        want = torch.autograd.grad(loss(*leaves, layout, step), leaves)
        got = torch.autograd.grad(compiled(*leaves, layout, step), leaves)
        for a, b in zip(want, got, strict=True):
            assert torch.equal(a, b)
    assert frames.frame_count <= 2
