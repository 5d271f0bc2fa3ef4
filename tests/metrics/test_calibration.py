"""Kappa, Brier score, calibration error, F1: against scikit-learn and plain loops, resample by resample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, cohen_kappa_score, f1_score

from ecamp.metrics.calibration import BINS
from ecamp.metrics.classification import score_classification
from ecamp.metrics.stats import Metric, resample_counts


def draw(seed: int, n: int, k: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if kind == "multiclass":
        scores = rng.dirichlet(np.ones(k), n)
        return scores, np.eye(k)[rng.integers(0, k, n)]
    return np.round(rng.random((n, k)), 1), (rng.random((n, k)) < 0.5).astype(float)


def score(
    scores: np.ndarray, targets: np.ndarray, counts: np.ndarray, kind: str
) -> dict[str, Metric]:
    k = scores.shape[1]
    return score_classification(
        scores, targets, counts, classes=[f"c{i}" for i in range(k)], kind=kind,
        thresholds=np.full(k, 0.5),
    )  # fmt: skip


def plain_error(predicted: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for b in range(BINS):
        inside = [i for i, p in enumerate(predicted) if b == min(int(float(p) * BINS), BINS - 1)]
        if inside:
            gap = np.mean([right[i] for i in inside]) - np.mean([predicted[i] for i in inside])
            total += len(inside) / len(predicted) * abs(gap)
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 30), st.integers(2, 4))
def test_multiclass(seed: int, n: int, k: int) -> None:
    scores, targets = draw(seed, n, k, "multiclass")
    counts = resample_counts([f"p{i}" for i in range(n)], 5)
    whole = score(scores, targets, counts, "multiclass")
    for r in range(-1, 5):
        index = np.arange(n) if r < 0 else np.repeat(np.arange(n), counts[r].astype(int))

        def got(name: str, r: int = r) -> float:
            metric = whole[name]
            if r < 0:
                return np.nan if metric.value is None else metric.value
            return np.nan if metric.replicates is None else metric.replicates[r]

        truth, guess = targets[index].argmax(1), scores[index].argmax(1)
        want = np.nan
        if len({*truth, *guess}) > 1:
            want = cohen_kappa_score(truth, guess, weights="quadratic", labels=range(k))
        if np.isfinite(got("kappa")) or whole["kappa"].value is not None:
            assert got("kappa") == pytest.approx(want, abs=1e-9, nan_ok=True)
        brier = np.mean(((scores[index] - targets[index]) ** 2).sum(1))
        assert got("brier") == pytest.approx(brier)
        right = (truth == guess).astype(float)
        assert got("ece") == pytest.approx(plain_error(scores[index].max(1), right), abs=1e-9)
        assert got("accuracy") == pytest.approx(accuracy_score(truth, guess))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 30))
def test_multilabel(seed: int, n: int) -> None:
    scores, targets = draw(seed, n, 2, "multilabel")
    counts = resample_counts([f"p{i}" for i in range(n)], 5)
    whole = score(scores, targets, counts, "multilabel")
    losses = [brier_score_loss(targets[:, k], scores[:, k]) for k in range(2)]
    assert whole["brier"].value == pytest.approx(np.mean(losses))
    errors = [plain_error(scores[:, k], targets[:, k]) for k in range(2)]
    assert whole["ece"].value == pytest.approx(np.mean(errors), abs=1e-9)
    assert "kappa" not in whole
    for k in range(2):
        metric = whole[f"f1/c{k}"]
        if metric.value is None:
            continue
        guess = scores[:, k] >= 0.5
        assert metric.value == pytest.approx(f1_score(targets[:, k], guess, zero_division=0))
        assert metric.replicates is not None
        for row, value in zip(counts, metric.replicates, strict=True):
            index = np.repeat(np.arange(n), row.astype(int))
            if targets[index, k].any() or guess[index].any():
                assert value == pytest.approx(
                    f1_score(targets[index, k], guess[index], zero_division=0)
                )


def test_scores_that_are_not_probabilities_have_no_calibration() -> None:
    whole = score(
        np.array([[3.0], [-1.0]]), np.array([[1.0], [0.0]]), np.ones((1, 2)), "multilabel"
    )
    assert whole["brier"].value is None
    assert "not probabilities" in whole["ece"].reason
    assert whole["auroc"].value == 1.0


def test_unknown_labels_are_left_out_everywhere() -> None:
    scores = np.array([[0.1, 0.8], [0.9, 0.3], [0.4, 0.6]])
    targets = np.array([[0.0, np.nan], [1.0, 0.0], [np.nan, 1.0]])
    whole = score(scores, targets, np.ones((1, 3)), "multilabel")
    each = [0.1**2, (0.1**2 + 0.3**2) / 2, 0.4**2]
    assert whole["brier"].value == pytest.approx(np.mean(each))
    left = (
        plain_error(scores[:2, 0], targets[:2, 0]) + plain_error(scores[1:, 1], targets[1:, 1])
    ) / 2
    assert whole["ece"].value == pytest.approx(left)
