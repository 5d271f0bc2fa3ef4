"""Parts of a golden check: vectors that record which of them were read, and one comparison."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ecamp.errors import DataError

# Largest difference over the largest value of the recorded tensor, by the kind of the vector. The
# float32 bounds are those that the golden README suggests.
EXACT = 0.0
FLOAT64 = 1e-9
ROUNDED = 1.2e-7  # a float64 result stored as float32
FLOAT32 = 1e-5
FLOAT32_GRADIENT = 5e-5

DAMAGED = "Copy the folder of golden vectors again, whole."


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: `file/vector`, as the user looks it up.
        error: Largest absolute difference over the largest recorded value; NaN when shapes differ.
        tolerance: Largest error allowed; 0 means equal to the bit.
        note: Explanation for a reader of a failure.
    """

    name: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within tolerance (a NaN never is)."""
        return self.error <= self.tolerance

    def line(self) -> str:
        """One line: verdict, name, error, tolerance."""
        verdict = "pass" if self.passed else "FAIL"
        note = f"  {self.note}" if self.note else ""
        return (
            f"{verdict}  {self.name}  error {self.error:.3g}  tolerance {self.tolerance:.3g}{note}"
        )


def as_array(value: Any) -> np.ndarray:
    """A tensor, array or number as a numpy array."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def compare(name: str, got: Any, expected: Any, tolerance: float, *, floor: float = 0.0) -> Check:
    """Compare our value with the recorded one.

    Args:
        floor: Smallest scale to divide by, for vectors that are zero in exact arithmetic (the
            gradient of an attention key bias).
    """
    ours, theirs = as_array(got), as_array(expected)
    if ours.shape != theirs.shape:
        return Check(name, float("nan"), tolerance, f"shape {ours.shape}, recorded {theirs.shape}")
    if theirs.size == 0:
        return Check(name, 0.0, tolerance)
    if theirs.dtype.kind in "biuUS":
        wrong = int((ours != theirs).sum())
        return Check(name, wrong / theirs.size, tolerance, f"{wrong} differ" if wrong else "")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    difference = np.where(same, 0.0, np.abs(ours - theirs))
    finite = theirs[np.isfinite(theirs)]
    scale = max(float(np.abs(finite).max()) if finite.size else 0.0, floor)
    worst = float(difference.max())
    return Check(name, worst / scale if scale else worst, tolerance)


class Vectors:
    """The arrays of one .npz or .safetensors file; remembers which were read.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        try:
            if path.suffix == ".npz":
                with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                    self._arrays = {name: file[name] for name in file.files}
            else:
                with safe_open(path, "numpy") as file:
                    self.metadata = dict(file.metadata() or {})
                    names = file.keys()
                    self._arrays = {name: file.get_tensor(name) for name in names}
        except (OSError, ValueError, EOFError, BadZipFile, SafetensorError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read: {error}.", DAMAGED) from error
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise DataError(f"{self.path}: has no vector '{name}'.", DAMAGED)
        self._read.add(name)
        result: np.ndarray = self._arrays[name]
        return result

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self, prefix: str = "") -> list[str]:
        """Names that start with a prefix, sorted."""
        return sorted(name for name in self._arrays if name.startswith(prefix))

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """One array as a tensor."""
        value = torch.from_numpy(np.array(self[name]))
        return value if dtype is None else value.to(dtype)

    def unread(self) -> Iterator[Check]:
        """A failing check for each vector that nothing looked at: an unknown one proves nothing."""
        for name in sorted(set(self._arrays) - self._read):
            yield Check(f"{self.path.name}/{name}", float("nan"), EXACT, "unknown vector")


def read_json(path: Path) -> Any:
    """A JSON file of the folder.

    Raises:
        DataError: When it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}.", DAMAGED) from error


def worst(name: str, checks: Iterable[Check]) -> Check:
    """Summarise many similar comparisons (such as 75 reports) by the worst of them."""
    every = list(checks)
    failed = [check for check in every if not check.passed]
    chosen = max(failed or every, key=lambda c: np.inf if np.isnan(c.error) else c.error)
    note = f"{len(failed)} of {len(every)} fail, e.g. {chosen.name} {chosen.note}" if failed else ""
    return Check(f"{name} ({len(every)})", chosen.error, chosen.tolerance, note.strip())
