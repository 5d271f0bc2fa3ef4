"""The field's detection mAP, which leaves out images; shown next to COCO's, never instead of it.

docs/published-flaws.md#f1: the public scripts score only images with at least one prediction and at
least one true box, so that images which a detector misses entirely, and false alarms in healthy
images, cost nothing: a detector that finds 10 % of the boxes scores 0.320 by it and 0.042 over all images.
The IoU range is 0.40:0.05:0.75, after suppression at 0.5 (docs/published-flaws.md#f3).
`ecamp.metrics.detection` is the honest score.

Three implementations are in use, and differ by up to 1e-3 on the same boxes because they round the
101-point recall grid differently, so that a recall of, say, 0.28 does or does not reach its point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from ecamp.metrics.boxes import Boxes
from ecamp.metrics.stats import Metric

IOU = np.round(np.arange(0.40, 0.751, 0.05), 2)
# COCO's, in squared pixels.
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
MAX_DETECTIONS = (1, 10, 100)


def _float32_grid() -> np.ndarray:
    """Return 0, 0.01 ... 1 as torch computes it in float32: from both ends, product and sum in one step."""
    step, i = float(np.float32(0.01)), np.arange(101)
    return np.where(i < 50, i * step, 1 - step * (100 - i)).astype(np.float32)


@dataclass(frozen=True)
class Rule:
    """Conventions that differ between the implementations.

    Attributes:
        grid: (101,) recall points.
        recall: Type in which recall is compared with them.
        drops_images: Whether images without predictions or without true boxes are left out
            whatever the caller passes.
        outsiders_match: Whether a prediction may match a true box outside the area range (and is
            then not counted); otherwise it counts as false.
    """

    grid: np.ndarray
    recall: type[np.floating]
    drops_images: bool = False
    outsiders_match: bool = True


RULES = {
    "pycocotools": Rule(np.linspace(0, 1, 101), np.float64),
    "torchmetrics-1.9": Rule(_float32_grid().astype(np.float64), np.float64),
    "torchmetrics-0.7": Rule(_float32_grid(), np.float32, drops_images=True, outsiders_match=False),
}
PUBLISHED_RULE = "torchmetrics-0.7"
PUBLISHED_SCORE = 0.5  # lowest score of a prediction that the published scripts keep


def published_map(predicted: Boxes, truth: Boxes, *, rule: str = PUBLISHED_RULE) -> float:
    """Compute the mean AP over IoU 0.40:0.05:0.75 and classes, on the images that the published code keeps.

    Args:
        predicted: After suppression, with scores.
        rule: One of `RULES`; the published one by default.

    Returns:
        The biased mAP; -1 when no image is kept.
    """
    return summarise(*keep_both(predicted, truth), rule=rule)["map"]


def published_map_metric(predicted: Boxes, truth: Boxes) -> Metric:
    """Compute the biased mAP as the published scripts do, with a reason that names the bias.

    They keep predictions with a score of 0.5 or more, and images that have one and a true box.
    """
    assert predicted.scores is not None
    confident = predicted.scores >= PUBLISHED_SCORE
    kept = Boxes(
        predicted.xyxy[confident],
        predicted.labels[confident],
        predicted.image[confident],
        predicted.scores[confident],
    )
    images = len(np.intersect1d(kept.image, truth.image))
    if not images:
        return Metric.undefined("no image has both a true box and a prediction of 0.5 or more")
    return Metric(published_map(kept, truth), f"biased: on {images} images with a prediction only")


def keep_both(predicted: Boxes, truth: Boxes) -> tuple[Boxes, Boxes]:
    """Keep the boxes of images that have a prediction and a true box (docs/published-flaws.md#f1)."""
    kept = np.intersect1d(predicted.image, truth.image)
    return _rows(predicted, np.isin(predicted.image, kept)), _rows(
        truth, np.isin(truth.image, kept)
    )


def summarise(predicted: Boxes, truth: Boxes, *, rule: str) -> dict[str, float]:
    """Compute COCO's summary under one rule; images without any box do not change it.

    Returns:
        `map`, `map_50`, `map_75`, `map_{small,medium,large}`, `mar_{1,10,100}`,
        `mar_{small,medium,large}`, and `map@<IoU>` for each threshold; -1 without true boxes.
    """
    conventions, max_detections = RULES[rule], MAX_DETECTIONS[-1]
    if conventions.drops_images:
        predicted, truth = keep_both(predicted, truth)
    curves = {area: _curves(predicted, truth, area, conventions, max_detections) for area in AREAS}
    precision, recall = curves["all"]
    result = {"map": _mean(precision)}
    result |= {f"map@{t:.2f}": _mean(precision[:, i]) for i, t in enumerate(IOU)}
    result |= {"map_50": result["map@0.50"], "map_75": result["map@0.75"]}
    for area in ("small", "medium", "large"):
        result[f"map_{area}"], result[f"mar_{area}"] = map(_mean, curves[area])
    for limit in MAX_DETECTIONS[:-1]:
        result[f"mar_{limit}"] = _mean(_curves(predicted, truth, "all", conventions, limit)[1])
    result[f"mar_{max_detections}"] = _mean(recall)
    return result


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else -1.0


def _rows(boxes: Boxes, selected: np.ndarray) -> Boxes:
    scores = None if boxes.scores is None else boxes.scores[selected]
    return Boxes(boxes.xyxy[selected], boxes.labels[selected], boxes.image[selected], scores)


def _curves(
    predicted: Boxes, truth: Boxes, area: str, rule: Rule, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute average precision and last recall, each (classes with a true box in range, IoU)."""
    precision, recall = [], []
    for k in np.unique(truth.labels):
        class_predictions = _rows(predicted, predicted.labels == k)
        class_truth = _rows(truth, truth.labels == k)
        hit, ignored, count = _match_class(class_predictions, class_truth, AREAS[area], rule, limit)
        if count:
            values = [
                _average_precision(h[~i], count, rule) for h, i in zip(hit, ignored, strict=True)
            ]
            precision.append([ap for ap, _ in values])
            recall.append([last for _, last in values])
    empty = np.zeros((0, len(IOU)))
    return np.array(precision) if precision else empty, np.array(recall) if recall else empty


def _match_class(
    predicted: Boxes, truth: Boxes, area: tuple[float, float], rule: Rule, limit: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return hits and ignored predictions, (IoU, predictions) best first, and true boxes in range."""
    assert predicted.scores is not None
    matches, scores, count = [], [], 0
    for image in np.unique(np.concatenate([predicted.image, truth.image])):
        rows = np.flatnonzero(predicted.image == image)
        rows = rows[np.argsort(-predicted.scores[rows], kind="stable")][:limit]
        target = truth.xyxy[truth.image == image]
        matches.append(_match_image(predicted.xyxy[rows], target, area, rule))
        scores.append(predicted.scores[rows])
        count += int((~_outside(target, area)).sum())
    order = np.argsort(-np.concatenate([np.zeros(0), *scores]), kind="stable")
    empty = np.zeros((len(IOU), 0), bool)
    hit = np.concatenate([empty, *[match[0] for match in matches]], 1)[:, order]
    return hit, np.concatenate([empty, *[match[1] for match in matches]], 1)[:, order], count


def _match_image(
    predicted: np.ndarray, truth: np.ndarray, area: tuple[float, float], rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    """Match greedily like COCO: best prediction first, each takes the free true box it fits best.

    Args:
        predicted: (d, 4), best first.
        truth: (g, 4).

    Returns:
        bool (IoU, d) hit, and bool (IoU, d) not counted.
    """
    hit = np.zeros((len(IOU), len(predicted)), bool)
    ignored = np.repeat(_outside(predicted, area)[None], len(IOU), 0)
    if not len(predicted) or not len(truth):
        return hit, ignored
    overlap = np.asarray(mask.iou(_xywh(predicted), _xywh(truth), [0] * len(truth)))
    outside = _outside(truth, area)
    for t, threshold in enumerate(IOU):
        free = np.ones(len(truth), bool)
        for d in range(len(predicted)):
            # A true box in range is preferred, even if one outside fits better.
            for group, is_outside in ((~outside, False), (outside, True)):
                if is_outside and not rule.outsiders_match:
                    continue
                candidates = np.where(free & group, overlap[d], -1.0)
                g = int(candidates.argmax())
                if candidates[g] >= threshold:
                    free[g], hit[t, d], ignored[t, d] = False, not is_outside, is_outside
                    break
    return hit, ignored


def _average_precision(hit: np.ndarray, count: int, rule: Rule) -> tuple[float, float]:
    """Compute the interpolated AP at the rule's recall points, and the last recall.

    Args:
        hit: bool (predictions,), best first.
        count: True boxes.
    """
    if not len(hit):
        return 0.0, 0.0
    hits = np.cumsum(hit)
    precision = hits / np.arange(1, len(hit) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = hits.astype(rule.recall) / rule.recall(count)
    index = np.searchsorted(recall, rule.grid, side="left")
    reached = index < len(hit)
    return float(precision[index[reached]].sum() / len(rule.grid)), float(recall[-1])


def _outside(xyxy: np.ndarray, area: tuple[float, float]) -> np.ndarray:
    size = (xyxy[:, 2:] - xyxy[:, :2]).prod(1)
    result: np.ndarray = (size < area[0]) | (size > area[1])
    return result


def _xywh(xyxy: np.ndarray) -> np.ndarray:
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1).astype(np.float64)
