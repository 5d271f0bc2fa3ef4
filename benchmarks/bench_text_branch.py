"""Fusion layer and text stack, forward and backward: packed rows against padded rectangles.

    pytest benchmarks/bench_text_branch.py

Padded: the same modules over 256 positions per report with torch's attention (SDPA), which is
idiomatic torch; and the same compiled. Lengths are those of the reports of `corpus.reports`.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.corpus import encoded
from benchmarks.harness import measure
from ecamp.ops._ext import load_extension
from ecamp.pretext.ecamp.config import ECAMPConfig
from ecamp.pretext.ecamp.packed_text import TextRows
from ecamp.pretext.ecamp.text_tower import TextTower, text_config

# The published tower (ToniChopp/ECAMP, `bert_config.py`) and the small preset.
SIZES = {
    "published": ({"text_width": 768, "text_depth": 6, "text_heads": 12, "dropout": 0.1}, 8),
    "small": ({"dropout": 0.1}, 32),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", list(SIZES))
def test_text_branch(size: str, dtype: torch.dtype) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.manual_seed(0)
    settings, batch = SIZES[size]
    config = ECAMPConfig(text_length=256, **settings)
    text = encoded(batch)
    patches = torch.randn(batch, 49, 768)
    tower = TextTower(text_config(config, text.tokenizer.get_vocab_size()), 768)
    padding = torch.arange(256) >= text.lengths[:, None]
    ids = text.ids[~padding]
    ones = torch.ones(len(ids))
    rows = TextRows.of(ids, ids, ones.bool(), ones, text.lengths, text.samples)
    compiled = torch.compile(tower)

    def step(hidden: torch.Tensor, kept: torch.Tensor | None = None) -> None:
        hidden = hidden if kept is None else hidden.flatten(0, 1)[kept]
        hidden.float().square().mean().backward()
        tower.zero_grad(set_to_none=True)

    real = (~padding).flatten().nonzero().flatten()

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def packed() -> None:
        with autocast():
            hidden = tower.forward_rows(rows, patches, 0, 0)
        step(hidden)

    def padded(model: object) -> None:
        with autocast():
            hidden = model(text.ids, padding, patches)  # type: ignore[operator]
        step(hidden, real)

    measure(
        f"text branch {size}, {batch} reports {dtype}",
        packed,
        {"padded, sdpa": lambda: padded(tower), "padded, sdpa, compiled": lambda: padded(compiled)},
        rounds=7,
        mean_length=text.lengths.float().mean().item(),
    )
