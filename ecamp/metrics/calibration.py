"""Calibration of probabilities: Brier score and expected calibration error."""

from __future__ import annotations

import numpy as np

from ecamp.metrics.stats import Metric, weighted_mean_replicates

BINS = 15  # of equal width, as Guo et al., ICML 2017


def brier(scores: np.ndarray, targets: np.ndarray, counts: np.ndarray, kind: str) -> Metric:
    """Compute the mean squared distance of probabilities to outcomes; lower is better.

    Args:
        scores: (n, K) probabilities. targets: (n, K) 0, 1 or NaN. counts: (resamples, n).
        kind: `multiclass` sums over classes (Brier's own definition), `multilabel` takes their mean.
    """
    if not _are_probabilities(scores):
        return Metric.undefined("scores are not probabilities").minimised()
    error = (scores.astype(np.float64) - targets) ** 2
    known = np.isfinite(error)
    usable = known.all(1) if kind == "multiclass" else known.any(1)
    total = np.where(known, error, 0.0).sum(1)
    per_image = total if kind == "multiclass" else total / np.maximum(known.sum(1), 1)
    per_image = np.where(usable, per_image, np.nan)
    if not usable.any():
        return Metric.undefined("no known label in the test split").minimised()
    mean = Metric.of(float(np.nanmean(per_image)), weighted_mean_replicates(per_image, counts))
    return mean.minimised()


def calibration_error(
    scores: np.ndarray, targets: np.ndarray, counts: np.ndarray, kind: str
) -> Metric:
    """Compute the expected calibration error over bins of predicted probability; lower is better.

    `multiclass`: of the predicted class (top label). `multilabel`: of every class separately, then
    the mean over classes with known labels.
    """
    if not _are_probabilities(scores):
        return Metric.undefined("scores are not probabilities").minimised()
    if kind == "multiclass":
        known = np.isfinite(targets).all(1)
        predicted = scores[known].argmax(1)
        correct = targets[known, :][np.arange(len(predicted)), predicted]
        pairs = [(scores[known].max(1, initial=0.0), correct, counts[:, known])]
    else:
        pairs = []
        for k in range(scores.shape[1]):
            known = np.isfinite(targets[:, k])
            pairs.append((scores[known, k], targets[known, k], counts[:, known]))
    pairs = [pair for pair in pairs if len(pair[0])]
    if not pairs:
        return Metric.undefined("no known label in the test split").minimised()
    points = [_error(p, t, np.ones((1, len(p))))[0] for p, t, _ in pairs]
    replicates = [_error(p, t, c) for p, t, c in pairs]
    return Metric.of(float(np.mean(points)), np.mean(replicates, axis=0)).minimised()


def _error(predicted: np.ndarray, outcome: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum over bins of |weight of events - weight of predicted probability| / all weight."""
    bin_index = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    gap = np.zeros((len(predicted), BINS))
    gap[np.arange(len(predicted)), bin_index] = outcome - predicted.astype(np.float64)
    weights = counts.astype(np.float64)
    total = weights.sum(1)
    distance = np.abs(weights @ gap).sum(1)
    result: np.ndarray = np.divide(
        distance, total, out=np.full(len(total), np.nan), where=total > 0
    )
    return result


def _are_probabilities(scores: np.ndarray) -> bool:
    return bool(np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all())
