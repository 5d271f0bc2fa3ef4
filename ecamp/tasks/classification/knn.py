"""Protocol `knn`: the labels of the most similar training images, weighted by similarity.

After Wu et al. (CVPR 2018) as used to judge self-supervised encoders (DINO, Caron et al., ICCV
2021). Nothing is trained, so it tells what is close in the encoder's own space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.api.task import Inputs, TaskSplit
from ecamp.tasks.classification.selection import ScorePredictor, choose, pooled

COUNTS = (5, 10, 20, 50, 100)
TEMPERATURES = (0.03, 0.07, 0.2, 1.0)
BLOCK = 512  # query images whose similarities are held at once


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
        found = nearest(_directions(inputs, self.mean, self.std), self.bank, self.count)
        return vote(*found, self.labels, self.count, self.temperature)

    def state_dict(self) -> dict[str, Tensor]:
        """Statistics and choices; the bank is the training features, which the cache holds."""
        chosen = {
            "count": torch.tensor(self.count), "temperature": torch.tensor(self.temperature)
        }  # fmt: skip
        return {"mean": self.mean, "std": self.std, **chosen}


def fit_knn(train: TaskSplit, val: TaskSplit) -> NeighbourPredictor:
    """Choose how many neighbours and how sharply they are weighted, on validation."""
    features = torch.from_numpy(pooled(train.inputs))
    labels = torch.from_numpy(train.targets["targets"])
    # As before the linear probe: a few channels of hundredfold size would be all that counts.
    mean, std = features.mean(0), features.std(0, unbiased=False) + 1e-6
    bank = _directions(train.inputs, mean, std)
    counts = sorted({min(count, len(bank)) for count in COUNTS})
    grid = [(count, temperature) for count in counts for temperature in TEMPERATURES]
    found = nearest(_directions(val.inputs, mean, std), bank, counts[-1])
    choice = choose(
        (
            ({"neighbours": count, "temperature": warmth}, vote(*found, labels, count, warmth))
            for count, warmth in grid
        ),
        val.targets["targets"],
    )
    return NeighbourPredictor(
        choice.thresholds, choice.selected, bank, labels, mean, std, *grid[choice.at]
    )


def _directions(inputs: Inputs, mean: Tensor, std: Tensor) -> Tensor:
    return F.normalize((torch.from_numpy(pooled(inputs)) - mean) / std, dim=1)


def nearest(queries: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cosine similarity and row of the `count` most similar, best first; both (queries, count)."""
    found = [(block @ bank.T).topk(count, sorted=True) for block in queries.split(BLOCK)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def vote(
    similarity: Tensor, rows: Tensor, labels: Tensor, count: int, temperature: float
) -> np.ndarray:
    """Share of each class among the neighbours, weighted by exp(similarity / temperature).

    Args:
        similarity, rows: (queries, at least count) as from `nearest`.
        labels: (n, classes); where no neighbour's label is known the share in training stands.

    Returns:
        float32 (queries, classes).
    """
    similarity = similarity[:, :count]
    weight = ((similarity - similarity[:, :1]) / temperature).exp().double().unsqueeze(2)
    votes = labels[rows[:, :count]].double()
    known = torch.isfinite(votes)
    total = (weight * known).sum(1)
    shares = (weight * votes.nan_to_num(0.0)).sum(1) / total
    everywhere = labels.double().nanmean(0).nan_to_num(0.0)
    return torch.where(total > 0, shares, everywhere).float().numpy()
