"""Who may look on while a pre-training runs."""

from __future__ import annotations

from pathlib import Path

from ecamp.api.pretext import Objective
from ecamp.train.pairs import PairDataset
from ecamp.train.recipe import PretrainRecipe


class Observer:
    """Bystander of pre-trainings, one after the other; this one looks away.

    What it is shown belongs to the training: it must leave weights, modes and random numbers as they are.
    """

    def start(self, source: PairDataset, recipe: PretrainRecipe, folder: Path) -> None:
        """Get ready for a pre-training that begins or resumes.

        Args:
            source: What is trained on.
            recipe: How.
            folder: Where weights and losses go; pictures may go there too.
        """

    def on_step(self, step: int, objective: Objective) -> None:
        """Look at an objective.

        Args:
            step: Number of steps done: once before the first (or resumed) step, then after each.
        """
