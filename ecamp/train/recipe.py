"""Optimisation recipe of a pre-training: one model, read from options or from a named preset."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from ecamp.api.plugin import PluginConfig
from ecamp.config import load_recipe
from ecamp.errors import UsageError, did_you_mean


def native_precision() -> str:
    """Return `bf16` where the processor multiplies it in hardware, else `fp32`.

    Without AVX-512 BF16 or AMX a bf16 matrix product runs up to 100 times slower than fp32. The
    answer is part of a pre-training's identity, so weights of the two kinds never mix
    (docs/decisions.md#precision-is-part-of-the-identity).
    """
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


class PretrainRecipe(PluginConfig):
    """Optimisation of a pre-training."""

    steps: int = Field(default=360, ge=1, description="optimiser steps")
    epochs: float | None = Field(
        default=None, gt=0, description="length in passes over the data, instead of steps"
    )
    batch_size: int = Field(default=64, ge=1, description="pairs per optimiser step")
    accumulate: int = Field(
        default=1, ge=1, description="parts of a step's batch that pass the model one by one"
    )
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="fraction of steps with rising learning rate"
    )
    cosine_length: float = Field(
        default=1.0, ge=1, description="length of the cosine schedule / length of training"
    )
    beta2: float = Field(default=0.95, gt=0, lt=1, description="AdamW second-moment decay")
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW weight decay")
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="learning rate of an encoder layer / of the layer above",
    )
    clip: float | None = Field(
        default=1.0, gt=0, description="largest gradient norm; null: no clipping"
    )
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of averaged encoder weights; 0: no averaging"
    )
    crop: float | None = Field(
        default=0.6,
        gt=0,
        le=1,
        description="smallest fraction of the area kept by a crop; null: whole images",
    )
    flip: bool = Field(
        default=False, description="mirror at random; off by default, because reports name sides"
    )
    precision: str = Field(
        default_factory=native_precision,
        pattern="^(fp32|bf16|fp16)$",
        description="autocast type; bf16 where the processor has it, else fp32",
    )
    scale: int = Field(default=2, ge=1, le=4, description="stored image side / encoder input side")
    seed: int = Field(default=0, ge=0, description="determines weights, crops, masks and order")
    checkpoint_seconds: float = Field(
        default=20.0, gt=0, description="time between checkpoints; does not affect the result"
    )

    def identity_fields(self) -> dict[str, object]:
        """Return the fields that determine the weights."""
        return self.model_dump(exclude={"checkpoint_seconds"})

    def total_steps(self, count: int) -> int:
        """Return the optimiser steps of the whole training on `count` pairs."""
        if self.epochs is None:
            return self.steps
        return max(1, math.ceil(self.epochs * count / self.batch_size))


def load_preset(name: str) -> dict[str, Any]:
    """Read a shipped recipe by name, or a user's YAML file by path.

    Raises:
        UsageError: No such preset; names the nearest one.
        MissingError: No such file.
    """
    if name.endswith((".yaml", ".yml")):
        return load_recipe(Path(name))
    folder = resources.files("ecamp.train") / "presets"
    known = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if ".yaml" in f.name)
    if name not in known:
        raise UsageError(f"Unknown recipe '{name}'.", did_you_mean(name, known))
    return load_recipe(Path(str(folder / f"{name}.yaml")))
