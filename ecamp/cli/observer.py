"""Pictures of a pre-training that runs: from its objective's tensors to files in its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ecamp.api.pretext import Objective
from ecamp.report.training import draw_curves, draw_preview
from ecamp.train.observer import Observer
from ecamp.train.pairs import PairDataset, preview_batch
from ecamp.train.recipe import PretrainRecipe

MOMENTS = 4  # pictures after the start: at a quarter, a half, three quarters and the end


class Pictures(Observer):
    """Observer that draws what a pre-training reconstructs, and its losses.

    Args:
        count: Samples per picture; 0 draws nothing.
        only_last: Draw when training has ended, not on the way.
    """

    def __init__(self, count: int, *, only_last: bool = False) -> None:
        self.count, self.only_last = count, only_last

    def start(self, source: PairDataset, recipe: PretrainRecipe, folder: Path) -> None:
        """Choose the steps that are drawn."""
        self._source, self._recipe, self._folder = source, recipe, folder
        total = recipe.total_steps(len(source))
        quarters = {round(total * k / MOMENTS) for k in range(MOMENTS + 1)}
        self._steps = {total} if self.only_last else quarters

    def on_step(self, step: int, objective: Objective) -> None:
        """Draw, where it is time."""
        if self.count and step in self._steps:
            folder = self._folder / "preview"
            _draw(objective, self._source, self._recipe, self.count, step, folder)
            draw_curves(self._folder / "metrics.jsonl", folder / "losses.png")


def _draw(
    objective: Objective,
    source: PairDataset,
    recipe: PretrainRecipe,
    count: int,
    step: int,
    folder: Path,
) -> None:
    batch = preview_batch(source, recipe, count, step)
    training = objective.training
    objective.eval()
    with torch.no_grad():
        preview = objective.preview(batch)
    objective.train(training)
    reports = source.texts("reports")
    draw_preview(
        folder / f"step-{step:06d}.png",
        {name: _pixels(value, source) for name, value in preview.panels.items()},
        None if preview.windows is None else preview.windows.numpy(),
        [[(word, cells.float().numpy()) for word, cells in found] for found in preview.attention],
        [reports[i] for i in batch.index.tolist()],
        f"after {step} steps",
    )


def _pixels(images: torch.Tensor, source: PairDataset) -> np.ndarray:
    """Undo the normalisation: (n, c, h, w) to uint8 (n, h, w), or (n, h, w, 3) for RGB."""
    mean = torch.tensor(source.info.mean).reshape(1, -1, 1, 1)
    std = torch.tensor(source.info.std).reshape(1, -1, 1, 1)
    pixels = ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    shaped: np.ndarray = pixels.permute(0, 2, 3, 1).numpy()
    return shaped if shaped.shape[-1] == 3 else shaped[..., shaped.shape[-1] // 2]
