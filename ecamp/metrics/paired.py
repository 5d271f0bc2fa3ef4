"""Tests of a difference between two models on the same images. No torch.

Each answers its own question; the patient bootstrap (metrics.stats) is the one that respects several
images per patient, these are the cross-checks that reviewers ask for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def delong_p(first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> float | None:
    """Compute the two-sided p of equal AUROC, both sides the mean over seeds.

    The difference of means is linear in the AUROCs, so DeLong's covariance of all of them gives its
    variance.

    Args:
        first, second: float (seeds, n) scores. truth: bool (n,).

    Returns:
        None where the AUROC is undefined; 1 where both are equal and their variance is zero.
    """
    from ecamp.metrics.ranking import delong

    if truth.all() or not truth.any():
        return None
    areas, covariance = delong(np.concatenate([first, second]), truth)
    weight = np.r_[np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))]
    return _normal_p(float(weight @ areas), float(weight @ covariance @ weight))


def mcnemar_p(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the exact two-sided p of equal error rates (McNemar 1947): a sign test of the discordant images.

    Args:
        first, second: bool (n,), whether each model is right.
    """
    from scipy.stats import binomtest

    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    if won + lost == 0:
        return 1.0
    return float(binomtest(won, won + lost, 0.5).pvalue)


def wilcoxon_p(first: np.ndarray, second: np.ndarray) -> float | None:
    """Compute the two-sided p of symmetric differences around 0 (Wilcoxon's signed ranks); NaN pairs left out.

    Args:
        first, second: float (n,), one score per image (or per patient).

    Returns:
        None without a pair; 1 where all pairs are equal.
    """
    from scipy.stats import wilcoxon

    difference = (first - second)[np.isfinite(first) & np.isfinite(second)]
    if not len(difference):
        return None
    if not difference.any():
        return 1.0
    return float(wilcoxon(difference).pvalue)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Apply Holm's step-down correction (Holm 1979) to all that are not None."""
    tested = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[index] = largest
    return corrected


def _normal_p(difference: float, variance: float) -> float:
    if variance <= 0:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return math.erfc(abs(difference) / math.sqrt(2 * variance))
