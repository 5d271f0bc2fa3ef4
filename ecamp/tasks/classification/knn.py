"""Protocol `knn`: the labels of the most similar training images, weighted by similarity.

After Wu et al. (CVPR 2018) as used to judge self-supervised encoders (DINO, Caron et al., ICCV
2021). Nothing is trained, so it measures similarity in the encoder's own space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.api.task import Inputs, TaskSplit
from ecamp.tasks.classification.selection import ScorePredictor, pooled, select_best

COUNTS = (5, 10, 20, 50, 100)
TEMPERATURES = (0.03, 0.07, 0.2, 1.0)
BLOCK = 512  # query images whose similarities are computed at once


@dataclass
class NeighbourPredictor(ScorePredictor):
    """Weighted vote of the nearest training images.

    Attributes:
        bank: float32 (n, width) training features, standardised, of length 1.
        labels: float32 (n, classes), NaN = unknown: no vote in that class.
        mean, std: float32 (width,) of the training features.
    """

    bank: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    count: int
    temperature: float

    def scores(self, inputs: Inputs) -> np.ndarray:
        neighbours = nearest(_directions(inputs, self.mean, self.std), self.bank, self.count)
        return vote(*neighbours, self.labels, self.count, self.temperature)

    def state_dict(self) -> dict[str, Tensor]:
        """Return statistics and settings; the bank (the training features) is in the cache."""
        settings = {
            "count": torch.tensor(self.count), "temperature": torch.tensor(self.temperature)
        }  # fmt: skip
        return {"mean": self.mean, "std": self.std, **settings}


def fit_knn(train: TaskSplit, val: TaskSplit) -> NeighbourPredictor:
    """Select the number of neighbours and the temperature of their weights on validation."""
    features = torch.from_numpy(pooled(train.inputs))
    labels = torch.from_numpy(train.targets["targets"])
    # As before the linear probe: a few channels of hundredfold size would dominate.
    mean, std = features.mean(0), features.std(0, unbiased=False) + 1e-6
    bank = _directions(train.inputs, mean, std)
    counts = sorted({min(count, len(bank)) for count in COUNTS})
    grid = [(count, temperature) for count in counts for temperature in TEMPERATURES]
    neighbours = nearest(_directions(val.inputs, mean, std), bank, counts[-1])
    choice = select_best(
        (
            (
                {"neighbours": count, "temperature": temperature},
                vote(*neighbours, labels, count, temperature),
            )
            for count, temperature in grid
        ),
        val.targets["targets"],
    )
    return NeighbourPredictor(
        choice.thresholds, choice.selected, bank, labels, mean, std, *grid[choice.index]
    )


def _directions(inputs: Inputs, mean: Tensor, std: Tensor) -> Tensor:
    return F.normalize((torch.from_numpy(pooled(inputs)) - mean) / std, dim=1)


def nearest(queries: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the `count` most similar: cosine similarity and row, best first; both (queries, count)."""
    blocks = [(block @ bank.T).topk(count, sorted=True) for block in queries.split(BLOCK)]
    return torch.cat([top.values for top in blocks]), torch.cat([top.indices for top in blocks])


def vote(
    similarity: Tensor, rows: Tensor, labels: Tensor, count: int, temperature: float
) -> np.ndarray:
    """Compute the fraction of each class among the neighbours, weighted by exp(similarity / temperature).

    Args:
        similarity, rows: (queries, at least count) as from `nearest`.
        labels: (n, classes); the prevalence in training replaces it where no neighbour's label is known.

    Returns:
        float32 (queries, classes).
    """
    similarity = similarity[:, :count]
    weight = ((similarity - similarity[:, :1]) / temperature).exp().double().unsqueeze(2)
    votes = labels[rows[:, :count]].double()
    known = torch.isfinite(votes)
    total = (weight * known).sum(1)
    fractions = (weight * votes.nan_to_num(0.0)).sum(1) / total
    prevalence = labels.double().nanmean(0).nan_to_num(0.0)
    return torch.where(total > 0, fractions, prevalence).float().numpy()
