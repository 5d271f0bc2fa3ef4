"""A regression task: how large is the shape? Lower is better; torch is not imported to list it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from ecamp.api import Floor, Inputs, Metric, PluginConfig, TaskPlugin, TaskSplit

if TYPE_CHECKING:
    from torch import Tensor

    from ecamp.api import Encoder


class ExtentConfig(PluginConfig):
    """Strength of the penalty."""

    penalties: list[float] = Field(
        default=[0.1, 1.0, 10.0, 100.0], description="ridge penalties; validation chooses"
    )


class Extent(TaskPlugin[ExtentConfig]):
    """Ridge regression of the data set's number `extent` on frozen features."""

    summary = "how large is the shape: ridge regression on frozen features"
    licence = "Apache-2.0"
    citation = "this package"
    needs = "extent"
    needs_kind = "number"
    primary = "mean_error"
    protocols = ("linear",)
    reads = frozenset({"pooled"})

    def fit(
        self, encoder: Encoder | None, train: TaskSplit, val: TaskSplit, *, protocol: str, seed: int
    ) -> Ridge:
        x, y = _features(train.inputs), train.targets["true_extent"]
        centre, scale = x.mean(0), x.std(0) + 1e-6
        x = (x - centre) / scale
        heads = []
        for penalty in self.config.penalties:
            gram = x.T @ x + penalty * np.eye(x.shape[1])
            weight = np.linalg.solve(gram, x.T @ (y - y.mean()))
            head = Ridge(weight / scale, float(y.mean() - centre @ (weight / scale)), penalty)
            error = np.abs(head.predict(val.inputs)["extent"] - val.targets["true_extent"]).mean()
            heads.append((error, penalty, head))
        return min(heads, key=lambda candidate: candidate[:2])[2]

    def targets(self, split: Any) -> dict[str, np.ndarray]:
        return {"true_extent": split.truths["extent"]}

    def score(
        self, predictions: dict[str, np.ndarray], targets: dict[str, np.ndarray], replicates: Any
    ) -> dict[str, Metric]:
        error = np.abs(predictions["extent"] - targets["true_extent"])
        weights = replicates.astype(np.float64)
        resampled = weights @ error / weights.sum(1)
        return {"mean_error": Metric.of(float(error.mean()), resampled).minimised()}

    def floors(self) -> Mapping[str, Floor]:
        return {"mean": _mean}


class Ridge:
    """A fitted head."""

    def __init__(self, weight: np.ndarray, bias: float, penalty: float) -> None:
        self.weight, self.bias = weight, bias
        self.selected: dict[str, object] = {"penalty": penalty}

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Predict the extent of each image, float64 (n,)."""
        return {"extent": _features(inputs) @ self.weight + self.bias}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights."""
        import torch

        return {"weight": torch.from_numpy(self.weight), "bias": torch.tensor([self.bias])}


def _features(inputs: Inputs) -> np.ndarray:
    pooled: np.ndarray = inputs.batch_features(np.arange(len(inputs))).pooled.double().numpy()
    return pooled


def _mean(train: TaskSplit, val: TaskSplit, test: Inputs) -> dict[str, np.ndarray]:
    """Predict the mean of training, whatever the image."""
    return {"extent": np.full(len(test), train.targets["true_extent"].mean())}
