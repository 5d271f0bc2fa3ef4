"""Weights into encoders: files of ecamp by their card, published checkpoints by their layout."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from ecamp.api.encoder import EncoderPlugin
from ecamp.encoders.checkpoint_file import (
    PATCHES,
    POSITIONS,
    Geometry,
    geometry_of,
    read,
    read_tensors,
)
from ecamp.encoders.position import resize_table
from ecamp.encoders.timm import ViTEncoder
from ecamp.encoders.weights_card import WeightsCard, check_encoder, list_differences, read_card
from ecamp.errors import DataError, UsageError
from ecamp.storage.files import atomic_path, content_hash, write_json

_log = logging.getLogger(__name__)

FORMAT = 1  # of the sidecar
OWN_VIT = "vit."  # prefix of a ViT's tensors in `ViTEncoder`

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
        geometry: None where a file of ecamp holds no ViT.
        taken: Tensors of the encoder.
        ignored: First part of a name -> number of tensors not taken.
        card: Of a file that ecamp wrote.
    """

    file: str
    sha256: str
    kind: str
    tensors: int
    parameters: int
    prefix: str
    geometry: Geometry | None
    image_size: int
    taken: tuple[str, ...]
    taken_parameters: int
    ignored: dict[str, int]
    card: WeightsCard | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values, without any folder of this machine."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a checkpoint into an encoder.

    Attributes:
        loaded: Tensors taken.
        ignored: Tensors of the file that no encoder has.
        changes: Conversions of tensors, in words.
        differences: Between the encoder that the file was written for and this one, in words.
    """

    kind: str
    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    changes: tuple[str, ...]
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        changed = f" ({'; '.join(self.changes)})" if self.changes else ""
        return (
            f"{self.kind}: {len(self.loaded)} tensors loaded, {len(self.changes)} of them "
            f"changed{changed}, {len(self.ignored)} left out"
        )


def inspect(path: Path) -> CheckpointInfo:
    """Describe a file and the tensors that an encoder would take from it; raises as `read`."""
    card = read_card(path)
    if card is not None:
        state = read_tensors(path)
        count = sum(tensor.numel() for tensor in state.values())
        return CheckpointInfo(
            path.name, content_hash(path), "ecamp", len(state), count, "",
            geometry_of(vit, path) if (vit := _own_vit(state)) else None, card.image_size,
            tuple(state), count, {}, card,
        )  # fmt: skip
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
    encoder: Mapping[str, Tensor], geometry: Geometry, grid: tuple[int, int], channels: int
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Convert the encoder's tensors to float32, another grid and channel count; list the changes."""
    state = {name: tensor.float() for name, tensor in encoder.items()}
    changes = []
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


def load_encoder(encoder: nn.Module, path: Path, plugin: EncoderPlugin | None = None) -> LoadReport:
    """Put a file's weights into an encoder, and log how many were taken, changed and left out.

    A file that ecamp wrote is taken tensor by tensor under its own names; any other is searched for
    a ViT. The position table and the channels of a ViT are converted.

    Args:
        plugin: That built the encoder; with it, a file of another encoder is refused by name.

    Raises:
        DataError: Names each tensor of another shape, missing or unexpected, and what would fit.
            Nothing is loaded then.
        UsageError: The file belongs to another encoder, or the encoder is not a ViT.
    """
    card = read_card(path)
    if card is None:
        report = _load_published(_vit_encoder(encoder), path)
    else:
        if plugin is not None:
            check_encoder(path, card, plugin)
        report = _load_own(encoder, path, card, plugin)
    _log_once(logging.INFO, f"{path.name}: {report}")
    if report.differences:
        _log_once(
            logging.WARNING,
            f"{path.name}: its encoder differs: {'; '.join(report.differences)}",
        )
    return report


@cache
def _log_once(level: int, text: str) -> None:
    """Log a line unless it was: each cell of a bench that trains its encoder loads the file again."""
    _log.log(level, "%s", text)


def _load_own(
    encoder: nn.Module, path: Path, card: WeightsCard, plugin: EncoderPlugin | None
) -> LoadReport:
    state = read_tensors(path)
    changes: tuple[str, ...] = ()
    if isinstance(encoder, ViTEncoder):
        state, changes = _fit_own_vit(state, path, encoder)
    target = "the encoder" if plugin is None else f"the encoder '{plugin.ref}'"
    if wrong := _mismatches(state, encoder.state_dict()):
        channels = getattr(encoder, "channels", card.channels)
        hint = f"Build the encoder as it was: '{card.encoder}' at {card.image_size} px."
        if channels != card.channels:
            hint = (
                f"The file is for {card.channels} input channels, the images have {channels}: use "
                "images of that kind (`colour` in dataset.yaml)."
            )
        raise DataError(f"{path}: weights of {card.origin} do not fit {target}.{wrong}", hint)
    encoder.load_state_dict(state)
    differences = () if plugin is None else list_differences(card, plugin)
    return LoadReport(f"{card.origin}, {card.pretext}", tuple(state), (), changes, differences)


def _fit_own_vit(
    state: dict[str, Tensor], path: Path, encoder: ViTEncoder
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Convert position table and channels of a ViT under its own names (`vit.pos_embed`)."""
    vit = _own_vit(state)
    if not vit:
        return state, ()
    fitted, changes = _fit(vit, geometry_of(vit, path), encoder.grid, encoder.channels)
    return state | {OWN_VIT + name: tensor for name, tensor in fitted.items()}, changes


def _own_vit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the tensors of a `ViTEncoder`; none where the file holds another encoder."""
    vit = {n.removeprefix(OWN_VIT): t for n, t in state.items() if n.startswith(OWN_VIT)}
    return vit if {PATCHES, POSITIONS, "blocks.0.mlp.fc1.weight"} <= set(vit) else {}


def _load_published(target: ViTEncoder, path: Path) -> LoadReport:
    checkpoint = read(path)
    state, changes = _fit(checkpoint.encoder, checkpoint.geometry, target.grid, target.channels)
    if wrong := _mismatches(state, target.vit.state_dict(), checkpoint.encoder):
        raise DataError(
            f"{path}: does not fit the encoder.{wrong}",
            f"The file holds a {checkpoint.geometry}; choose such an encoder, e.g. "
            "timm/vit_base_patch16_224.",
        )
    target.vit.load_state_dict(state)
    return LoadReport(checkpoint.kind, tuple(state), checkpoint.ignored, changes)


def _mismatches(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    stored: Mapping[str, Tensor] | None = None,
) -> str:
    """List tensors of another shape, missing or unknown, one per line; empty where all fit.

    Args:
        stored: The tensors before they were converted, whose shapes are shown.
    """
    shown = stored or state
    wrong = [
        f"{name}: file {tuple(shown[name].shape)}, encoder {tuple(expected[name].shape)}"
        for name, tensor in state.items()
        if name in expected and expected[name].shape != tensor.shape
    ]
    wrong += [f"{name}: missing in the file" for name in expected if name not in state]
    wrong += [f"{name}: unknown to the encoder" for name in state if name not in expected]
    more = f"\n  ... and {len(wrong) - 8} more" if len(wrong) > 8 else ""
    return "".join(f"\n  {text}" for text in wrong[:8]) + more


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
    grid = (side, side)
    state, changes = _fit(checkpoint.encoder, geometry, grid, channels or geometry.channels)
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
