"""Weights from elsewhere: published ECAMP, MRM and MAE checkpoints in, plain timm names out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from ecamp.encoders.checkpoint_file import (
    PATCHES,
    POSITIONS,
    Checkpoint,
    Geometry,
    geometry_of,
    read,
)
from ecamp.encoders.position import resize_table
from ecamp.encoders.timm import ViTEncoder
from ecamp.errors import DataError, UsageError
from ecamp.storage.files import atomic_path, content_hash, write_json

FORMAT = 1  # of the sidecar

# How each family's pre-training normalised pixels scaled to 0..1, where its authors state it.
NORMALISATION = {
    "ECAMP": {"colour": "grey", "mean": [0.4721], "std": [0.3037]},
    "MAE": {"colour": "rgb", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}
LICENCE = "Weights keep the terms of those who trained them; see where the source file came from."


@dataclass(frozen=True)
class CheckpointInfo:
    """Result of `ecamp weights inspect`.

    Attributes:
        sha256: Of the file; its identity.
        taken: Tensors of the encoder.
        ignored: First part of a name -> number of tensors not taken.
    """

    file: str
    sha256: str
    kind: str
    tensors: int
    parameters: int
    prefix: str
    geometry: Geometry
    image_size: int
    taken: tuple[str, ...]
    taken_parameters: int
    ignored: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return plain values, without any folder of this machine."""
        return asdict(self)


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a checkpoint into an encoder.

    Attributes:
        loaded: Tensors taken.
        ignored: Tensors of the file that no encoder has.
        changes: Conversions of tensors, in words.
    """

    kind: str
    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    changes: tuple[str, ...]


def inspect(path: Path) -> CheckpointInfo:
    """Describe a file and the tensors that an encoder would take from it; raises as `read`."""
    checkpoint = read(path)
    return CheckpointInfo(
        file=path.name,
        sha256=content_hash(path),
        kind=checkpoint.kind,
        tensors=checkpoint.tensors,
        parameters=checkpoint.parameters,
        prefix=checkpoint.prefix,
        geometry=checkpoint.geometry,
        image_size=checkpoint.geometry.image_size,
        taken=tuple(checkpoint.encoder),
        taken_parameters=sum(tensor.numel() for tensor in checkpoint.encoder.values()),
        ignored=dict(sorted(Counter(name.split(".")[0] for name in checkpoint.ignored).items())),
    )


def change_channels(kernel: Tensor, channels: int) -> Tensor:
    """Convert a patch embedding (width, 3, p, p) <-> (width, 1, p, p), equal on grey images."""
    grey = kernel.sum(1, keepdim=True)
    return grey if channels == 1 else grey.expand(-1, channels, -1, -1) / channels


def _fit(
    checkpoint: Checkpoint, grid: tuple[int, int], channels: int
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Convert the encoder's tensors to float32, another grid and channel count; list the changes."""
    state = {name: tensor.float() for name, tensor in checkpoint.encoder.items()}
    geometry, changes = checkpoint.geometry, []
    if (geometry.grid, geometry.grid) != grid:
        state[POSITIONS] = resize_table(state[POSITIONS], *grid)
        changes.append(
            f"pos_embed: {geometry.grid} x {geometry.grid} to {grid[0]} x {grid[1]} patches, bicubic"
        )
    if geometry.channels != channels:
        method = "summed" if channels == 1 else "grey weights shared out"
        state[PATCHES] = change_channels(state[PATCHES], channels)
        changes.append(f"{PATCHES}: {geometry.channels} to {channels} input channels, {method}")
    return state, tuple(changes)


def _vit_encoder(encoder: nn.Module) -> ViTEncoder:
    if not isinstance(encoder, ViTEncoder):
        raise UsageError(
            f"{type(encoder).__name__} is not a ViT; checkpoints are exchanged with ViTs only.",
            "Use --encoders timm/vit_base_patch16_224.",
        )
    return encoder


def load_encoder(encoder: nn.Module, path: Path) -> LoadReport:
    """Put a checkpoint's encoder into ours; position table and channels are converted.

    Raises:
        DataError: Names each tensor of another shape, missing or unexpected, and the geometry that
            would fit. Nothing is loaded then.
        UsageError: The encoder is not a ViT.
    """
    checkpoint, target = read(path), _vit_encoder(encoder)
    state, changes = _fit(checkpoint, target.grid, target.channels)
    expected = target.vit.state_dict()
    wrong = [
        f"{name}: file {tuple(checkpoint.encoder[name].shape)}, encoder {tuple(expected[name].shape)}"
        for name, tensor in state.items()
        if name in expected and expected[name].shape != tensor.shape
    ]
    wrong += [f"{name}: missing in the file" for name in expected if name not in state]
    wrong += [f"{name}: unknown to the encoder" for name in state if name not in expected]
    if wrong:
        more = f"\n  ... and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise DataError(
            f"{path}: does not fit the encoder.\n  " + "\n  ".join(wrong[:8]) + more,
            f"The file holds a {checkpoint.geometry}; choose such an encoder, e.g. "
            "timm/vit_base_patch16_224.",
        )
    target.vit.load_state_dict(state)
    return LoadReport(checkpoint.kind, tuple(state), checkpoint.ignored, changes)


def export(encoder: nn.Module, path: Path, sidecar: Mapping[str, Any]) -> Path:
    """Write an encoder under plain timm names, with a JSON file that describes it.

    `timm.create_model(..., num_classes=0).load_state_dict(safetensors.torch.load_file(path))`
    gives the same features to the bit.

    Args:
        path: Ends in `.safetensors`.
        sidecar: Added to the JSON: source, normalisation, ...

    Returns:
        The path of the JSON.
    """
    return _write(_vit_encoder(encoder).vit.state_dict(), path, sidecar)


def convert(
    path: Path, out: Path, *, image_size: int | None = None, channels: int | None = None
) -> tuple[Path, tuple[str, ...]]:
    """Write a checkpoint's encoder under plain timm names, resized as requested.

    Returns:
        The path of the sidecar JSON, and what was changed.

    Raises:
        UsageError: The image size is not a multiple of the patch size.
    """
    checkpoint = read(path)
    geometry = checkpoint.geometry
    size = image_size or geometry.image_size
    if size % geometry.patch_size:
        raise UsageError(
            f"--image-size {size} is not a multiple of the file's patch size {geometry.patch_size}.",
            f"Choose e.g. {max(size // geometry.patch_size, 1) * geometry.patch_size}.",
        )
    side = size // geometry.patch_size
    state, changes = _fit(checkpoint, (side, side), channels or geometry.channels)
    sidecar = {
        "source": {"file": path.name, "sha256": content_hash(path), "kind": checkpoint.kind},
        "normalisation": NORMALISATION.get(checkpoint.kind),
        "changes": list(changes),
    }
    return _write(state, out, sidecar), changes


def _write(state: Mapping[str, Tensor], path: Path, sidecar: Mapping[str, Any]) -> Path:
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{path}: weights are written as .safetensors.", f"Name it {path.stem}.safetensors."
        )
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt"})
    sidecar_file = path.with_suffix(".json")
    sizes = geometry_of(plain, path)
    geometry = {**asdict(sizes), "image_size": sizes.image_size}
    fixed = {"format": FORMAT, "names": "timm VisionTransformer", "geometry": geometry}
    write_json(sidecar_file, {"licence": LICENCE, "normalisation": None, **sidecar, **fixed})
    return sidecar_file
