"""Our float64 and float32 results against whatever was recorded of a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.golden.check import (
    FLOAT32,
    FLOAT32_GRADIENT,
    FLOAT64,
    ROUNDED,
    Check,
    Vectors,
    compare,
)

KINDS = {"f64": FLOAT64, "f64r": ROUNDED}


def recorded(vectors: Vectors, group: str, name: str) -> list[str]:
    """Full names under which a value was recorded: as float64, rounded float64, float32."""
    names = [f"{group}{kind}/{name}" for kind in ("f64", "f64r", "f32")]
    return [full for full in names if full in vectors]


def against(
    vectors: Vectors,
    group: str,
    name: str,
    double: Any,
    single: Any,
    *,
    gradient: bool = False,
    floor: float = 0.0,
) -> Iterator[Check]:
    """Compare one value with each of its recordings.

    Args:
        group: Part before `f64/` of the vector's name, slash included; may be empty.
        double: Our value from the float64 run.
        single: Our value from the float32 run; compared with the float32 recording, or with the
            float64 one where there is no other. None skips it.
    """
    full_names = recorded(vectors, group, name)
    if not full_names:
        yield Check(f"{vectors.path.name}/{group}*/{name}", float("nan"), 0.0, "not recorded")
        return
    bound = FLOAT32_GRADIENT if gradient else FLOAT32
    for full in full_names:
        label = f"{vectors.path.name}/{full}"
        kind = full.removeprefix(group).split("/")[0]
        if kind in KINDS:
            yield compare(label, double, vectors[full], KINDS[kind], floor=floor)
        elif single is not None:
            yield compare(label, single, vectors[full], bound, floor=floor)
        else:
            yield compare(label, double, vectors[full], bound, floor=floor)
    if single is not None and not full_names[-1].startswith(f"{group}f32/"):
        label = f"{vectors.path.name}/{full_names[0]} (our float32)"
        yield compare(label, single, vectors[full_names[0]], bound, floor=floor)


def gradient_floor(name: str, gradients: Mapping[str, Any]) -> float:
    """Scale for what is zero in exact arithmetic, an attention key bias's gradient: its matrix's.

    Args:
        gradients: Gradients, or their norms, by name.
    """
    if not name.endswith("key.bias"):
        return 0.0
    matrix = gradients.get(name.removesuffix("bias") + "weight")
    return 0.0 if matrix is None else float(np.abs(np.asarray(matrix)).max())


class Outputs:
    """Collects what named submodules return during a run.

    Args:
        modules: Module by the name that its output is kept under.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.values: dict[str, Tensor] = {}
        self._handles = [
            module.register_forward_hook(self._keep(name)) for name, module in modules.items()
        ]

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            self.values[name] = value.detach()

        return hook

    def __enter__(self) -> dict[str, Tensor]:
        return self.values

    def __exit__(self, *details: object) -> None:
        for handle in self._handles:
            handle.remove()


def leaf(vectors: Vectors, name: str, dtype: torch.dtype) -> Tensor:
    """A recorded input that takes a gradient."""
    return vectors.tensor(name, dtype).requires_grad_()
