"""Ranking metrics and DeLong: against scikit-learn on every resample and plain double loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from ecamp.metrics.ranking import CHUNK, auprc_replicates, auroc_replicates, delong
from ecamp.metrics.stats import Metric, resample_counts


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 60), st.integers(1, 6) | st.just(10**6))
def test_replicates_equal_scikit_learn_on_every_resample(seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, n) / levels  # few levels: many ties
    truth = rng.random(n) < 0.4
    counts = resample_counts([f"p{i // 2}" for i in range(n)], CHUNK + 3)
    for ours, theirs in (
        (auroc_replicates, roc_auc_score), (auprc_replicates, average_precision_score),
    ):  # fmt: skip
        for value, row in zip(ours(scores, truth, counts), counts, strict=True):
            index = np.repeat(np.arange(n), row.astype(int))
            if truth[index].any() and not truth[index].all():
                want = theirs(truth[index], scores[index])
                assert value == pytest.approx(want, abs=1e-12)
            else:
                assert np.isnan(value)


def plain_delong(scores: np.ndarray, truth: np.ndarray) -> tuple[list[float], np.ndarray]:
    """The definition: every pair of a positive and a negative is looked at."""
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)

    def wins(row: np.ndarray) -> np.ndarray:
        return np.array([
            [1.0 if row[i] > row[j] else 0.5 if row[i] == row[j] else 0.0 for j in negatives]
            for i in positives
        ])  # fmt: skip

    tables = [wins(row) for row in scores]
    v10 = np.array([t.mean(1) for t in tables])
    v01 = np.array([t.mean(0) for t in tables])

    def cov(v: np.ndarray) -> np.ndarray:
        if v.shape[1] < 2:
            return np.zeros((len(v), len(v)))
        centred = v - v.mean(1, keepdims=True)
        return centred @ centred.T / (v.shape[1] - 1)

    return [t.mean() for t in tables], cov(v10) / len(positives) + cov(v01) / len(negatives)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 8), st.integers(1, 3))
def test_delong_equals_the_plain_definition(seed: int, n: int, levels: int, models: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (models, n)) / levels
    truth = rng.random(n) < 0.5
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="positives and negatives"):
            delong(scores, truth)
        return
    areas, covariance = delong(scores, truth)
    want_areas, want = plain_delong(scores, truth)
    np.testing.assert_allclose(areas, want_areas, atol=1e-12)
    np.testing.assert_allclose(covariance, want, atol=1e-12)


def test_delongs_deviation_is_that_of_repeated_experiments() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(200) < 60
    areas, deviations = [], []
    for _ in range(600):
        score = rng.normal(truth.astype(float), 1.0)[None]
        area, covariance = delong(score, truth)
        areas.append(area[0])
        deviations.append(covariance[0, 0] ** 0.5)
    assert np.mean(deviations) == pytest.approx(np.std(areas), rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [1, 3])
def test_the_interval_has_its_nominal_coverage(cluster: int) -> None:
    """1,000 test sets with a known AUROC; images of a patient resemble each other."""
    rng = np.random.default_rng(1)
    images, shift, shared = 300, 1.2, 0.5
    patients = [f"p{i // cluster}" for i in range(images)]
    spread = (1 + shared**2) ** 0.5 if cluster > 1 else 1.0
    true = norm.cdf(shift / spread / 2**0.5)
    counts = resample_counts(patients, 400)
    inside = 0
    for _ in range(1000):
        of_patient = rng.normal(0, 1, images // cluster)
        truth = np.repeat(rng.random(images // cluster) < 0.4, cluster)
        scores = rng.normal(truth * shift, 1.0)
        if cluster > 1:
            scores += shared * np.repeat(of_patient, cluster)
        low, high = Metric.of(0.5, auroc_replicates(scores, truth, counts)).interval()
        assert low is not None
        assert high is not None
        inside += low <= true <= high
    assert 0.93 <= inside / 1000 <= 0.97, inside
