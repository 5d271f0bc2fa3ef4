"""ECAMP with other defaults, by name: MRM's recipe, and the ablations.

An ablation changes one thing of `ecamp`. Each is a plugin like any other, so that
`--pretext none,ecamp,ecamp-no-rebalance` works and the table names what was changed.
"""

from __future__ import annotations

import copy
from typing import Any

from pydantic import create_model

from ecamp.pretext.ecamp import ECAMP
from ecamp.pretext.ecamp.config import ECAMPConfig


def _defaults(name: str, **changed: Any) -> type[ECAMPConfig]:
    """Derive ECAMPConfig with other defaults; validated, so that a preset cannot be impossible."""
    config = ECAMPConfig(**changed)
    fields: dict[str, Any] = {}
    for key in changed:
        info = copy.copy(ECAMPConfig.model_fields[key])
        info.default, info.default_factory = getattr(config, key), None
        fields[key] = (info.annotation, info)
    return create_model(name, __base__=ECAMPConfig, **fields)


class MRMLike(ECAMP):
    """MRM's recipe: image context through the global token only, half of all words masked."""

    summary = "MRM-like: half of all words masked, global token only, whole image refined"
    citation = "after Zhou et al., Advancing Radiograph Representation Learning (MRM), ICLR 2023"
    Config = _defaults(
        "MRMLike", masking="mrm", rebalance=False, fusion="global", window="random",
        window_size=1.0, distilled_text=False,
    )  # fmt: skip


class UniformMasking(ECAMP):
    """Ablation: every word is masked with one probability."""

    summary = "ablation: every word masked with 0.75, no entities, no descriptors"
    Config = _defaults("UniformMasking", masking="uniform")


class NoRebalance(ECAMP):
    """Ablation: all masked words have the same weight."""

    summary = "ablation: negation templates weigh as much as the entities they negate"
    Config = _defaults("NoRebalance", rebalance=False)


class GlobalFusion(ECAMP):
    """Ablation: coarse image context only."""

    summary = "ablation: text meets the image's mean token only"
    Config = _defaults("GlobalFusion", fusion="global", window="random")


class FineFusion(ECAMP):
    """Ablation: fine image context only."""

    summary = "ablation: text meets the image's patch tokens only, not their mean"
    Config = _defaults("FineFusion", fusion="fine")


class NoText(ECAMP):
    """Ablation: masked images and super-resolution, no text loss."""

    summary = "ablation: no text loss"
    Config = _defaults("NoText", weight_mlm=0.0, window="random")


class NoSuperResolution(ECAMP):
    """Ablation: masked images and text, no super-resolution."""

    summary = "ablation: no super-resolution"
    Config = _defaults("NoSuperResolution", super_resolution=False)


class RandomWindow(ECAMP):
    """Ablation: super-resolution in a random window."""

    summary = "ablation: super-resolution in a random window"
    Config = _defaults("RandomWindow", window="random")


class SmallWindow(ECAMP):
    """Ablation: super-resolution of a quarter of the image."""

    summary = "ablation: window of half the image side, so that its position matters"
    Config = _defaults("SmallWindow", window_size=0.5)


class LossOnAll(ECAMP):
    """Ablation: the text loss counts visible words too."""

    summary = "ablation: text loss over all real tokens, not over masked ones"
    Config = _defaults("LossOnAll", loss_on="all")
