"""Work gate: the peak of `linear_weighted_ce`'s tensors, counted from allocation events.

Events of torch's allocator are the same on every run; resident memory of the process is not.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from ecamp.ops.linear_weighted_ce import linear_weighted_ce
from ecamp.ops.select_rows import select_rows
from tests.ops.checks import native


def peak_bytes(call) -> int:
    """The most bytes that the tensors of a call hold at once, beyond what it leaves behind."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(itertools.accumulate(sizes)) - sum(sizes)


@pytest.mark.slow
@native  # the reference of ce_rows_ holds float32 copies of a chunk
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("share", "part"), [(0.3, 8), (1.0, 4)])
def test_memory_of_all_logits_is_never_taken(dtype: torch.dtype, share: float, part: int) -> None:
    """2,048 positions, the published vocabulary: bytes beyond the gradients, which both leave."""
    g = torch.Generator().manual_seed(0)
    leaves = [torch.randn(*shape, generator=g) for shape in ((2048, 16), (30522, 16), (30522,))]
    h, w, b = leaves = [t.to(dtype).requires_grad_() for t in leaves]
    labels = torch.randint(30522, (2048,), generator=g)
    mask = torch.rand(8, 256, generator=g) < share
    weights = torch.rand(2048, generator=g) * mask.flatten()
    rows = select_rows(mask)

    def ours() -> None:
        loss = linear_weighted_ce(h[rows], w, b, labels[rows], weights[rows])
        (loss / weights.sum()).backward()

    def published() -> None:
        losses = F.cross_entropy(F.linear(h, w, b).float(), labels, reduction="none")
        ((losses * weights).sum() / weights.sum()).backward()

    used = []
    for call in (ours, published):
        for leaf in leaves:
            leaf.grad = None
        used.append(peak_bytes(call))
    assert used[0] * part <= used[1], used
