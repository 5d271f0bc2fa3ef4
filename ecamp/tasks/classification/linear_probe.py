"""Protocol `linear`: logistic regression by L-BFGS on cached features, penalty by validation.

All classes are fitted at once, so that an iteration is two matrix products instead of two passes
over the features per class, and each penalty starts from the solution of the next stronger one.

Why: docs/decisions.md#all-classes-and-penalties-in-one-go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, softmax
from threadpoolctl import threadpool_limits
from torch import Tensor

from ecamp.api.task import Inputs, TaskSplit
from ecamp.tasks.classification.selection import ScorePredictor, is_softmax, pooled, select_best

PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse penalties C, strongest first: minimised is C * (sum of losses) + |weights|^2 / 2."""

# Above this number of feature values, products in float32: half the time and memory, and a gradient
# noise of 1e-7 that is far below the tolerance. Below it float64, which costs nothing there.
LARGE = 1 << 22
CERTAIN = 30.0  # logit of a class with one kind of target in training


@dataclass
class LinearPredictor(ScorePredictor):
    """Logistic regression on standardised pooled features.

    Attributes:
        weight: float64 (classes, width); bias: float64 (classes,).
        mean, std: float64 (width,) of the training features.
        softmax: Exactly one class applies.
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    softmax: bool

    def scores(self, inputs: Inputs) -> np.ndarray:
        scaled = _standardised(pooled(inputs), self.mean, self.std)
        return _scores(scaled, self.weight, self.bias, self.softmax)

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"weight": self.weight, "bias": self.bias, "mean": self.mean, "std": self.std}
        return {
            name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in parts.items()
        }


def fit_linear(train: TaskSplit, val: TaskSplit) -> LinearPredictor:
    """Fit one regression per penalty; keep the one with the best validation AUROC."""
    features = pooled(train.inputs)
    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64) + 1e-6
    exclusive, labels = is_softmax(train), train.targets["targets"]
    path = list(regressions(_standardised(features, mean, std), labels, PENALTIES, exclusive))
    scaled = _standardised(pooled(val.inputs), mean, std)
    choice = select_best(
        (
            ({"inverse_penalty": penalty}, _scores(scaled, weight, bias, exclusive))
            for penalty, (weight, bias) in zip(PENALTIES, path, strict=True)
        ),
        val.targets["targets"],
    )
    weight, bias = path[choice.index]
    return LinearPredictor(choice.thresholds, choice.selected, weight, bias, mean, std, exclusive)


def _standardised(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    dtype = np.float32 if features.size > LARGE else np.float64
    result: np.ndarray = (features - mean.astype(dtype)) / std.astype(dtype)
    return result


def _scores(
    scaled: np.ndarray, weight: np.ndarray, bias: np.ndarray, exclusive: bool
) -> np.ndarray:
    logits = scaled @ weight.T + bias
    result: np.ndarray = (softmax(logits, axis=1) if exclusive else expit(logits)).astype(
        np.float32
    )
    return result


def regressions(
    features: np.ndarray, labels: np.ndarray, penalties: Sequence[float], exclusive: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit logistic regressions of all classes along a path of penalties.

    The minimiser of each is scikit-learn's `LogisticRegression(C=penalty)`, class by class or
    multinomial; the intercept is not penalised. A class without both kinds of target gets no
    weights and a certain bias.

    Args:
        features: float64 or float32 (n, width), standardised; products are computed in their type.
        labels: float (n, classes) 0, 1 or NaN = unknown.
        penalties: Inverse penalties, ascending.
        exclusive: Softmax over the classes; rows with an unknown label are left out.

    Yields:
        float64 (classes, width) weights and (classes,) biases, one pair per penalty.
    """
    known = np.isfinite(labels)
    if exclusive:
        rows = known.all(1)
        features, labels, known = features[rows], labels[rows], known[rows]
    truth = np.where(known, labels, 0.0) > 0.5
    positive, count = truth.sum(0), known.sum(0)
    # Softmax needs two classes that appear; a sigmoid both kinds of target.
    fitted = positive > 0 if exclusive else (positive > 0) & (positive < count)
    weight, bias = np.zeros((len(fitted), features.shape[1])), np.full(len(fitted), -CERTAIN)
    bias[(positive > 0) & ~fitted] = CERTAIN
    if exclusive and fitted.sum() < 2:
        bias[fitted], fitted = CERTAIN, np.zeros_like(fitted)
    if fitted.any():
        prevalence = positive[fitted] / count[fitted]
        bias[fitted] = np.log(prevalence) if exclusive else np.log(prevalence / (1 - prevalence))
    problem = _Problem(features, truth[:, fitted], known[:, fitted], exclusive)
    for penalty in penalties:
        if fitted.any():
            weight[fitted], bias[fitted] = problem.solve(weight[fitted], bias[fitted], penalty)
        yield weight.copy(), bias.copy()


class _Problem:
    """Mean loss of each class plus its penalty, and the gradient, for `scipy.optimize`."""

    def __init__(
        self, features: np.ndarray, truth: np.ndarray, known: np.ndarray, exclusive: bool
    ) -> None:
        self.features = features
        self.tolerance = 1e-5 if features.dtype == np.float32 else 1e-7
        self.truth, self.exclusive = truth.astype(np.float64), exclusive
        self.count = known.sum(0)
        self.row_weight = known / np.maximum(self.count, 1)  # 1/n of the class where known, else 0

    def solve(
        self, weight: np.ndarray, bias: np.ndarray, penalty: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Minimise from a start; weights (classes, width), biases (classes,)."""
        decay = 1 / (penalty * self.count[:, None])
        shape = (len(bias), weight.shape[1] + 1)

        def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            parameters = flat.reshape(shape)
            w, b = parameters[:, :-1], parameters[:, -1]
            logits = (self.features @ w.T.astype(self.features.dtype)).astype(np.float64) + b
            if self.exclusive:
                log_probability = log_softmax(logits, axis=1)
                loss = -(log_probability * self.truth * self.row_weight).sum()
                error = (np.exp(log_probability) - self.truth) * self.row_weight
            else:
                sign = 2 * self.truth - 1
                loss = -(log_expit(sign * logits) * self.row_weight).sum()
                error = (expit(logits) - self.truth) * self.row_weight
            weight_gradient = error.T.astype(self.features.dtype) @ self.features
            gradient = np.concatenate([weight_gradient + decay * w, error.sum(0)[:, None]], 1)
            return loss + 0.5 * float((decay * w * w).sum()), gradient.ravel()

        start = np.concatenate([weight, bias[:, None]], 1).ravel()
        options = {"maxiter": 500, "gtol": self.tolerance, "ftol": 1e-12, "maxls": 50}
        # NumPy and SciPy each bring a BLAS; on all cores their threads wait for one another: a fit of
        # 2,000 films took 18 s on two cores, and 1 s on one thread. And the number of cores never matters.
        with threadpool_limits(1, user_api="blas"):
            parameters = minimize(
                value_and_gradient, start, jac=True, method="L-BFGS-B", options=options
            ).x.reshape(shape)
        return parameters[:, :-1], parameters[:, -1]
