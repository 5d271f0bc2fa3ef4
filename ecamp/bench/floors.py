"""Trivial predictors of a split. A score that does not beat its floor means nothing."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ecamp.data.arrays import Arrays
from ecamp.metrics.classification import best_thresholds


def floor_prediction(
    floor: str, arrays: Arrays, train: np.ndarray, val: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    """Predict the test split without looking at any image, or only at its grey values.

    Args:
        floor: `constant`, `pixel-statistics` (cls), `all-empty`, `prior-mask` (seg), `prior-box`
            (det).
        train, val, test: Row indices; the floor learns from train, chooses on val.

    Returns:
        What the task's `score` takes.
    """
    return _FLOORS[floor](arrays, train, val, test)


def _constant(
    arrays: Arrays, train: np.ndarray, val: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    """Every image gets each class's training prevalence."""
    labels = arrays.labels[train]
    known = np.isfinite(labels)
    share = np.where(known, labels, 0).sum(0) / np.maximum(known.sum(0), 1)
    scores = np.tile(share.astype(np.float32), (len(test), 1))
    return {"scores": scores, "thresholds": np.full(labels.shape[1], 0.5)}


def pixel_statistics(images: np.ndarray) -> np.ndarray:
    """Features that know nothing of anatomy: a 16-bin histogram, mean, spread, a 4x4 thumbnail.

    Args:
        images: uint8 (n, size, size, channels).

    Returns:
        float64 (n, 34).
    """
    grey = np.asarray(images).mean(3)
    histogram = np.stack([np.histogram(g, 16, (0, 256))[0] / g.size for g in grey])
    size = grey.shape[1] - grey.shape[1] % 4
    cell = size // 4
    small = grey[:, :size, :size].reshape(len(grey), 4, cell, 4, cell).mean((2, 4))
    return np.concatenate(
        [histogram, grey.mean((1, 2))[:, None] / 255, grey.std((1, 2))[:, None] / 255,
         small.reshape(len(grey), 16) / 255], axis=1
    )  # fmt: skip


def _pixel_statistics(
    arrays: Arrays, train: np.ndarray, val: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    scaler = StandardScaler().fit(pixel_statistics(arrays.images[train]))
    x = {
        name: scaler.transform(pixel_statistics(arrays.images[rows]))
        for name, rows in (("train", train), ("val", val), ("test", test))
    }
    classes = arrays.labels.shape[1]
    scores = {name: np.zeros((len(rows), classes), np.float32) for name, rows in x.items()}
    for k in range(classes):
        truth = arrays.labels[train][:, k]
        known = np.isfinite(truth)
        if len(np.unique(truth[known])) < 2:
            continue
        model = LogisticRegression(C=1.0, max_iter=500).fit(x["train"][known], truth[known] > 0.5)
        for name in scores:
            scores[name][:, k] = model.predict_proba(x[name])[:, 1]
    return {
        "scores": scores["test"],
        "thresholds": best_thresholds(scores["val"], arrays.labels[val]),
    }


def _all_empty(
    arrays: Arrays, train: np.ndarray, val: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    return {"mask": np.zeros((len(test), *arrays.masks.shape[1:]), bool)}


def _prior_mask(
    arrays: Arrays, train: np.ndarray, val: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    """The mean training mask of each class, cut where pooled Dice on validation is best, as heads are."""
    mean = np.stack([arrays.masks[train, k].mean(0) for k in range(arrays.masks.shape[1])])
    best = np.zeros_like(mean, dtype=bool)
    for k, layer in enumerate(mean):
        top, target = -1.0, arrays.masks[val, k]
        for cut in np.linspace(0.05, 0.95, 10) * max(layer.max(), 1e-9):
            guess = layer >= cut
            size = int(guess.sum()) * len(val) + int(target.sum())
            value = 2 * int((target & guess).sum()) / size if size else top
            if value > top:
                top, best[k] = value, guess
    return {"mask": np.broadcast_to(best, (len(test), *best.shape))}


def _prior_box(
    arrays: Arrays, train: np.ndarray, val: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    """Per class the median training box of each half of the image, scored by how often it occurs."""
    boxes, labels, scores = [], [], []
    pairs = [arrays.boxes_of(int(i)) for i in train]
    flat = np.concatenate([b for b, _ in pairs]) if pairs else np.zeros((0, 4), np.float32)
    kinds = np.concatenate([k for _, k in pairs]) if pairs else np.zeros(0, np.int64)
    middle = arrays.images.shape[1] / 2
    for k in range(len(arrays.info.box_classes)):
        for half in (0, 1):
            chosen = (kinds == k) & (((flat[:, 0] + flat[:, 2]) / 2 > middle) == bool(half))
            if chosen.any():
                boxes.append(np.median(flat[chosen], axis=0))
                labels.append(k)
                scores.append(chosen.sum() / max(1, len(train)))
    count = len(boxes)
    return {
        "boxes": np.tile(np.array(boxes, np.float32).reshape(-1, 4), (len(test), 1)),
        "labels": np.tile(np.array(labels, np.int64), len(test)),
        "scores": np.tile(np.array(scores, np.float32), len(test)),
        "image_index": np.repeat(np.arange(len(test)), count),
    }


_FLOORS = {
    "constant": _constant,
    "pixel-statistics": _pixel_statistics,
    "all-empty": _all_empty,
    "prior-mask": _prior_mask,
    "prior-box": _prior_box,
}
