"""Protocol `zero-shot` of classification: an image is compared with sentences that name the classes.

Each class is the mean direction of several sentences (prompt ensemble, Radford et al., CLIP, 2021).
Labels that exclude each other compete in a softmax; an independent label competes with its own
denial (Tiu et al., CheXzero, 2022). No label decides a score; F1 and accuracy use thresholds from
validation, as for every protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from ecamp.encoders.base import DualEncoder
from ecamp.errors import UsageError, did_you_mean
from ecamp.plugin.protocols import PluginConfig
from ecamp.tasks.base import Inputs, TaskSplit
from ecamp.tasks.class_scores import ScorePredictor, choose, is_softmax


class Prompts(PluginConfig):
    """Sentences; `{}` stands for a name of the class."""

    positive: tuple[str, ...] = Field(
        default=("{}", "There is {}.", "Findings of {}.", "Image showing {}."),
        min_length=1, description="that affirm a class",
    )  # fmt: skip
    negative: tuple[str, ...] = Field(
        default=("no {}", "There is no {}.", "No evidence of {}.", "Image without {}."),
        min_length=1, description="that deny it; for labels that do not exclude each other",
    )  # fmt: skip
    names: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="class -> names to use; by default its own, in words"
    )

    @field_validator("positive", "negative")
    @classmethod
    def _has_place(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if template.count("{}") != 1:
                raise ValueError(f"'{template}' must hold {{}} once")
        return value

    def of(self, name: str, templates: tuple[str, ...]) -> list[str]:
        """All sentences of a class."""
        own = " ".join(name.replace("_", " ").split()).lower()
        return [t.replace("{}", n) for n in self.names.get(name, (own,)) for t in templates]


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
        likeness = images @ self.positive.T
        if self.negative is None:
            return (scale * likeness).softmax(1).numpy()
        return (scale * (likeness - images @ self.negative.T)).sigmoid().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        negative = {} if self.negative is None else {"negative": self.negative}
        return {"positive": self.positive, **negative}


def fit_zero_shot(encoder: DualEncoder, val: TaskSplit, prompts: Prompts) -> ZeroShotPredictor:
    """Embed the sentences of all classes; nothing is trained.

    Raises:
        UsageError: `names` holds a class that the data set has not.
    """
    classes = [str(name) for name in val.targets["classes"]]
    for name in prompts.names:
        if name not in classes:
            raise UsageError(
                f"task_options.cls.prompts.names: no class '{name}'.", did_you_mean(name, classes)
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
    choice = choose([({}, predictor.scores(val.inputs))], val.targets["targets"])
    predictor.thresholds, predictor.selected = choice.thresholds, choice.selected
    return predictor
