"""AdamW parameter groups: no decay on biases, norms, tokens and position tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def parameter_groups(
    module: nn.Module, *, lr: float, weight_decay: float, scale: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Group the trainable parameters by weight decay and learning-rate factor.

    Args:
        scale: Learning-rate factor by prefix of the parameter's name (`{"encoder.": 0.1}`); the
            longest matching prefix applies; without a match the factor is 1.

    Returns:
        Groups with `params`, `weight_decay`, `lr` and their factor as `lr_scale`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    prefixes = sorted(scale or {}, key=len, reverse=True)
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        no_decay = parameter.ndim < 2 or any(key in name for key in ("cls_token", "pos_embed"))
        factor = next(((scale or {})[p] for p in prefixes if name.startswith(p)), 1.0)
        groups.setdefault((0.0 if no_decay else weight_decay, factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": factor, "lr": lr * factor}
        for (decay, factor), parameters in groups.items()
    ]


def adamw(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
    scale: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """Make AdamW over the trainable parameters; arguments as `parameter_groups`."""
    groups = parameter_groups(module, lr=lr, weight_decay=weight_decay, scale=scale)
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def layer_scales(encoder: nn.Module, decay: float, prefix: str) -> dict[str, float]:
    """Compute learning-rate factors that fall from the last layer to the first (BEiT, Bao et al. 2022).

    Args:
        encoder: Names its layers, first to last, as groups of parameter-name prefixes (`layers()`);
            parameters outside them (a final norm) keep the full rate.
        decay: Rate of a layer over the rate of the layer above; 1 gives no factors.
        prefix: Path of the encoder in the module that is optimised (`encoder.`).
    """
    layers: list[tuple[str, ...]] = getattr(encoder, "layers", list)()
    if decay == 1.0:
        return {}
    return {
        prefix + name: decay ** (len(layers) - depth)
        for depth, names in enumerate(layers)
        for name in names
    }


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
