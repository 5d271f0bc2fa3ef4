"""Frozen features on disk: computed once for all heads, fractions, seeds, tasks and runs.

The key is the hash of all that determines them: weights (their bytes, whatever their origin), encoder,
preprocessing, images, library versions. So nothing is ever stale, and one entry serves every run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import ecamp
from ecamp.api.encoder import Encoder, EncoderPlugin, Features
from ecamp.bench.features import Reads, assemble_features, feature_specs, fill_features
from ecamp.config import identity
from ecamp.data.arrays import Arrays
from ecamp.data.normalise import normaliser
from ecamp.errors import EcampError, UsageError
from ecamp.storage.cache import META, EntryLease, find_corruption, write_meta
from ecamp.storage.files import atomic_folder, cache_root, locked, read_json
from ecamp.storage.tensor_file import Specs, create_tensors, map_tensors, sync, total_bytes

_log = logging.getLogger(__name__)

FORMAT = 1  # bump when the file's layout or content changes
FILE = "features.safetensors"
LIMIT = "ECAMP_FEATURE_CACHE_GB"


@dataclass(frozen=True)
class CachedFeatures:
    """Features of all images of a data set, and what they cost.

    Attributes:
        images_per_second: Speed of the encoder when they were computed.
        parameters: Of the encoder.
        origin: `computed` just now, or read from `disk`.
        seconds: Time spent computing them; 0 if read from disk.
        use: Keeps the cache entry while the features are used.
    """

    features: Features
    images_per_second: float
    parameters: int
    origin: str
    seconds: float
    use: EntryLease | None = None


def weights_digest(module: nn.Module) -> str:
    """Hash (SHA-256) a module's parameters and buffers: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def feature_key(encoder: Encoder, plugin: EncoderPlugin, arrays: Arrays) -> str:
    """Compute the identity of an encoder's features of a data set: the name of the cache folder."""
    import timm

    info = arrays.info
    return identity(
        {
            "features": FORMAT,
            "results": ecamp.__results_version__,
            "versions": [torch.__version__, timm.__version__],
            "weights": weights_digest(encoder),
            "encoder": plugin.identity,
            "preprocessing": [info.mean, info.std, info.channels, encoder.image_size],
            "data": arrays.key,
        }
    )


def limit_bytes() -> float:
    """Return the size of the largest entry that is stored.

    Raises:
        UsageError: The environment variable is not a number.
    """
    text = os.environ.get(LIMIT, "8")
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise UsageError(f"{LIMIT}='{text}' is not a size in GB.", "Set e.g. 8; 0 stores nothing.")
    return limit


class FeatureCache:
    """Features by content.

    Args:
        root: The cache's folder; None for the default.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = cache_root(root) / "features"
        self._logged: set[str] = set()

    def holds(self, key: str, reads: Reads) -> bool:
        """Tell whether an entry has all that is needed (it may still prove damaged)."""
        try:
            return limit_bytes() > 0 and reads <= set(read_json(self.root / key / META)["reads"])
        except (OSError, EcampError, KeyError, TypeError):
            return False

    def get(
        self,
        encoder: Encoder,
        plugin: EncoderPlugin,
        arrays: Arrays,
        reads: Reads,
        label: str,
        check_budget: Callable[[], None] = lambda: None,
    ) -> CachedFeatures:
        """Return the features of all images, from disk or computed (by one process, the others wait).

        Args:
            reads: Features that are needed; more may be returned.
            label: Description for people who list the cache.
            check_budget: Called before anything is computed; raises where there is no time for it.
        """
        limit = limit_bytes()
        if limit == 0:
            check_budget()
            return _compute_in_memory(encoder, arrays, reads)
        folder = self.root / feature_key(encoder, plugin, arrays)
        with locked(folder.with_suffix(".lock")):
            found = self._read(folder, encoder, arrays, reads)
            if found is not None:
                return found
            check_budget()
            specs, grid = feature_specs(encoder, arrays, reads)
            size = total_bytes(specs)
            if size > limit:
                self._log_once(
                    logging.INFO,
                    f"features of {label} take {size / 1e9:.1f} GB and stay in memory "
                    f"({LIMIT}={limit / 1e9:g})",
                )
                return _compute_in_memory(encoder, arrays, reads)
            return self._make(folder, encoder, arrays, specs, grid, label)

    def _log_once(self, level: int, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            _log.log(level, "%s", text)

    def _make(
        self,
        folder: Path,
        encoder: Encoder,
        arrays: Arrays,
        specs: Specs,
        grid: tuple[int, int],
        label: str,
    ) -> CachedFeatures:
        began, parameters = time.monotonic(), count_parameters(encoder)
        tensors: dict[str, Tensor] = {}
        speed, use = 0.0, None
        try:
            with atomic_folder(folder) as work:
                tensors = create_tensors(work / FILE, specs, {"grid": f"{grid[0]} {grid[1]}"})
                speed = fill_features(encoder, arrays, tensors)
                sync(work / FILE)
                write_meta(
                    work, label, [FILE], reads=sorted(_reads(specs)),
                    images_per_second=speed, parameters=parameters,
                )  # fmt: skip
            features, use = _open(folder), EntryLease(folder)
        except (OSError, EcampError) as error:
            if not speed and isinstance(error, EcampError):
                raise
            # A full disk must not stop a bench that fits into memory, nor lose what is computed.
            text = str(error).splitlines()[0]
            self._log_once(
                logging.WARNING, f"{folder}: cannot be written ({text}); features stay in memory"
            )
            if not speed:
                return _compute_in_memory(encoder, arrays, _reads(specs))
            features = assemble_features(tensors, grid)
        return CachedFeatures(
            features, speed, parameters, "computed", time.monotonic() - began, use
        )

    def _read(
        self, folder: Path, encoder: Encoder, arrays: Arrays, reads: Reads
    ) -> CachedFeatures | None:
        """Read stored features; None when they are missing, incomplete, damaged, or not the encoder's."""
        if not (folder / META).exists():
            return None
        try:
            meta = read_json(folder / META)
            if not reads <= set(meta["reads"]):
                return None
            problem = find_corruption(folder, meta)
            if problem is None:
                features = _open(folder)
                if not _same(encoder, arrays, features):
                    problem = "the encoder gives other features now (its code has changed)"
            speed, parameters = float(meta["images_per_second"]), int(meta["parameters"])
        except Exception as error:  # json, safetensors and torch raise many kinds on a torn file
            problem = str(error).splitlines()[0]
        if problem is not None:
            _log.warning("%s: damaged: %s; these features are computed again", folder, problem)
            return None
        return CachedFeatures(features, speed, parameters, "disk", 0.0, EntryLease(folder))


def _open(folder: Path) -> Features:
    tensors, metadata = map_tensors(folder / FILE)
    rows, columns = metadata["grid"].split()
    return assemble_features(tensors, (int(rows), int(columns)))


def _same(encoder: Encoder, arrays: Arrays, features: Features) -> bool:
    """Tell whether the encoder still gives the stored vector of one image, up to rounding.

    The key knows weights and configuration, not the code of an encoder that somebody is writing.
    """
    index = np.array([len(arrays) // 2])
    with torch.no_grad():
        fresh = encoder.eval()(normaliser(arrays.info)(arrays.images[index])).pooled
    stored = features.pooled[index]
    tolerance = 1e-3 * float(stored.nan_to_num().abs().max())
    return torch.allclose(fresh, stored, rtol=1e-3, atol=tolerance, equal_nan=True)


def _reads(specs: Specs) -> Reads:
    """Recover what `feature_specs` was asked for."""
    return frozenset(name.partition(".")[0] for name in specs)


def count_parameters(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _compute_in_memory(encoder: Encoder, arrays: Arrays, reads: Reads) -> CachedFeatures:
    began = time.monotonic()
    specs, grid = feature_specs(encoder, arrays, reads)
    try:
        tensors = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in specs.items()}
    except (RuntimeError, MemoryError) as error:
        raise EcampError(
            f"features of {len(arrays)} images take {total_bytes(specs) / 1e9:.1f} GB of memory.",
            f"Let them go to disk: {LIMIT}={total_bytes(specs) / 1e9 + 1:.0f}.",
        ) from error
    speed = fill_features(encoder, arrays, tensors)
    features = assemble_features(tensors, grid)
    seconds = time.monotonic() - began
    return CachedFeatures(features, speed, count_parameters(encoder), "computed", seconds)
