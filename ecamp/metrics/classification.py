"""All classification metrics, multi-label and multi-class, with bootstrap replicates.

Point values of the ranking metrics come from scikit-learn, replicates from `metrics.ranking`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ecamp.metrics.calibration import brier, calibration_error
from ecamp.metrics.ranking import auprc_replicates, auroc_replicates
from ecamp.metrics.stats import Metric, weighted_mean_replicates


def score_classification(
    scores: np.ndarray,
    targets: np.ndarray,
    counts: np.ndarray,
    *,
    classes: Sequence[str],
    kind: str,
    thresholds: np.ndarray,
) -> dict[str, Metric]:
    """Compute all classification metrics.

    Args:
        scores: float (n, K); higher means more likely.
        targets: float (n, K) 0, 1 or NaN (unknown: left out of that class).
        counts: (resamples, n) from `resample_counts`.
        kind: `multilabel` or `multiclass` (targets one-hot).
        thresholds: (K,) decision thresholds chosen on validation (multilabel).

    Returns:
        `auroc`, `auprc`, `f1` (macro over classes where defined), `accuracy`, `brier`, `ece`; for
        multi-class also `kappa` (quadratic weights: for ordered classes); per class
        `auroc/<class>`, `auprc/<class>`, `f1/<class>`. A class with one kind of target is
        undefined, with reason; the macro mean is then over the others and its reason names it.
    """
    result: dict[str, Metric] = {}
    per_class: dict[str, list[Metric]] = {"auroc": [], "auprc": [], "f1": []}
    predicted = scores >= thresholds
    if kind == "multiclass":
        predicted = np.eye(scores.shape[1], dtype=bool)[scores.argmax(1)]
    missing = []
    for k, name in enumerate(classes):
        known = np.isfinite(targets[:, k])
        truth, score = targets[known, k] > 0.5, scores[known, k]
        if not truth.any() or truth.all():
            missing_kind = "positive" if not truth.any() else "negative"
            reason = f"no {missing_kind} case of '{name}' in the test split"
            result |= {f"{metric}/{name}": Metric.undefined(reason) for metric in per_class}
            missing.append(name)
            continue
        resamples = counts[:, known]
        class_metrics = {
            "auroc": Metric.of(
                roc_auc_score(truth, score), auroc_replicates(score, truth, resamples)
            ),
            "auprc": Metric.of(
                average_precision_score(truth, score), auprc_replicates(score, truth, resamples)
            ),
            "f1": _f1(predicted[known, k], truth, resamples),
        }
        for metric, value in class_metrics.items():
            result[f"{metric}/{name}"] = value
            per_class[metric].append(value)
    result |= {metric: _macro(values, missing) for metric, values in per_class.items()}
    result["accuracy"] = _accuracy(predicted, targets, counts, kind)
    if kind == "multiclass":
        result["kappa"] = _kappa(predicted, targets, counts)
    result["brier"] = brier(scores, targets, counts, kind)
    result["ece"] = calibration_error(scores, targets, counts, kind)
    return result


def _f1(predicted: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> Metric:
    """Compute 2 hits / (predicted + true); 0 where nothing is predicted."""

    def f1(weights: np.ndarray) -> np.ndarray:
        hits = weights @ (predicted & truth)
        total = weights @ (predicted.astype(np.float64) + truth)
        result: np.ndarray = np.divide(
            2 * hits, total, out=np.full(len(hits), np.nan), where=total > 0
        )
        return result

    point = f1(np.ones((1, len(truth))))[0]
    return Metric.of(float(point), f1(counts.astype(np.float64)))


def _kappa(predicted: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> Metric:
    """Compute Cohen's kappa with quadratic weights (Cohen 1968), classes in their order."""
    known = np.isfinite(targets).all(1)
    k = targets.shape[1]
    cell = targets[known].argmax(1) * k + predicted[known].argmax(1)
    table = np.zeros((known.sum(), k * k))
    table[np.arange(len(cell)), cell] = 1
    index = np.arange(k)
    cost = (index[:, None] - index[None, :]) ** 2.0

    def kappa(weights: np.ndarray) -> np.ndarray:
        confusion = (weights @ table).reshape(-1, k, k)
        total = confusion.sum((1, 2))
        chance = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None, :]
        expected = (chance * cost).sum((1, 2))
        observed = (confusion * cost).sum((1, 2)) * total
        result: np.ndarray = 1 - np.divide(
            observed, expected, out=np.full(len(observed), np.nan), where=expected > 0
        )
        return result

    if not known.any():
        return Metric.undefined("no known label in the test split")
    point = float(kappa(np.ones((1, len(cell))))[0])
    return Metric.of(
        point,
        kappa(counts[:, known].astype(np.float64)),
        "all images are of one class, all predicted so",
    )


def _macro(metrics: list[Metric], missing: list[str]) -> Metric:
    if not metrics:
        return Metric.undefined(f"no class has positives and negatives: {', '.join(missing)}")
    value = float(np.mean([m.value for m in metrics]))
    replicates = [m.replicates for m in metrics if m.replicates is not None]
    mean_replicates = np.mean(replicates, axis=0) if replicates else None
    reason = f"without {', '.join(missing)}: one kind of target only" if missing else ""
    return Metric(value, reason, mean_replicates)


def _accuracy(predicted: np.ndarray, targets: np.ndarray, counts: np.ndarray, kind: str) -> Metric:
    """Compute the fraction of images (multi-class) or of known labels (multi-label) that are correct."""
    if kind == "multiclass":
        known = np.isfinite(targets).all(1)
        correct = np.where(known, predicted.argmax(1) == np.nan_to_num(targets).argmax(1), np.nan)
        correct = correct.astype(np.float64)
    else:
        known = np.isfinite(targets)
        agree = (predicted == (targets > 0.5)) & known
        total = known.sum(1)
        correct = np.divide(agree.sum(1), total, out=np.full(len(total), np.nan), where=total > 0)
    if not np.isfinite(correct).any():
        return Metric.undefined("no known label in the test split")
    return Metric.of(float(np.nanmean(correct)), weighted_mean_replicates(correct, counts))


def best_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Find, per class, the threshold with the best F1 on these (validation) scores.

    Args:
        scores, targets: (n, K) as above.

    Returns:
        float64 (K,); 0.5 for a class without both kinds of target.
    """
    result = np.full(scores.shape[1], 0.5)
    for k in range(scores.shape[1]):
        known = np.isfinite(targets[:, k])
        truth, score = targets[known, k] > 0.5, scores[known, k]
        if not truth.any() or truth.all():
            continue
        order = np.argsort(-score, kind="stable")
        hits = np.cumsum(truth[order])
        f1 = 2 * hits / (np.arange(1, len(hits) + 1) + truth.sum())
        # Only the last of equal scores is a real operating point.
        last = np.r_[score[order][1:] != score[order][:-1], True]
        result[k] = score[order][np.argmax(np.where(last, f1, -1))]
    return result
