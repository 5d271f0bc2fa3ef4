"""Interface for watching a pre-training."""

from __future__ import annotations

from pathlib import Path

from ecamp.api.pretext import Objective
from ecamp.train.pairs import PairDataset
from ecamp.train.recipe import PretrainRecipe


class Observer:
    """Observer of pre-trainings, one after another; the base class does nothing.

    An observer must not change weights, modes or random numbers: the training continues with them.
    """

    def start(self, source: PairDataset, recipe: PretrainRecipe, folder: Path) -> None:
        """Prepare for a pre-training that begins or resumes.

        Args:
            source: Training pairs.
            recipe: Options of the optimisation.
            folder: Folder of weights and losses; an observer may write there too.
        """

    def on_step(self, step: int, objective: Objective) -> None:
        """Observe the objective, once before the first (or resumed) step and after each step.

        Args:
            step: Number of steps done.
        """
