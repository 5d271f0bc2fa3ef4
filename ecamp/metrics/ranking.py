"""AUROC and average precision on many resamples at once: sorted once, weighted by multiplicities.

Equal to scikit-learn's `roc_auc_score` and `average_precision_score` with `sample_weight` on every
resample (tested), at a fraction of the cost. Counting is in integers, so it is exact.

Why: docs/decisions.md#replicates-count-in-integers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import rankdata

CHUNK = 32  # resamples at once: their counts stay in the processor's cache


def auroc_replicates(scores: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute the weighted AUROC on each resample: the chance that a positive outranks a negative.

    Args:
        scores: float (n,). Ties count one half.
        truth: bool (n,).
        counts: (resamples, n) multiplicities, whole numbers.

    Returns:
        float64 (resamples,), NaN where a resample has one kind of target only.
    """
    out = np.full(len(counts), np.nan)
    for rows, positive, negative in _sorted(scores, truth, counts):
        below = np.cumsum(negative, axis=1)
        pairs = positive.sum(1) * below[:, -1]
        below *= 2
        below -= negative  # twice the negatives below, and once those of equal score
        wins = np.einsum("rn,rn->r", positive, below)
        out[rows] = np.divide(wins, 2 * pairs, out=np.full(len(wins), np.nan), where=pairs > 0)
    return out


def auprc_replicates(scores: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute the weighted average precision on each resample: sum of precision times rise of recall.

    Args, returns: As `auroc_replicates`.
    """
    out = np.full(len(counts), np.nan)
    for rows, positive, negative in _sorted(-scores, truth, counts):
        hits = np.cumsum(positive, axis=1)
        seen = hits + np.cumsum(negative, axis=1)
        total = hits[:, -1]
        precision = hits / np.maximum(seen, 1)
        area = np.einsum("rn,rn->r", precision, positive.astype(np.float64))
        mixed = (total > 0) & (seen[:, -1] > total)
        out[rows] = np.divide(area, total, out=np.full(len(area), np.nan), where=mixed)
    return out


def _sorted(
    scores: np.ndarray, truth: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Count positives and negatives by ascending score, equal scores added up.

    Yields:
        A slice of the resamples; int64 (some resamples, distinct scores) of positives and of negatives.
    """
    order = np.argsort(scores, kind="stable")
    ordered, positive_mask = scores[order], truth[order].astype(np.int64)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    for first in range(0, len(counts), CHUNK):
        rows = slice(first, first + CHUNK)
        weights = counts[rows][:, order].astype(np.int64)
        positive = weights * positive_mask
        negative = weights - positive
        if len(starts) < len(order):
            positive = np.add.reduceat(positive, starts, axis=1)
            negative = np.add.reduceat(negative, starts, axis=1)
        yield rows, positive, negative


def delong(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the AUROC of several classifiers on one test set, with their covariance.

    DeLong, DeLong and Clarke-Pearson, Biometrics 1988; by mid-ranks in O(n log n) as Sun and Xu,
    IEEE Signal Processing Letters 2014. Images count as independent: with several images per
    patient the variance is too small, that of the patient bootstrap is not.

    Args:
        scores: float (classifiers, n).
        truth: bool (n,), both kinds.

    Returns:
        float64 (classifiers,) and (classifiers, classifiers).

    Raises:
        ValueError: One kind of target only.
    """
    positives, negatives = scores[:, truth], scores[:, ~truth]
    m, n = positives.shape[1], negatives.shape[1]
    if not m or not n:
        raise ValueError("delong: needs positives and negatives")
    # Mid-rank among all minus mid-rank within the class: the other class below, ties half.
    mid_ranks = rankdata(np.concatenate([positives, negatives], axis=1), axis=1)
    # Fraction of negatives that each positive outranks, and of positives that outrank each negative.
    of_positive = (mid_ranks[:, :m] - rankdata(positives, axis=1)) / n
    of_negative = 1 - (mid_ranks[:, m:] - rankdata(negatives, axis=1)) / m
    covariance = _covariance(of_positive) / m + _covariance(of_negative) / n
    return of_positive.mean(1), covariance


def _covariance(rows: np.ndarray) -> np.ndarray:
    """Compute the unbiased covariance of rows; zero for a single column."""
    if rows.shape[1] < 2:
        return np.zeros((len(rows), len(rows)))
    return np.atleast_2d(np.cov(rows))
