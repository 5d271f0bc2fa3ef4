"""Image classification, multi-label and multi-class. One file per protocol; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from ecamp.api.task import Floor, TaskPlugin, TaskSplit
from ecamp.metrics.classification import score_classification
from ecamp.metrics.stats import Metric
from ecamp.tasks.classification.floors import constant, pixel_statistics
from ecamp.tasks.classification.prompts import Prompts
from ecamp.train.head_recipe import HeadRecipe

if TYPE_CHECKING:
    from ecamp.api.encoder import Encoder
    from ecamp.data.arrays import Arrays
    from ecamp.tasks.classification.selection import ScorePredictor


class ClassificationConfig(HeadRecipe):
    """Options of `finetune` and `published`; `linear` and `knn` have no free setting."""

    encoder_lr_scale: float = Field(
        default=0.3, gt=0, description="learning rate of the encoder / of the head"
    )
    sgd_steps: int = Field(default=1000, ge=1, description="steps of `linear-sgd`")
    prompts: Prompts = Field(default=Prompts(), description="sentences of `zero-shot`")


class Classification(TaskPlugin[ClassificationConfig]):
    """Task with one score per class and image."""

    summary = "image labels: linear probe, k-NN, fine-tuning, the published recipes, zero-shot"
    licence = "Apache-2.0"
    citation = (
        "Caron et al., DINO, ICCV 2021 (k-NN); Kumar et al., ICLR 2022 (fine-tuning from a probe); "
        "Tiu et al., CheXzero, 2022 (zero-shot); docs/evaluation.md"
    )
    needs = "labels"
    primary = "auroc"
    protocols = ("linear", "knn", "linear-sgd", "finetune", "published", "zero-shot")
    tunes = frozenset({"finetune", "published"})
    requires = {"zero-shot": "text"}  # noqa: RUF012 - as the base class has it
    reads = frozenset({"pooled"})

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
            from ecamp.tasks.classification.linear_probe import fit_linear

            return fit_linear(train, val)
        if protocol == "knn":
            from ecamp.tasks.classification.knn import fit_knn

            return fit_knn(train, val)
        if protocol == "linear-sgd":
            from ecamp.tasks.classification.linear_sgd import fit_sgd

            return fit_sgd(train, val, self.config.sgd_steps, seed)
        assert encoder is not None
        if protocol == "zero-shot":
            from ecamp.api.encoder import DualEncoder
            from ecamp.tasks.classification.zero_shot import fit_zero_shot

            assert isinstance(encoder, DualEncoder)
            return fit_zero_shot(encoder, val, self.config.prompts)
        if protocol == "published":
            from ecamp.tasks.classification.published import fit_published

            return fit_published(encoder, train, val, self.config, seed)
        from ecamp.tasks.classification.finetune import fit_finetuned

        return fit_finetuned(encoder, train, val, self.config, seed)

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

    def floors(self) -> Mapping[str, Floor]:
        return {"constant": constant, "pixel-statistics": pixel_statistics}
