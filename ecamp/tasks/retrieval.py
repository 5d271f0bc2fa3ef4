"""Retrieval of the report of an image, and of the image of a report. Nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecamp.api.encoder import DualEncoder, Encoder
from ecamp.api.task import Inputs, TaskPlugin, TaskSplit, distinct_texts
from ecamp.data.arrays import Arrays
from ecamp.metrics.retrieval import score_retrieval
from ecamp.metrics.stats import Metric

BATCH = 64  # texts embedded at once


class Retrieval(TaskPlugin):
    """Task with embeddings of images and of the split's distinct reports; the pairing is the truth."""

    summary = "image <-> report retrieval by an encoder with a text side"
    licence = "Apache-2.0"
    citation = "Zhang et al., ConVIRT, MLHC 2022, arXiv 2010.00747 (retrieval); docs/evaluation.md"
    needs = "report"
    text_inputs = "report"
    primary = "mean_recall"
    protocols = ("zero-shot",)
    requires = {"zero-shot": "text"}  # noqa: RUF012 - as the base class has it
    reads = frozenset({"pooled"})

    def targets(self, split: Arrays) -> dict[str, np.ndarray]:
        return {"text_of_image": distinct_texts(split.reports)[1]}

    def fit(
        self,
        encoder: Encoder | None,
        train: TaskSplit,
        val: TaskSplit,
        *,
        protocol: str,
        seed: int,
    ) -> RetrievalPredictor:
        assert isinstance(encoder, DualEncoder)
        return RetrievalPredictor(encoder)

    def score(
        self,
        predictions: dict[str, np.ndarray],
        targets: dict[str, np.ndarray],
        replicates: Any,
    ) -> dict[str, Metric]:
        return score_retrieval(
            predictions["image_embeddings"],
            predictions["text_embeddings"],
            targets["text_of_image"],
            replicates,
        )


@dataclass
class RetrievalPredictor:
    """Predictor of embeddings by the encoder's image and text sides."""

    encoder: DualEncoder
    selected: dict[str, object] = field(default_factory=dict)

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        if inputs.features is None:
            raise RuntimeError("retrieval without cached features")
        starts = range(0, len(inputs.texts), BATCH)
        with torch.no_grad():
            texts = [
                self.encoder.embed_text(inputs.texts[start : start + BATCH]) for start in starts
            ]
            images = self.encoder.embed_image(inputs.features)
        return {
            "image_embeddings": images.float().numpy(),
            "text_embeddings": torch.cat(texts).float().numpy(),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {}
