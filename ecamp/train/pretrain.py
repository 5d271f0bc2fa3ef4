"""Pre-training: one deterministic loop with checkpoints, exact resume and a metrics file.

Step s of seed n draws all its random numbers from (n, s), so that a run which is killed and
resumed from a checkpoint gives the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

from ecamp.config import identity
from ecamp.data.arrays import Arrays
from ecamp.data.normalise import normaliser
from ecamp.data.store import append_line, atomic_path, write_json
from ecamp.errors import CorruptFileError, EcampError
from ecamp.plugin.protocols import PluginConfig
from ecamp.pretext.base import Objective, PretextBatch
from ecamp.pretext.images import crop_and_flip
from ecamp.train.memory import keep_heap
from ecamp.train.optim import adamw, set_lr
from ecamp.train.schedule import warmup_cosine


def native_precision() -> str:
    """`bf16` where the processor multiplies it in hardware, else `fp32`.

    Without AVX-512 BF16 or AMX a bf16 matrix product runs up to 100 times slower than fp32. The
    answer is part of a pre-training's identity, so weights of the two kinds never mix.
    """
    has = torch.cpu.get_capabilities()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"


class PretrainRecipe(PluginConfig):
    """Optimisation of a pre-training."""

    steps: int = Field(default=360, ge=1, description="optimiser steps")
    batch_size: int = Field(default=64, ge=1, description="pairs a step")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of steps with rising rate")
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW weight decay")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    crop: float = Field(
        default=0.6, gt=0, le=1, description="smallest share of area kept by a crop"
    )
    flip: bool = Field(default=False, description="mirror at random; off, reports name sides")
    precision: str = Field(
        default_factory=native_precision,
        pattern="^(fp32|bf16)$",
        description="autocast type; bf16 where the processor has it, else fp32",
    )
    scale: int = Field(default=2, ge=1, le=4, description="stored image side / encoder input side")
    seed: int = Field(default=0, ge=0, description="decides weights, crops, masks and order")
    checkpoint_seconds: float = Field(
        default=20.0, gt=0, description="time between checkpoints; does not touch the result"
    )

    def decisive(self) -> dict[str, object]:
        """The fields that decide the weights."""
        return self.model_dump(exclude={"checkpoint_seconds"})


@dataclass(frozen=True)
class Source:
    """Images to pre-train on.

    Attributes:
        arrays: Decoded at `scale` times the encoder's input side.
        rows: Which of them.
    """

    arrays: Arrays
    rows: np.ndarray


def batch_rows(count: int, size: int, step: int, seed: int) -> np.ndarray:
    """Rows of one step: epochs are permutations, each a function of (seed, epoch).

    Batches run across epoch borders, so no sample is dropped.
    """
    first = step * size
    picked: list[int] = []
    while len(picked) < size:
        epoch, offset = divmod(first + len(picked), count)
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
        picked.extend(order[offset : offset + size - len(picked)].tolist())
    return np.array(picked, np.int64)


def make_batch(source: Source, recipe: PretrainRecipe, step: int) -> PretextBatch:
    """Crop and normalise one step's images."""
    at = batch_rows(len(source.rows), recipe.batch_size, step, recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    rows = source.rows[at]
    order = np.argsort(rows, kind="stable")
    raw = np.empty((len(rows), *source.arrays.images.shape[1:]), np.uint8)
    raw[order] = source.arrays.images[rows[order]]
    large = normaliser(source.arrays.info)(raw)
    size = large.shape[-1]
    crop, flip = draw_crops(len(rows), recipe, generator)
    large = crop_and_flip(large, crop, flip, size)
    small = nn.functional.avg_pool2d(large, recipe.scale) if recipe.scale > 1 else large
    return PretextBatch(
        small, large, torch.from_numpy(at), crop, flip, generator, step, recipe.seed
    )


def draw_crops(
    count: int, recipe: PretrainRecipe, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random resized crops: area uniform, aspect 3/4 .. 4/3 in log, position uniform."""
    area = recipe.crop + (1 - recipe.crop) * torch.rand(count, generator=generator)
    ratio = ((torch.rand(count, generator=generator) * 2 - 1) * math.log(4 / 3)).exp()
    width = (area * ratio).sqrt().clamp(max=1)
    height = (area / ratio).sqrt().clamp(max=1)
    x0 = torch.rand(count, generator=generator) * (1 - width)
    y0 = torch.rand(count, generator=generator) * (1 - height)
    flip = (torch.rand(count, generator=generator) < 0.5) & recipe.flip
    return torch.stack([x0, y0, x0 + width, y0 + height], 1), flip


def pretrain(
    objective: Objective,
    source: Source,
    recipe: PretrainRecipe,
    folder: Path,
    key: str,
    log: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train to the end, resuming from `folder` when a checkpoint of the same identity is there.

    Args:
        objective: Freshly built under the recipe's seed.
        folder: Gets `checkpoint.pt`, `metrics.jsonl`, `weights.safetensors`, `pretrain.json`.
        key: Identity of this pre-training; a checkpoint of another identity is refused.
        log: Called after each step.
        say: Gets a line when something needs one.

    Returns:
        The file with the encoder's weights.

    Raises:
        EcampError: When the loss is not finite; names the samples.
    """
    keep_heap()
    folder.mkdir(parents=True, exist_ok=True)
    weights, info = folder / "weights.safetensors", folder / "pretrain.json"
    if weights.exists() and info.exists():
        return weights
    optimizer = adamw(objective, lr=recipe.lr, weight_decay=recipe.weight_decay)
    start = _resume(objective, optimizer, folder, key, say)
    _trim_metrics(folder / "metrics.jsonl", start)
    objective.train()
    saved = time.monotonic()
    began, losses = saved, {}
    for step in range(start, recipe.steps):
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout
        batch = make_batch(source, recipe, step)
        set_lr(
            optimizer,
            recipe.lr
            * warmup_cosine(step, recipe.steps, max(1, int(recipe.warmup * recipe.steps))),
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            values = objective(batch)
        losses = {name: float(value.detach()) for name, value in values.items()}
        if not all(map(math.isfinite, losses.values())):
            ids = [source.arrays.ids[source.rows[i]] for i in batch.index[:8].tolist()]
            raise EcampError(
                f"pre-training: losses {losses} at step {step}; samples {', '.join(ids)} ...",
                f"The last good checkpoint stays in {folder}. Lower the learning rate or look at "
                "those samples.",
            )
        optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        nn.utils.clip_grad_norm_(objective.parameters(), recipe.clip)
        optimizer.step()
        append_metrics = step % 10 == 0 or step + 1 == recipe.steps
        if append_metrics:
            append_line(folder / "metrics.jsonl", {"step": step, **losses})
        log(step, losses)
        if time.monotonic() - saved > recipe.checkpoint_seconds and step + 1 < recipe.steps:
            _save(objective, optimizer, folder, key, step + 1)
            saved = time.monotonic()
    extra = objective.state_extra()
    state = {name: value.contiguous() for name, value in objective.encoder.state_dict().items()}
    with atomic_path(weights) as temporary:
        save_file(state, temporary)
    write_json(
        info,
        {"key": key, "steps": recipe.steps, "recipe": recipe.decisive(), "last": losses, **extra},
    )
    write_json(folder / "time.json", {"seconds": time.monotonic() - began, "from_step": start})
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return weights


def _save(
    objective: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, key: str, step: int
) -> None:
    with atomic_path(folder / "checkpoint.pt") as temporary:
        torch.save(
            {
                "key": key,
                "step": step,
                "objective": objective.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            temporary,
        )


def _resume(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    key: str,
    say: Callable[[str], None],
) -> int:
    """Load the checkpoint if it is whole and ours; a damaged one is set aside and training restarts."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        if state["key"] != key:
            raise EcampError(f"{path}: belongs to another pre-training.", "Remove that folder.")
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    except EcampError:
        raise
    except Exception:  # a torn zip, a wrong pickle: whatever it is, it can be trained again
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        say(f"{path}: damaged; kept as {aside.name}, training starts again")
        return 0


def _trim_metrics(path: Path, start: int) -> None:
    """Drop lines of steps that will run again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] < start:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Load encoder weights.

    Raises:
        CorruptFileError: When the file is damaged or does not fit; names it.
    """
    try:
        encoder.load_state_dict(load_file(path))
    except Exception as error:
        raise CorruptFileError(
            f"{path}: cannot be loaded: {error}", "Delete its folder; it is trained again."
        ) from error


def pretrain_key(parts: dict[str, object], recipe: PretrainRecipe) -> str:
    """Identity of a pre-training: all that decides its weights."""
    return identity({"pretrain": 1, "recipe": recipe.decisive(), **parts})
