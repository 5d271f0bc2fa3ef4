"""Protocol `zero-shot` of classification: an image is compared with sentences that name the classes.

Each class is the mean direction of several sentences (prompt ensemble, Radford et al., CLIP, 2021).
Labels that exclude each other compete in a softmax; an independent label competes with its own
denial (Tiu et al., CheXzero, 2022). Scores use no label; F1 and accuracy use thresholds from
validation, as for every protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.api.encoder import DualEncoder
from ecamp.api.task import Inputs, TaskSplit
from ecamp.errors import UsageError, did_you_mean
from ecamp.tasks.classification.prompts import Prompts
from ecamp.tasks.classification.selection import ScorePredictor, is_softmax, select_best


@dataclass
class ZeroShotPredictor(ScorePredictor):
    """Directions of the classes in the space that images and texts share.

    Attributes:
        positive, negative: float32 (classes, width) of length 1; no negative under softmax.
    """

    encoder: DualEncoder
    positive: Tensor
    negative: Tensor | None

    def scores(self, inputs: Inputs) -> np.ndarray:
        if inputs.features is None:
            raise RuntimeError("zero-shot without cached features")
        with torch.no_grad():
            images = F.normalize(self.encoder.embed_image(inputs.features), dim=1)
        scale = self.encoder.logit_scale
        similarity = images @ self.positive.T
        if self.negative is None:
            return (scale * similarity).softmax(1).numpy()
        return (scale * (similarity - images @ self.negative.T)).sigmoid().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        negative = {} if self.negative is None else {"negative": self.negative}
        return {"positive": self.positive, **negative}


def fit_zero_shot(encoder: DualEncoder, val: TaskSplit, prompts: Prompts) -> ZeroShotPredictor:
    """Embed the sentences of all classes; nothing is trained.

    Raises:
        UsageError: `names` contains a class that the data set does not have.
    """
    classes = [str(name) for name in val.targets["classes"]]
    for name in prompts.names:
        if name not in classes:
            raise UsageError(
                f"task_options.cls.prompts.names: unknown class '{name}'.",
                did_you_mean(name, classes),
            )

    def directions(templates: tuple[str, ...]) -> Tensor:
        means = [
            F.normalize(encoder.embed_text(prompts.of(name, templates)), dim=1).mean(0)
            for name in classes
        ]
        return F.normalize(torch.stack(means), dim=1)

    with torch.no_grad():
        positive = directions(prompts.positive)
        negative = None if is_softmax(val) else directions(prompts.negative)
    predictor = ZeroShotPredictor(np.zeros(0), {}, encoder, positive, negative)
    choice = select_best([({}, predictor.scores(val.inputs))], val.targets["targets"])
    predictor.thresholds, predictor.selected = choice.thresholds, choice.selected
    return predictor
