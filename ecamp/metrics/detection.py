"""COCO mean average precision over ALL images, with bootstrap replicates, and AP at one IoU.

Matching is pycocotools'; images without boxes and images without predictions take part. The
field's IoU range 0.40:0.05:0.75 is the main one (`map_40_75`); `map_50_95` and `ap50` are reported too.

Why: docs/decisions.md#detection-over-all-images.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ecamp.metrics.boxes import Boxes
from ecamp.metrics.segmentation import macro
from ecamp.metrics.stats import Metric

IOU = np.round(np.arange(0.40, 0.951, 0.05), 2)
RECALL = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100
CHUNK = 64  # resamples at once
FALSE_ALARMS = 2.0 ** np.arange(-3, 4)  # per image


def score_detection(
    predicted: Boxes, truth: Boxes, counts: np.ndarray, *, classes: Sequence[str]
) -> dict[str, Metric]:
    """Compute average precision.

    Args:
        counts: (resamples, n images) from `resample_counts`; its width is the number of images.

    Returns:
        `map_40_75` (main), `map_50_95`, `ap50` (macro over classes), `ap50/<class>`, `froc` (mean
        sensitivity at 1/8 to 8 false alarms per image, hits at IoU 0.40), `recall_40` (fraction
        of true boxes found at IoU 0.40 by any of the 100 best predictions).
    """
    matches = _match(predicted, truth, counts.shape[1], len(classes))
    all_images = np.ones((1, counts.shape[1]))
    result: dict[str, Metric] = {}
    per_class: dict[str, list[Metric]] = {
        "map_40_75": [], "map_50_95": [], "ap50": [], "froc": [],
    }  # fmt: skip
    ranges = {
        "map_40_75": IOU <= 0.751,
        "map_50_95": IOU >= 0.499,
        "ap50": np.abs(IOU - 0.5) < 1e-6,
    }
    recalls = []
    for k, name in enumerate(classes):
        match = matches[k]
        if match.true_image.size == 0:
            for values in per_class.values():
                values.append(Metric.undefined(f"no true box of '{name}' in the test split"))
            result[f"ap50/{name}"] = per_class["ap50"][-1]
            continue
        point = average_precision(match, all_images)[0]
        replicates = average_precision(match, counts)
        for metric, thresholds in ranges.items():
            per_class[metric].append(
                Metric.of(point[thresholds].mean(), replicates[:, thresholds].mean(1))
            )
        per_class["froc"].append(Metric.of(froc(match, all_images)[0], froc(match, counts)))
        result[f"ap50/{name}"] = per_class["ap50"][-1]
        recalls.append(match.hit[0].sum() / match.true_image.size)
    result |= {metric: macro(values) for metric, values in per_class.items()}
    result["recall_40"] = (
        Metric.of(float(np.mean(recalls))) if recalls else Metric.undefined("no true box")
    )
    return result


@dataclass(frozen=True)
class ClassMatch:
    """Detections of one class, best first, matched with the true boxes.

    Attributes:
        hit: bool (IoU thresholds, detections), whether a detection matches a true box.
        image: int (detections,), image of each detection.
        true_image: int (true boxes,), image of each true box.
    """

    hit: np.ndarray
    image: np.ndarray
    true_image: np.ndarray


def _match(predicted: Boxes, truth: Boxes, images: int, classes: int) -> list[ClassMatch]:
    """Match with pycocotools, image by image and class by class, at all IoU thresholds."""
    if predicted.scores is None:
        raise ValueError("score_detection: predictions need scores")
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": k} for k in range(classes)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(truth.image[i]),
                "category_id": int(truth.labels[i]),
                "bbox": _xywh(truth.xyxy[i]),
                "area": float(np.prod(truth.xyxy[i, 2:] - truth.xyxy[i, :2])),
                "iscrowd": 0,
            }
            for i in range(len(truth.xyxy))
        ],
    }
    detections = [
        {
            "image_id": int(predicted.image[i]),
            "category_id": int(predicted.labels[i]),
            "bbox": _xywh(predicted.xyxy[i]),
            "score": float(predicted.scores[i]),
        }
        for i in range(len(predicted.xyxy))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = coco.loadRes(detections) if detections else COCO()
        evaluation = COCOeval(coco, results, "bbox")
        if not detections:
            results.dataset = {**coco.dataset, "annotations": []}
            results.createIndex()
        evaluation.params.iouThrs = IOU
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
    per_image = evaluation.evalImgs  # ordered by class, area, image
    matches = []
    for k in range(classes):
        rows = [row for row in per_image[k * images : (k + 1) * images] if row is not None]
        scores = np.concatenate([np.zeros(0), *[np.asarray(r["dtScores"]) for r in rows]])
        hits = np.concatenate(
            [np.zeros((len(IOU), 0)), *[np.asarray(r["dtMatches"]) for r in rows]], axis=1
        )
        image = np.concatenate(
            [np.zeros(0, np.int64), *[np.full(len(r["dtIds"]), r["image_id"]) for r in rows]]
        ).astype(np.int64)
        order = np.argsort(-scores, kind="mergesort")
        matches.append(ClassMatch(hits[:, order] > 0, image[order], truth.image[truth.labels == k]))
    return matches


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]


def average_precision(match: ClassMatch, counts: np.ndarray) -> np.ndarray:
    """Compute COCO's 101-point interpolated AP with image weights.

    Args:
        counts: (resamples, images) multiplicities; ones give the plain AP.

    Returns:
        float64 (resamples, IoU thresholds); NaN where a resample contains no true box.
    """
    image_weights = counts.astype(np.float64)
    true_total = image_weights[:, match.true_image].sum(1)
    result = np.full((len(counts), len(IOU)), np.nan)
    has_truth = true_total > 0
    result[has_truth] = 0.0
    detection_weight = image_weights[has_truth][:, match.image]
    seen = np.cumsum(detection_weight, axis=1)
    for t in range(len(IOU)):
        # Interpolated precision is always reached at a hit, so the misses in between only count
        # in `seen`; an image of multiplicity 0 repeats its predecessor and changes nothing.
        hit_index = np.flatnonzero(match.hit[t])
        if not hit_index.size:
            continue
        hits = np.cumsum(detection_weight[:, hit_index], axis=1)
        precision = hits / (seen[:, hit_index] + 1e-16)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALL, hits / true_total[has_truth][:, None], side="right")
        result[has_truth, t] = (precision * np.diff(reached, axis=1, prepend=0)).sum(1) / len(
            RECALL
        )
    return result


def froc(match: ClassMatch, counts: np.ndarray) -> np.ndarray:
    """Compute the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms per image; hits at IoU 0.40.

    The score of the LUNA16 challenge (Setio et al., Medical Image Analysis 2017). At each rate the
    best operating point with no more false alarms counts.

    Args:
        counts: (resamples, images) multiplicities; ones give the plain score.

    Returns:
        float64 (resamples,); NaN where a resample contains no true box.
    """
    sensitivity = np.full(len(counts), np.nan)
    hit = match.hit[0]
    for start in range(0, len(counts), CHUNK):
        image_weights = counts[start : start + CHUNK].astype(np.float64)
        true_total, images = image_weights[:, match.true_image].sum(1), image_weights.sum(1)
        detection_weight = image_weights[:, match.image]
        # Hits and false alarms so far, from no detection to all of them.
        hits, alarms = np.zeros((2, len(image_weights), detection_weight.shape[1] + 1))
        np.cumsum(detection_weight * hit, axis=1, out=hits[:, 1:])
        np.cumsum(detection_weight * ~hit, axis=1, out=alarms[:, 1:])
        for r in np.flatnonzero(true_total > 0):
            index = np.searchsorted(alarms[r] / images[r], FALSE_ALARMS * (1 + 1e-12), side="right")
            sensitivity[start + r] = (hits[r, index - 1] / true_total[r]).mean()
    return sensitivity
