"""Image classification, multi-label and multi-class; each protocol is a file of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from ecamp.data.arrays import Arrays
from ecamp.encoders.base import DualEncoder, Encoder
from ecamp.metrics.classification import score_classification
from ecamp.metrics.stats import Metric
from ecamp.plugin.protocols import TaskPlugin
from ecamp.tasks.base import TaskSplit
from ecamp.tasks.class_scores import ScorePredictor
from ecamp.tasks.finetune import fit_tuned
from ecamp.tasks.linear_probe import fit_linear
from ecamp.tasks.linear_sgd import fit_sgd
from ecamp.tasks.neighbours import fit_neighbours
from ecamp.tasks.published_finetune import fit_published
from ecamp.tasks.zero_shot import Prompts, fit_zero_shot
from ecamp.train.heads import HeadRecipe


class Classification(TaskPlugin):
    """One score a class and image."""

    summary = "image labels: linear probe, k-NN, fine-tuning, the published recipes, zero-shot"
    licence = "Apache-2.0"
    citation = (
        "EVALUATION protocols `linear`, `knn`, `linear-sgd`, `finetune`, `published`, `zero-shot`"
    )
    needs = "labels"
    primary = "auroc"
    protocols = ("linear", "knn", "linear-sgd", "finetune", "published", "zero-shot")
    tunes = frozenset({"finetune", "published"})
    requires = {"zero-shot": "text"}  # noqa: RUF012 - as the base class has it
    reads = frozenset({"pooled"})

    class Config(HeadRecipe):
        """Recipe of `finetune` and `published`; `linear` and `knn` have no free setting."""

        encoder_lr_scale: float = Field(
            default=0.3, gt=0, description="encoder's rate / head's rate"
        )
        sgd_steps: int = Field(default=1000, ge=1, description="steps of `linear-sgd`")
        prompts: Prompts = Field(default=Prompts(), description="sentences of `zero-shot`")

    def targets(self, split: Arrays) -> dict[str, np.ndarray]:
        return {
            "targets": split.labels,
            "classes": np.array(split.info.labels),
            "kind": np.array(split.info.label_kind),
        }

    def fit(
        self,
        encoder: Encoder | None,
        train: TaskSplit,
        val: TaskSplit,
        *,
        protocol: str,
        seed: int,
    ) -> ScorePredictor:
        if protocol == "linear":
            return fit_linear(train, val)
        if protocol == "knn":
            return fit_neighbours(train, val)
        if protocol == "linear-sgd":
            return fit_sgd(train, val, self.config.sgd_steps, seed)
        assert encoder is not None
        if protocol == "zero-shot":
            assert isinstance(encoder, DualEncoder)
            return fit_zero_shot(encoder, val, self.config.prompts)
        if protocol == "published":
            return fit_published(encoder, train, val, self.config, seed)
        return fit_tuned(encoder, train, val, self.config, seed)

    def score(
        self,
        predictions: dict[str, np.ndarray],
        targets: dict[str, np.ndarray],
        replicates: Any,
    ) -> dict[str, Metric]:
        return score_classification(
            predictions["scores"],
            targets["targets"],
            replicates,
            classes=[str(name) for name in targets["classes"]],
            kind=str(targets["kind"]),
            thresholds=predictions["thresholds"],
        )
