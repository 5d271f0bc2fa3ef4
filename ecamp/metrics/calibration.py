"""Whether probabilities mean what they say: Brier score and expected calibration error."""

from __future__ import annotations

import numpy as np

from ecamp.metrics.stats import Metric, weighted_mean_replicates

BINS = 15  # of equal width, as Guo et al., ICML 2017


def brier(scores: np.ndarray, targets: np.ndarray, counts: np.ndarray, kind: str) -> Metric:
    """Mean squared distance of probabilities to what happened; lower is better.

    Args:
        scores: (n, K) probabilities. targets: (n, K) 0, 1 or NaN. counts: (resamples, n).
        kind: `multiclass` sums over classes (Brier's own definition), `multilabel` takes their mean.
    """
    if not _are_probabilities(scores):
        return Metric.undefined("scores are not probabilities")
    error = (scores.astype(np.float64) - targets) ** 2
    known = np.isfinite(error)
    usable = known.all(1) if kind == "multiclass" else known.any(1)
    total = np.where(known, error, 0.0).sum(1)
    share = total if kind == "multiclass" else total / np.maximum(known.sum(1), 1)
    share = np.where(usable, share, np.nan)
    if not usable.any():
        return Metric.undefined("no known label in the test split")
    return Metric.of(float(np.nanmean(share)), weighted_mean_replicates(share, counts))


def calibration_error(
    scores: np.ndarray, targets: np.ndarray, counts: np.ndarray, kind: str
) -> Metric:
    """Compute the expected calibration error over bins of predicted probability; lower is better.

    `multiclass`: of the class that is predicted (top label). `multilabel`: of every class on its
    own, then the mean over classes with known labels.
    """
    if not _are_probabilities(scores):
        return Metric.undefined("scores are not probabilities")
    if kind == "multiclass":
        known = np.isfinite(targets).all(1)
        top = scores[known].argmax(1)
        right = targets[known, :][np.arange(len(top)), top]
        pairs = [(scores[known].max(1, initial=0.0), right, counts[:, known])]
    else:
        pairs = []
        for k in range(scores.shape[1]):
            known = np.isfinite(targets[:, k])
            pairs.append((scores[known, k], targets[known, k], counts[:, known]))
    pairs = [pair for pair in pairs if len(pair[0])]
    if not pairs:
        return Metric.undefined("no known label in the test split")
    points = [_error(p, t, np.ones((1, len(p))))[0] for p, t, _ in pairs]
    spread = [_error(p, t, c) for p, t, c in pairs]
    return Metric.of(float(np.mean(points)), np.mean(spread, axis=0))


def _error(predicted: np.ndarray, right: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum over bins of |weight of events - weight of predicted probability| / all weight."""
    place = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    gap = np.zeros((len(predicted), BINS))
    gap[np.arange(len(predicted)), place] = right - predicted.astype(np.float64)
    weights = counts.astype(np.float64)
    total = weights.sum(1)
    distance = np.abs(weights @ gap).sum(1)
    result: np.ndarray = np.divide(
        distance, total, out=np.full(len(total), np.nan), where=total > 0
    )
    return result


def _are_probabilities(scores: np.ndarray) -> bool:
    return bool(np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all())
