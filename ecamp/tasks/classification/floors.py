"""Floors of classification: class prevalence, and a linear model of grey-value statistics."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ecamp.api.task import Inputs, TaskSplit
from ecamp.metrics.classification import best_thresholds


def constant(train: TaskSplit, val: TaskSplit, test: Inputs) -> dict[str, np.ndarray]:
    """Give every image the training prevalence of each class."""
    labels = train.targets["targets"]
    known = np.isfinite(labels)
    prevalence = np.where(known, labels, 0).sum(0) / np.maximum(known.sum(0), 1)
    scores = np.tile(prevalence.astype(np.float32), (len(test), 1))
    return {"scores": scores, "thresholds": np.full(labels.shape[1], 0.5)}


def grey_value_features(images: np.ndarray) -> np.ndarray:
    """Compute features without any anatomy: a histogram, mean, standard deviation, a thumbnail.

    Args:
        images: uint8 (n, size, size, channels).

    Returns:
        float64 (n, 34): 16 bins, mean, standard deviation, 4x4 pixels.
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


def pixel_statistics(train: TaskSplit, val: TaskSplit, test: Inputs) -> dict[str, np.ndarray]:
    """Fit one logistic regression per class on `grey_value_features`."""
    labels = train.targets["targets"]
    scaler = StandardScaler().fit(grey_value_features(train.inputs.images))
    features = {
        name: scaler.transform(grey_value_features(inputs.images))
        for name, inputs in (("train", train.inputs), ("val", val.inputs), ("test", test))
    }
    classes = labels.shape[1]
    scores = {name: np.zeros((len(rows), classes), np.float32) for name, rows in features.items()}
    for k in range(classes):
        truth = labels[:, k]
        known = np.isfinite(truth)
        if len(np.unique(truth[known])) < 2:
            continue
        model = LogisticRegression(C=1.0, max_iter=500).fit(
            features["train"][known], truth[known] > 0.5
        )
        for name in scores:
            scores[name][:, k] = model.predict_proba(features[name])[:, 1]
    return {
        "scores": scores["test"],
        "thresholds": best_thresholds(scores["val"], val.targets["targets"]),
    }
