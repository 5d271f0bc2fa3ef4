"""Patient-cluster bootstrap, and the value type of every metric.

Resamples are drawn by patient from a seed that depends only on the test patients, so that every
cell on one test set sees the same resamples and differences between cells are paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Metric:
    """One number with its interval.

    Attributes:
        value: The metric on the whole test set; None when undefined.
        reason: Why it is undefined; empty otherwise.
        replicates: float64 (resamples,) the metric on each resample; NaN where undefined there.
        higher_is_better: False for an error, a distance or a rank. Verdicts, floors, ranks and charts
            read it.
    """

    value: float | None
    reason: str = ""
    replicates: np.ndarray | None = None
    higher_is_better: bool = True

    @classmethod
    def undefined(cls, reason: str) -> Metric:
        """Make a metric that these data do not define."""
        return cls(None, reason)

    @classmethod
    def of(cls, value: float, replicates: np.ndarray | None = None, reason: str = "") -> Metric:
        """Make a metric, or an undefined one when the value is not finite."""
        if replicates is not None and np.ndim(replicates) != 1:
            raise ValueError(f"replicates of a metric have one axis, not shape {replicates.shape}")
        if not np.isfinite(value):
            return cls(None, reason or "undefined on these data")
        return cls(float(value), "", replicates)

    def minimised(self) -> Metric:
        """Return the same metric, marked as better when lower."""
        return replace(self, higher_is_better=False)

    def interval(self, level: float = 0.95) -> tuple[float | None, float | None]:
        """Return the percentile interval, as `percentile_interval`."""
        return percentile_interval(self.replicates, level)


def is_better(value: float, other: float, higher_is_better: bool) -> bool:
    """Whether a value beats another; equal values beat nothing."""
    return value > other if higher_is_better else value < other


def percentile_interval(
    replicates: np.ndarray | None, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Compute the percentile interval of bootstrap replicates.

    Args:
        replicates: float64 (resamples,), NaN where the metric is undefined; None without resamples.

    Returns:
        (low, high); (None, None) without enough defined replicates.
    """
    if replicates is None:
        return None, None
    defined = replicates[np.isfinite(replicates)]
    # A metric that is undefined on many resamples has no honest interval.
    if len(defined) < max(20, 0.5 * len(replicates)):
        return None, None
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def resample_counts(patients: Sequence[str], resamples: int) -> np.ndarray:
    """Draw patient-cluster bootstrap resamples as multiplicities.

    Args:
        patients: Patient of each test image.
        resamples: Number of resamples.

    Returns:
        float32 (resamples, images): multiplicity of each image in each resample. All images of a
        patient share their count. The draw depends on the set of patient ids alone.
    """
    unique = sorted(set(patients))
    digest = hashlib.sha256("\n".join(unique).encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "big")))
    counts = np.zeros((resamples, len(unique)), np.float32)
    for row in counts:
        drawn = generator.integers(0, len(unique), len(unique))
        row += np.bincount(drawn, minlength=len(unique)).astype(np.float32)
    position = {patient: i for i, patient in enumerate(unique)}
    return counts[:, [position[patient] for patient in patients]]


def weighted_mean_replicates(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average `values` (n,) in each resample; rows with value NaN do not take part.

    Returns:
        float64 (resamples,), NaN where no row is left.
    """
    defined = np.isfinite(values)
    weights = counts[:, defined].astype(np.float64)
    total = weights.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, weights @ values[defined] / total, np.nan)
