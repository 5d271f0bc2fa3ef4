"""Small films with one planted square: its presence, place and brightness are the truth."""

from __future__ import annotations

import numpy as np
import torch

from ecamp.api.dataset import DatasetInfo
from ecamp.api.encoder import Encoder, Features
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.task import Inputs, TaskSplit
from ecamp.bench.features import select_rows
from ecamp.data.normalise import normaliser
from ecamp.plugin.host import make_plugin
from ecamp.tasks.classification import Classification
from ecamp.tasks.detection import Detection
from ecamp.tasks.segmentation import Segmentation

VIT = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"
INFO = DatasetInfo("planted", "1", mean=(0.4,), std=(0.2,))
TASKS = {"cls": Classification, "seg": Segmentation, "det": Detection}


class Planted:
    """Images and every kind of truth.

    Half of the films hold a bright square; films 3 of 4 have bright ground. Labels: `square`,
    `ground`; as classes that exclude each other: none, square on dark, square on bright.
    """

    def __init__(self, count: int, size: int = 32, seed: int = 0) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        square, ground = rng.random(count) < 0.5, rng.random(count) < 0.75
        images = rng.integers(0, 30, (count, size, size)) + np.where(ground, 90, 20)[:, None, None]
        self.masks = np.zeros((count, 1, size, size), bool)
        side = size // 2
        corner = rng.integers(0, size - side + 1, (count, 2))
        for i in np.flatnonzero(square):
            (y, x), rows = corner[i], images[i]
            rows[y : y + side, x : x + side] += 100
            self.masks[i, 0, y : y + side, x : x + side] = True
        self.images = images.astype(np.uint8)[..., None]
        self.multilabel = np.stack([square, ground], 1).astype(np.float32)
        kind = np.where(square, 1 + ground, 0)
        self.multiclass = np.eye(3, dtype=np.float32)[kind]
        xy = corner[:, ::-1].astype(np.float32)
        self.boxes = np.concatenate([xy, xy + side], 1)[square]
        self.box_image = np.flatnonzero(square)

    def targets(self, task: str, kind: str = "multilabel") -> dict[str, np.ndarray]:
        if task == "seg":
            return {"target": self.masks, "classes": np.array(["square"])}
        if task == "det":
            return {
                "gt_boxes": self.boxes, "gt_labels": np.zeros(len(self.boxes), np.int64),
                "gt_image_index": self.box_image, "classes": np.array(["square"]),
            }  # fmt: skip
        labels = getattr(self, kind)
        names = [f"class {k}" for k in range(labels.shape[1])]
        return {"targets": labels, "classes": np.array(names), "kind": np.array(kind)}


def build(name: str, channels: int = 1) -> Encoder:
    """An encoder with the weights of seed 0, in eval mode."""
    torch.manual_seed(0)
    encoder: Encoder = make_plugin("ecamp.encoders", PluginRef.parse(name)).build(channels)
    return encoder.eval()


def features(encoder: Encoder, images: np.ndarray, batch: int = 64) -> Features:
    """CachedFeatures features, in batches."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            parts.append(encoder(normaliser(INFO)(images[start : start + batch])))
    levels = zip(*(part.pyramid for part in parts), strict=True)
    return Features(
        torch.cat([part.pooled for part in parts]), torch.cat([part.tokens for part in parts]),
        parts[0].grid, tuple(torch.cat(level) for level in levels),
    )  # fmt: skip


class Problem:
    """Train, validation and test of a planted problem, for one encoder."""

    def __init__(
        self, task: str, encoder: str = VIT, kind: str = "multilabel", size: int = 32,
        train: int = 96, batch: int = 64,
    ) -> None:  # fmt: skip
        self.task, self.encoder_name = task, encoder
        counts = {"train": train, "val": 48, "test": 96}
        self.data = {
            name: Planted(count, size, seed) for seed, (name, count) in enumerate(counts.items())
        }
        images = np.concatenate([part.images for part in self.data.values()])
        every = features(build(encoder), images, batch)
        edges = np.cumsum([0, *counts.values()])
        self.splits, self.tuned = {}, {}
        for at, (name, part) in enumerate(self.data.items()):
            frozen = select_rows(every, np.arange(edges[at], edges[at + 1]))
            targets = part.targets(task, kind)
            self.splits[name] = TaskSplit(Inputs(part.images, frozen, normaliser(INFO)), targets)
            self.tuned[name] = TaskSplit(Inputs(part.images, None, normaliser(INFO)), targets)

    def fit(self, protocol: str, seed: int = 0, **options: object):
        """A fitted predictor and its test predictions."""
        task = TASKS[self.task](TASKS[self.task].Config(**options))
        tuned = protocol in task.tunes
        splits = self.tuned if tuned else self.splits
        encoder = build(self.encoder_name) if tuned else None
        torch.manual_seed(seed)
        predictor = task.fit(encoder, splits["train"], splits["val"], protocol=protocol, seed=seed)
        return predictor, predictor.predict(splits["test"].inputs)

    def score(self, predictions: dict[str, np.ndarray]) -> float:
        """Primary metric on test."""
        task = TASKS[self.task](TASKS[self.task].Config())
        one = np.ones((1, len(self.data["test"].images)), np.float32)
        metric = task.score(predictions, self.splits["test"].targets, one)[task.primary]
        assert metric.value is not None
        return metric.value
