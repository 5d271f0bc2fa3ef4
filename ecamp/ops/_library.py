"""One torch library for all our ops: `torch.ops.ecamp.<name>`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("ecamp", "DEF")
OPS: list[str] = []  # names of all ops defined so far


def define(schema: str, reference: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define an op with its reference, which every device uses that has no native kernel.

    Args:
        schema: "name(Tensor x, ...) -> Tensor", as for `torch.library.Library.define`.
        reference: Plain torch or numpy; what every kernel must equal.
        fake: Shapes and dtypes of the outputs, without data, for `torch.compile`.
    """
    name = schema.split("(", 1)[0]
    OPS.append(name)
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"ecamp::{name}", fake, lib=_library)


def autocast_dtype(tensor: torch.Tensor) -> torch.dtype | None:
    """Return the type of matrix products on this tensor's device now; None without autocast.

    float64 is never cast; the meta device has no autocast.
    """
    device = tensor.device.type
    # "meta" by name: torch.compile cannot trace torch.amp.is_autocast_available.
    if tensor.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
