"""Run folder: what is written, read back, and resumed. Imports no torch.

runs/<name>/spec.yaml plan.json env.json ledger.jsonl pretrain/<id>/ gallery/ cells/<id>/
{result.json, run.json, predictions.npz, head.safetensors, log.txt} report/
"""

from __future__ import annotations

import logging
import platform
import sys
import zipfile
import zlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ecamp.api.origin import Origin
from ecamp.bench.cell_result import CellResult
from ecamp.config import BenchSpec, canonical_json, validate
from ecamp.errors import CorruptFileError, UsageError
from ecamp.storage.bits import pack_bits, unpack_bits
from ecamp.storage.files import append_line, atomic_path, read_json, write_bytes, write_json

_log = logging.getLogger(__name__)

BITS, SHAPE = "/bits", "/shape"  # suffixes of packed boolean arrays in predictions.npz


def read_spec(path: Path) -> BenchSpec:
    """Read the recipe that a run was started with.

    Raises:
        CorruptFileError: `spec.yaml` is damaged or missing.
        UsageError: A key that this version does not know; names it.
    """
    file = path / "spec.yaml"
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CorruptFileError(f"{file}: damaged or missing.", "Restore it.") from error
    return validate(BenchSpec, values, str(file))


class RunFolder:
    """One run on disk.

    Args:
        path: The folder; made when missing.

    Attributes:
        damaged: Cell folders that `finished` found unreadable.

    Raises:
        EcampError: When it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: list[Path] = []
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: is a file, not a run folder.", "Choose another --run.")

    def cell(self, key: str) -> Path:
        """Return the folder of one cell."""
        return self.path / "cells" / key

    def open(self, spec: BenchSpec, plan: dict[str, Any]) -> None:
        """Start the run, or resume it when it was started with the same recipe.

        Raises:
            UsageError: When the folder holds a run of another recipe; lists what differs.
        """
        file = self.path / "spec.yaml"
        mine = spec.model_dump(mode="json")
        if file.exists():
            try:
                before = yaml.safe_load(file.read_text())
                assert isinstance(before, dict)
            except (yaml.YAMLError, AssertionError, UnicodeDecodeError) as error:
                raise CorruptFileError(
                    f"{file}: damaged.", "Restore or delete it; finished cells are kept."
                ) from error
            differing = [k for k in sorted({*mine, *before}) if mine.get(k) != before.get(k)]
            if differing:
                lines = "; ".join(
                    f"{k}: was {canonical_json(before.get(k))}, now {canonical_json(mine.get(k))}"
                    for k in differing
                )
                raise UsageError(
                    f"{self.path}: holds a run of another recipe ({lines}).",
                    "Resume with the same recipe, or name a new folder with --run.",
                )
        else:
            write_bytes(file, yaml.safe_dump(mine, sort_keys=True).encode())
        self._log_changed_plugins(plan)
        write_json(self.path / "plan.json", plan)
        write_json(self.path / "env.json", environment(plan))

    def _log_changed_plugins(self, plan: Mapping[str, Any]) -> None:
        """Warn of plugins whose code is not that of the cells computed so far."""
        try:
            before = read_json(self.path / "plan.json").get("plugins", [])
        except (FileNotFoundError, CorruptFileError):
            return
        known = {(old["group"], old["name"]): Origin(**old) for old in before}
        for new in (Origin(**value) for value in plan.get("plugins", [])):
            old = known.get((new.group, new.name))
            if old is not None and old != new:
                _log.warning(
                    "%s '%s': cells of this run were computed with %s, now %s is installed; those "
                    "that it concerns are computed again",
                    new.group.removeprefix("ecamp."), new.name, old, new,
                )  # fmt: skip

    def log_event(self, **event: Any) -> None:
        """Append to the ledger."""
        append_line(self.path / "ledger.jsonl", event)

    def finished(self, key: str) -> CellResult | None:
        """Read the result of a cell that is done and whole; None when it must be run (again)."""
        folder = self.cell(key)
        try:
            result = CellResult.from_json(read_json(folder / "result.json"))
            if result.id != key:
                return None
            with zipfile.ZipFile(folder / "predictions.npz") as predictions:
                if predictions.testzip() is not None:
                    raise zipfile.BadZipFile
        except FileNotFoundError:
            return None
        except (CorruptFileError, OSError, zipfile.BadZipFile, zlib.error):
            self.damaged.append(folder)
            self.log_event(event="corrupt", id=key, folder=f"cells/{key}")
            return None
        return result

    def write_cell(
        self,
        key: str,
        result: CellResult,
        arrays: dict[str, np.ndarray],
        run: dict[str, Any],
        log: str,
    ) -> None:
        """Write a finished cell; `result.json` last, so that its presence means that the rest is whole."""
        folder = self.cell(key)
        with atomic_path(folder / "predictions.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        write_json(folder / "run.json", run)
        write_bytes(folder / "log.txt", log.encode())
        write_json(folder / "result.json", result.as_json())


def pack(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pack boolean arrays of three or more axes (masks) into bits; `read_predictions` undoes it."""
    out: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        value = np.asarray(value)
        if value.dtype == bool and value.ndim >= 3:
            out[f"{name}{BITS}"], out[f"{name}{SHAPE}"] = pack_bits(value), np.array(value.shape)
        else:
            out[name] = value
    return out


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Load a cell's arrays; masks are unpacked to bool.

    Raises:
        CorruptFileError: When the file is damaged; names it.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a torn file
        raise CorruptFileError(f"{path}: damaged: {error}", "Run the same bench again.") from error
    for key in [key for key in arrays if key.endswith(BITS)]:
        name = key.removesuffix(BITS)
        shape = tuple(int(v) for v in arrays.pop(f"{name}{SHAPE}"))
        arrays[name] = unpack_bits(arrays.pop(key), shape)
    return arrays


def environment(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what a result may depend on beyond its recipe: versions, platform.

    Args:
        plan: `Plan.as_json()`; names the distributions of its plugins.
    """
    plugins = dict.fromkeys(
        str(plugin["dist"]) for plugin in plan.get("plugins", []) if plugin["dist"]
    )
    packages = ["ecamp", "torch", "torchvision", "timm", "numpy", "scikit-learn", "pycocotools"]
    versions = {}
    for name in dict.fromkeys([*packages, *plugins]):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "?"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "packages": versions,
    }


def command_line() -> str:
    """Return the command line of this process, without the interpreter's path."""
    return " ".join(["ecamp", *sys.argv[1:]])
