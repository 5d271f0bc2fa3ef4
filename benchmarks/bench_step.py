"""A whole pre-training step: forward, backward, AdamW. Ours against the published algorithm.

    pytest benchmarks/bench_step.py

Published: `ecamp-published`, whose arithmetic the golden vectors compare with the published modules:
every patch embedded, reports padded to 256 tokens, vocabulary scores of all positions, in eager
torch; the same compiled; each in fp32 and under bf16 autocast. Ours: `ecamp` with the same
sizes. Both sides get the same images and reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.corpus import encoded, reports
from benchmarks.harness import measure
from ecamp.api.dataset import DatasetInfo
from ecamp.api.pretext import Objective, PretextBatch, PretextContext
from ecamp.encoders.timm import MicroViT, TimmEncoder
from ecamp.pretext.ecamp import ECAMP
from ecamp.published.pretraining import PublishedECAMP

# Sizes of the published configuration (ToniChopp/ECAMP, commit d02d16d); a shorter vocabulary favours ours.
PUBLISHED = {
    "text_width": 768, "text_depth": 6, "text_heads": 12, "text_length": 256, "vocab_size": 30000,
    "decoder_width": 512, "decoder_depth": 4, "decoder_heads": 16, "dropout": 0.1,
}  # fmt: skip
SMALL = {"dropout": 0.1, "text_length": 256}
COUNT = 512


class Side:
    """One objective with its optimiser; `step()` is measured."""

    def __init__(
        self, arithmetic: str, size: str, batch: int, precision: str, compiled: bool, tokenizer: str
    ) -> None:
        torch.manual_seed(0)
        sizes: dict[str, Any] = dict(PUBLISHED if size == "vit-b" else SMALL)
        sizes["tokenizer"] = tokenizer
        if arithmetic == "paper":
            sizes["window"] = "random"  # the published step reads its windows from a list
        plugin: Any = TimmEncoder if size == "vit-b" else MicroViT
        variant = {"variant": "vit_base_patch16_224"} if size == "vit-b" else {}
        encoder = plugin(plugin.Config(), **variant).build(3 if size == "vit-b" else 1)
        context = PretextContext(
            DatasetInfo("bench", "1", mean=(0.5,), std=(0.25,)), tuple(reports(COUNT)), 2,
            tuple(map(str, range(COUNT))),
        )  # fmt: skip
        pretext: Any = ECAMP if arithmetic == "paper" else PublishedECAMP
        self.objective: Objective = pretext(pretext.Config(**sizes)).build(encoder, context)
        self.objective.train()
        self.optimizer = torch.optim.AdamW(self.objective.parameters(), lr=1e-5)
        if compiled:  # the arithmetic; masks are drawn in Python on both sides
            model: Any = self.objective
            model.losses = torch.compile(model.losses)
        self.precision, self.count = precision, 0
        large = torch.rand(batch, encoder.channels, 2 * encoder.image_size, 2 * encoder.image_size)
        self.images = torch.nn.functional.avg_pool2d(large, 2), large
        self.batch = batch

    def step(self) -> float:
        index = (torch.arange(self.batch) + self.count * self.batch) % COUNT
        generator = torch.Generator().manual_seed(self.count)
        self.count += 1
        full_crop = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(self.batch, 4)
        batch = PretextBatch(
            *self.images, index, full_crop, torch.zeros(self.batch, dtype=torch.bool), generator,
            self.count, 0, 1000,
        )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.objective(batch)["loss"]
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


@pytest.mark.parametrize(("size", "batch"), [("small", 64), ("vit-b", 4)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_step(size: str, batch: int, precision: str, tmp_path: Any, request: Any) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    encoded(8, 256, 30000 if size == "vit-b" else 2000).tokenizer.save(str(tokenizer))

    def side(arithmetic: str, side_precision: str, compiled: bool = False) -> Callable[[], float]:
        return Side(arithmetic, size, batch, side_precision, compiled, str(tokenizer)).step

    baselines = {f"published, eager {precision}": side("published", precision)}
    if precision == "bf16":
        baselines["published, eager fp32"] = side("published", "fp32")
    baselines[f"published, compiled {precision}"] = side("published", precision, compiled=True)
    rounds = 5 if size == "vit-b" else 9
    measure(f"step {size} {precision}", side("paper", precision), baselines, rounds=rounds)
