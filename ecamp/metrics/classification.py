"""AUROC, AUPRC, F1 and accuracy, multi-label and multi-class, with bootstrap replicates.

Point values come from scikit-learn. Replicates of the AUROC are computed by sorting each class
once and weighting by resample counts: scikit-learn's result on every resample (tested), at a
fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

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
        `auroc`, `auprc`, `f1` (macro over classes where defined), `accuracy`, and per class
        `auroc/<class>`, `auprc/<class>`. A class with one kind of target is undefined, with
        reason; the macro mean is then over the rest and its reason says so.
    """
    result: dict[str, Metric] = {}
    aurocs, auprcs, f1s = [], [], []
    predicted = scores >= thresholds
    if kind == "multiclass":
        predicted = np.eye(scores.shape[1], dtype=bool)[scores.argmax(1)]
    missing = []
    for k, name in enumerate(classes):
        known = np.isfinite(targets[:, k])
        truth, score = targets[known, k] > 0.5, scores[known, k]
        if not truth.any() or truth.all():
            lacking = "positive" if not truth.any() else "negative"
            reason = f"no {lacking} case of '{name}' in the test split"
            result[f"auroc/{name}"] = Metric.undefined(reason)
            result[f"auprc/{name}"] = Metric.undefined(reason)
            missing.append(name)
            continue
        replicates = auroc_replicates(score, truth, counts[:, known])
        result[f"auroc/{name}"] = Metric.of(roc_auc_score(truth, score), replicates)
        result[f"auprc/{name}"] = Metric.of(average_precision_score(truth, score))
        aurocs.append(result[f"auroc/{name}"])
        auprcs.append(result[f"auprc/{name}"])
        f1s.append(f1_score(truth, predicted[known, k], zero_division=0.0))
    result["auroc"] = _macro(aurocs, missing)
    result["auprc"] = _macro(auprcs, missing)
    result["f1"] = Metric.of(float(np.mean(f1s)), reason="") if f1s else _macro([], missing)
    result["accuracy"] = _accuracy(predicted, targets, counts, kind)
    return result


def _macro(metrics: list[Metric], missing: list[str]) -> Metric:
    if not metrics:
        return Metric.undefined(f"no class has positives and negatives: {', '.join(missing)}")
    value = float(np.mean([m.value for m in metrics]))
    replicates = [m.replicates for m in metrics if m.replicates is not None]
    together = np.mean(replicates, axis=0) if replicates else None
    reason = f"without {', '.join(missing)}: one kind of target only" if missing else ""
    return Metric(value, reason, together)


def _accuracy(predicted: np.ndarray, targets: np.ndarray, counts: np.ndarray, kind: str) -> Metric:
    """Share of images (multi-class) or of known labels (multi-label) that are right."""
    if kind == "multiclass":
        known = np.isfinite(targets).all(1)
        right = np.where(known, predicted.argmax(1) == np.nan_to_num(targets).argmax(1), np.nan)
        right = right.astype(np.float64)
    else:
        known = np.isfinite(targets)
        agree = (predicted == (targets > 0.5)) & known
        total = known.sum(1)
        right = np.divide(agree.sum(1), total, out=np.full(len(total), np.nan), where=total > 0)
    if not np.isfinite(right).any():
        return Metric.undefined("no known label in the test split")
    return Metric.of(float(np.nanmean(right)), weighted_mean_replicates(right, counts))


def auroc_replicates(scores: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted AUROC on each resample: the chance that a positive outranks a negative.

    Args:
        scores: float (n,). Ties count one half.
        truth: bool (n,).
        counts: (resamples, n) multiplicities.

    Returns:
        float64 (resamples,), NaN where a resample has one kind of target only.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = counts[:, order].astype(np.float64)
    positive = np.add.reduceat(weights * truth[order], starts, axis=1)
    negative = np.add.reduceat(weights * ~truth[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + 0.5 * negative)).sum(1)
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, wins / pairs, np.nan)


def best_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Per class, the threshold with the best F1 on these (validation) scores.

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
