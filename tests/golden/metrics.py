"""metrics.npz: what the published validations report, and detection mAP under three rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from ecamp.metrics.boxes import Boxes
from ecamp.published.downstream.classification import valid
from ecamp.published.downstream.mean_ap import IOU, keep_both, published_map, summarise
from ecamp.published.downstream.yolo import (
    corner_targets,
    detect,
    published_anchors,
    total_loss,
)
from tests.golden.check import EXACT, FLOAT32, FLOAT64, Check, Vectors, compare
from tests.golden.seg_loss import dice_checks

FILE = "metrics.npz"
# Recorded source -> our rule, and its tolerance: torchmetrics averages in float32.
SOURCES = {
    "torchmetrics0.7.2": ("torchmetrics-0.7", FLOAT32),
    "torchmetrics1.9.0": ("torchmetrics-1.9", FLOAT32),
    "pycocotools": ("pycocotools", FLOAT64),
}
PREDICTED, TRUE = "pred_image_xyxy_score_label", "target_image_xyxy_label"
STRIDE = 32  # pixels of the input a cell of the coarsest logits covers


def checks(folder: Path) -> Iterator[Check]:
    """Every vector of the file."""
    vectors = Vectors(folder / FILE)
    groups = {tuple(name.split("/")[:2]) for name in vectors.names("classification/")}
    for _, case in sorted(groups):
        yield from _classification(vectors, f"classification/{case}")
    if vectors.names("dice/"):
        yield from dice_checks(vectors, "dice")
    for case in sorted({n.split("/")[0] for n in vectors.names() if n.endswith(PREDICTED)}):
        if f"{case}/labels" in vectors:
            yield from _evaluation(vectors, case)
        yield from _mean_average_precision(vectors, case)
    yield from vectors.unread()


def _classification(vectors: Vectors, case: str) -> Iterator[Check]:
    logits, labels = vectors.tensor(f"{case}/logits"), vectors.tensor(f"{case}/labels")
    got = valid(logits, labels, vectors[f"{case}/batch_sizes"].tolist())
    expected: dict[str, tuple[Any, float]] = {
        "valid_result": (got.result, FLOAT64),
        "valid_loss": (got.loss, FLOAT32),
        "accuracy": (got.accuracy, FLOAT64),
    }
    if got.auroc:
        double = logits.double().sigmoid().numpy()
        exact = [roc_auc_score(labels[:, k], double[:, k]) for k in range(double.shape[1])]
        expected |= {
            "auroc_macro": (got.result, FLOAT64),
            "auroc_per_class": (got.auroc, FLOAT64),
            "auroc_per_class_from_float64_sigmoid": (exact, FLOAT64),
        }
    for name, (value, tolerance) in expected.items():
        vector = f"{case}/{name}"
        yield compare(f"{FILE}/{vector}", np.atleast_1d(value), vectors[vector], tolerance)


def _evaluation(vectors: Vectors, case: str) -> Iterator[Check]:
    """The published `test()`: loss, suppression and targets from logits and labels."""
    labels = vectors.tensor(f"{case}/labels")
    logits = [vectors.tensor(name) for name in vectors.names(f"{case}/logits_scale")]
    anchors, size = published_anchors(), logits[0].shape[-1] * STRIDE
    classes = logits[0].shape[1] // anchors.shape[1] - 5
    kept = detect(logits, anchors, size, classes)
    rows = [
        np.column_stack([np.full(len(found), image), found[:, [0, 1, 2, 3, 4, 6]].double()])
        for image, found in enumerate(kept)
        if found is not None
    ]
    name = f"{case}/{PREDICTED}"
    yield compare(f"{FILE}/{name}", np.concatenate(rows), vectors[name], FLOAT32)
    name = f"{case}/{TRUE}"
    yield compare(f"{FILE}/{name}", corner_targets(labels, size), vectors[name], FLOAT64)
    count = int(vectors[f"{case}/batch_size"][0])
    batches = zip(*[scale.split(count) for scale in logits], labels.split(count), strict=True)
    losses = [float(total_loss(parts[:-1], parts[-1], anchors, size)["total"]) for parts in batches]
    name = f"{case}/test_loss_mean_over_batches"
    yield compare(f"{FILE}/{name}", np.array([np.mean(losses)]), vectors[name], FLOAT32)


def _boxes(rows: np.ndarray, scored: bool) -> Boxes:
    labels, image = rows[:, -1].astype(np.int64), rows[:, 0].astype(np.int64)
    return Boxes(rows[:, 1:5], labels, image, rows[:, 5] if scored else None)


def _mean_average_precision(vectors: Vectors, case: str) -> Iterator[Check]:
    predicted = _boxes(vectors[f"{case}/{PREDICTED}"], scored=True)
    truth = _boxes(vectors[f"{case}/{TRUE}"], scored=False)
    filtered = keep_both(predicted, truth)
    name = f"{case}/kept_images"
    yield compare(f"{FILE}/{name}", np.unique(filtered[1].image), vectors[name], EXACT)
    name = f"{case}/n_images"
    if name in vectors:  # images without boxes change nothing; each box must lie in one of them
        beyond = max(predicted.image.max(), truth.image.max()) >= vectors[name][0]
        yield Check(f"{FILE}/{name}", float(beyond), EXACT)
    for source, (rule, tolerance) in SOURCES.items():
        for subset, boxes in (("filtered", filtered), ("all", (predicted, truth))):
            got = {key: np.array([value]) for key, value in summarise(*boxes, rule=rule).items()}
            got["map_per_threshold"] = np.concatenate([got[f"map@{t:.2f}"] for t in IOU])
            # Both are switched off in the published call, and then -1.
            got["map_per_class"] = got["mar_100_per_class"] = np.array([-1.0])
            got["classes"] = np.union1d(boxes[0].labels, boxes[1].labels).astype(np.float64)
            prefix = f"{case}/{source}/{subset}/"
            for vector in vectors.names(prefix):
                value = got.get(vector.removeprefix(prefix))
                if value is not None:
                    yield compare(f"{FILE}/{vector}", value, vectors[vector], tolerance)
    name = f"{case}/torchmetrics0.7.2/filtered/map"
    if name in vectors:
        ours = np.array([published_map(predicted, truth)])
        yield compare(f"{FILE}/{name} (published_map)", ours, vectors[name], FLOAT32)
