"""Same bits for the same numbers of threads: torch's deterministic algorithms, within a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Let torch choose algorithms whose result does not depend on which thread comes first.

    The gradient of `x[index]` with repeated indices, for one, is added up by several threads in the
    order in which they arrive (docs/decisions.md#indices-add-up-in-one-order). Operations that have no
    such algorithm warn.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new tensors would cost time, and hide a read of memory that was never written.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
