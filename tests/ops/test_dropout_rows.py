"""`dropout_rows`: decisions by counter, equal everywhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecamp.ops import dropout_rows as module
from ecamp.ops.dropout_rows import dropout_rows, keep_mask
from tests.ops.checks import FLOATS, guarded, lane, native, spread


def case(
    rows: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(rows * 1000 + width)
    x = torch.randn(rows, width, generator=source).to(dtype)
    samples = torch.randint(0, 2**40, (rows,), generator=source)
    return x, samples, torch.randint(0, 300, (rows,), generator=source)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("rows", "width"), [(0, 8), (1, 1), (3, 5), (7, 255), (4, 256), (2, 771)])
def test_equals_the_reference_forward_and_backward(
    rows: int, width: int, dtype: torch.dtype
) -> None:
    x, samples, positions = case(rows, width, dtype)
    x, buffer = guarded(x)
    edge = (buffer[:17].clone(), buffer[-18:].clone())
    x.requires_grad_()
    out = dropout_rows(x, 0.3, 5, 9, samples, positions)
    limit = round(0.3 * 2**32)
    keep = keep_mask(samples, positions, width, limit, 5, 9)
    scale = torch.tensor(1 / 0.7, dtype=torch.float32)
    assert torch.equal(out, torch.where(keep, x.detach().float() * scale, 0.0).to(dtype))
    out.backward(torch.ones_like(out))
    assert torch.equal(x.grad, torch.where(keep, scale, 0.0).to(dtype))
    assert torch.equal(buffer[:17], edge[0])
    assert torch.equal(buffer[-18:], edge[1])


@native
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_every_lane_and_thread_count_gives_the_same_bits(lane_index: int) -> None:
    x, samples, positions = case(200, 130)
    want = module._reference(x, samples, positions, 2**31, 2.0, 3, 4)
    threads = torch.get_num_threads()
    with lane(lane_index):
        for n in (1, 2):
            torch.set_num_threads(n)
            got = torch.ops.ecamp.dropout_rows(x, samples, positions, 2**31, 2.0, 3, 4)
            assert torch.equal(got, want)
    torch.set_num_threads(threads)


def test_a_row_is_decided_by_its_sample_and_position() -> None:
    x, samples, positions = case(50, 64)
    out = dropout_rows(x, 0.5, 1, 2, samples, positions)
    order = torch.randperm(50)
    again = dropout_rows(x[order], 0.5, 1, 2, samples[order], positions[order])
    assert torch.equal(again, out[order])
    assert torch.equal(dropout_rows(spread(x), 0.5, 1, 2, samples, positions), out)
    for seed, step in ((2, 2), (1, 3)):
        assert not torch.equal(dropout_rows(x, 0.5, seed, step, samples, positions), out)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 6), st.integers(0, 9), st.floats(0, 0.99), st.integers(0, 2**63 - 1))
def test_opcheck(rows: int, width: int, p: float, seed: int) -> None:
    x, samples, positions = case(rows, width)
    torch.library.opcheck(
        torch.ops.ecamp.dropout_rows.default,
        (x, samples, positions, round(p * 2**32), 1 / (1 - p), seed, 7),
    )


def test_the_dropped_fraction_is_p() -> None:
    ones = torch.ones(2000, 256)
    samples, positions = torch.arange(2000) // 100, torch.arange(2000) % 100
    share = (dropout_rows(ones, 0.1, 0, 0, samples, positions) == 0).float().mean().item()
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / ones.numel()) ** 0.5


def test_compiles_into_one_graph() -> None:
    x, samples, positions = case(8, 16)

    def run(x: Tensor) -> Tensor:
        return dropout_rows(x, 0.5, 1, 2, samples, positions).sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), run(x))


def test_wrong_arguments_are_named() -> None:
    x, samples, positions = case(4, 8)
    with pytest.raises(ValueError, match="p must lie"):
        dropout_rows(x, 1.0, 0, 0, samples, positions)
    with pytest.raises(ValueError, match="x must be floating"):
        dropout_rows(x.long(), 0.5, 0, 0, samples, positions)
    with pytest.raises(ValueError, match="positions must be int64"):
        dropout_rows(x, 0.5, 0, 0, samples, positions[:2])
    with pytest.raises(ValueError, match="samples lies on meta"):
        dropout_rows(x, 0.5, 0, 0, samples.to("meta"), positions)
    assert dropout_rows(x, 0.0, 0, 0, samples, positions) is x
