"""Dice, IoU and outline distance on positives, false positives on negatives, and the legacy Dice.

`legacy_dice` counts empty against empty as 1 and averages over images: on a set with 76.56 %
empty masks the all-empty prediction scores 76.56. It is shown because papers quote it, always
next to that floor; `dice_pos` is the main score.

Why: docs/decisions.md#dice-on-positives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecamp.metrics.stats import Metric, weighted_mean_replicates
from ecamp.metrics.surface import hd95

LOWER_IS_BETTER = ("hd95", "fpr_neg")


def score_segmentation(
    predicted: np.ndarray, target: np.ndarray, counts: np.ndarray, *, classes: Sequence[str]
) -> dict[str, Metric]:
    """Compute all segmentation metrics.

    Args:
        predicted, target: bool (n, K, height, width).
        counts: (resamples, n) from `resample_counts`.

    Returns:
        `dice_pos`, `iou_pos` (mean over images that contain the class, macro over classes),
        `fpr_neg` (fraction of images without the class where at least one pixel is predicted),
        `dice_pooled` (all pixels of all images as one), `legacy_dice`, `hd95` (over images that
        contain the class; lower is better), and per class `dice_pos/<class>`.
    """
    axes = (2, 3)
    overlap = (predicted & target).sum(axes).astype(np.float64)
    size_p, size_t = predicted.sum(axes).astype(np.float64), target.sum(axes).astype(np.float64)
    present = size_t > 0
    with np.errstate(invalid="ignore"):
        dice = np.where(size_p + size_t > 0, 2 * overlap / (size_p + size_t), 1.0)
        iou = np.where(size_p + size_t > 0, overlap / (size_p + size_t - overlap), 1.0)
    distance = np.array([
        [hd95(p, t) for p, t in zip(prediction, truth, strict=True)]
        for prediction, truth in zip(predicted, target, strict=True)
    ]).reshape(present.shape)  # fmt: skip
    result: dict[str, Metric] = {}
    for name, values, mask in (
        ("dice_pos", dice, present),
        ("iou_pos", iou, present),
        ("hd95", distance, present),
        ("fpr_neg", (size_p > 0).astype(np.float64), ~present),
        ("legacy_dice", dice, np.ones_like(present)),
    ):
        requirement = "image without it" if name == "fpr_neg" else "image with it"
        per_class = []
        for k, label in enumerate(classes):
            selected = np.where(mask[:, k], values[:, k], np.nan)
            if mask[:, k].any():
                metric = Metric.of(
                    float(np.nanmean(selected)), weighted_mean_replicates(selected, counts)
                )
            else:
                metric = Metric.undefined(f"'{label}': no {requirement} in the test split")
            per_class.append(metric)
            if name == "dice_pos":
                result[f"dice_pos/{label}"] = metric
        mean = macro(per_class)
        result[name] = mean.minimised() if name in LOWER_IS_BETTER else mean
    result["dice_pooled"] = macro(
        [_pooled(overlap[:, k], size_p[:, k], size_t[:, k], counts) for k in range(len(classes))]
    )
    return result


def macro(metrics: list[Metric]) -> Metric:
    """Average over the classes where the metric is defined; the reason names the others."""
    defined = [m for m in metrics if m.value is not None]
    reasons = "; ".join(m.reason for m in metrics if m.value is None)
    if not defined:
        return Metric.undefined(reasons or "no classes")
    replicates = [m.replicates for m in defined if m.replicates is not None]
    value = float(np.mean([m.value for m in defined]))
    return Metric(value, reasons, np.mean(replicates, axis=0) if replicates else None)


def _pooled(
    overlap: np.ndarray, size_p: np.ndarray, size_t: np.ndarray, counts: np.ndarray
) -> Metric:
    total = (size_p + size_t).sum()
    if total == 0:
        return Metric.undefined("neither prediction nor truth holds a pixel")
    weights = counts.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = 2 * (weights @ overlap) / (weights @ (size_p + size_t))
    return Metric.of(2 * overlap.sum() / total, replicates)
