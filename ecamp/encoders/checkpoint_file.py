"""Reading a checkpoint that somebody else wrote, and finding the ViT encoder in it.

A checkpoint is never trusted: it is read with `weights_only=True`, and the one class besides
tensors that the published files hold (`argparse.Namespace`, their training options) is named here.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ecamp.errors import DataError, MissingError

WRAPPERS = ("model", "state_dict", "model_state_dict")
SAVED_AS = (
    "Weights are .safetensors, or what torch.save wrote: a state dict as .pth, .pt, .bin or .ckpt."
)
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before its zip format
ENCODER_PARTS = ("patch_embed.", "cls_token", "pos_embed", "blocks.", "norm.")
PATCHES, POSITIONS = "patch_embed.proj.weight", "pos_embed"


@dataclass(frozen=True)
class Geometry:
    """Sizes of a ViT as its tensors tell them; the number of heads is not in them.

    Attributes:
        grid: Patches a side.
        hidden: Width of the MLP in a block.
    """

    width: int
    depth: int
    patch_size: int
    grid: int
    channels: int
    hidden: int

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self.grid * self.patch_size

    def __str__(self) -> str:
        return (
            f"ViT, width {self.width}, depth {self.depth}, patch {self.patch_size}, image "
            f"{self.image_size}, channels {self.channels}"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A file read, and its encoder found.

    Attributes:
        kind: ECAMP, MRM, MAE or ViT (an encoder without pre-training parts).
        prefix: Text before the encoder's names.
        encoder: Plain timm name -> tensor.
        ignored: Names of all other tensors, as in the file.
        tensors, parameters: Counts over the whole state.
    """

    path: Path
    kind: str
    prefix: str
    encoder: dict[str, Tensor]
    ignored: tuple[str, ...]
    tensors: int
    parameters: int

    @property
    def geometry(self) -> Geometry:
        """Sizes of the encoder."""
        return geometry_of(self.encoder, self.path)


def geometry_of(encoder: Mapping[str, Tensor], path: Path) -> Geometry:
    """Sizes of a ViT from its tensors under plain timm names; `path` is for messages."""
    patches, positions = encoder[PATCHES], encoder[POSITIONS]
    side = math.isqrt(max(positions.numel() // positions.shape[-1] - 1, 0))
    if positions.dim() != 3 or side * side + 1 != positions.shape[1] or not side:
        raise DataError(
            f"{path}: pos_embed {tuple(positions.shape)} is not a class token and a square of patches."
        )
    return Geometry(
        width=patches.shape[0],
        depth=1 + max(int(name.split(".")[1]) for name in encoder if name.startswith("blocks.")),
        patch_size=patches.shape[-1],
        grid=side,
        channels=patches.shape[1],
        hidden=encoder["blocks.0.mlp.fc1.weight"].shape[0],
    )


def read(path: Path) -> Checkpoint:
    """Read a checkpoint and find the encoder in it.

    Args:
        path: `.safetensors`, or what `torch.save` wrote: a state dict, or a dict that holds one
            under `model`, `state_dict` or `model_state_dict`.

    Raises:
        MissingError: No such file.
        DataError: Damaged, holds a class that is not allowed, or no ViT; names the file.
    """
    state = read_tensors(path)
    found = [name for name in state if name.endswith(PATCHES)]
    if len(found) != 1:
        what = f"{len(found)} of them: {', '.join(found)}" if found else "none"
        raise DataError(
            f"{path}: a ViT has one tensor named ...{PATCHES}; here are {what}.",
            "Only ViT encoders with a class token are imported.",
        )
    prefix = found[0].removesuffix(PATCHES)
    names = {n.removeprefix(prefix): n for n in state if n.startswith(prefix)}
    encoder = {n: state[full] for n, full in names.items() if n.startswith(ENCODER_PARTS)}
    lacking = {"cls_token", POSITIONS, "blocks.0.mlp.fc1.weight"} - set(encoder)
    if lacking:
        raise DataError(f"{path}: the encoder lacks {prefix}{sorted(lacking)[0]}.")
    taken = {names[name] for name in encoder}
    return Checkpoint(
        path,
        _kind(state),
        prefix,
        encoder,
        tuple(name for name in state if name not in taken),
        len(state),
        sum(tensor.numel() for tensor in state.values()),
    )


def _kind(state: Mapping[str, Tensor]) -> str:
    """Family, by parts that only it has."""

    def has(word: str) -> bool:
        return any(word in name for name in state)

    if has("context_fusion_layer.") or has("super_res."):
        return "ECAMP"
    if has("bert_encoder.") or has("bert_mlp."):
        return "MRM"
    return "MAE" if has("mask_token") and has("decoder_embed.") else "ViT"


def is_safetensors(path: Path) -> bool:
    """Tell a safetensors file from one of torch.save, by its first bytes.

    Raises:
        MissingError: No such file.
        DataError: Neither; or its name says the other.
    """
    if not path.is_file():
        if path.is_dir():
            raise MissingError(f"{path}: is a folder.", "Name the file of weights in it.")
        raise MissingError(f"{path}: no such weights file.", "Check the path.")
    with path.open("rb") as file:
        head = file.read(len(LEGACY))
    safe = head[4:9] == b"\0\0\0\0{"  # length of a header below 4 GB, then the header
    if safe and path.suffix != ".safetensors":
        raise DataError(
            f"{path}: is a safetensors file by its content.",
            f"Rename it to {path.with_suffix('.safetensors').name}.",
        )
    if safe or head.startswith((b"PK", LEGACY)):
        if not safe and path.suffix == ".safetensors":
            raise DataError(
                f"{path}: was written by torch.save, not by safetensors.",
                f"Rename it to {path.with_suffix('.pth').name}.",
            )
        return safe
    if head.startswith(b"\x80"):
        raise DataError(
            f"{path}: is a Python pickle; opening it would run its code.",
            "Save the tensors alone: safetensors.torch.save_file(model.state_dict(), "
            "'weights.safetensors').",
        )
    problem = "is not a file of weights" if head else "is empty"
    raise DataError(f"{path}: damaged: it {problem}.", f"Copy or download it again. {SAVED_AS}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name.

    Raises:
        MissingError: No such file.
        DataError: Damaged, or holds a class that is not allowed; names the file.
    """
    if is_safetensors(path):
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: damaged: {error}.", "Copy or download it again.") from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(
                path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path)
            )
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        foreign = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if foreign:
            raise DataError(
                f"{path}: holds an object of class {foreign[1]}; loading it would run its code.",
                "Save the state dict alone (tensors by name), best as .safetensors.",
            ) from error
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: damaged: {reason}", f"Copy or download it again. {SAVED_AS}"
        ) from error
    return _tensors(path, content)


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """Find the state dict in the content of a file."""
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
        state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if state:
            return state
        held = f"a dict of {', '.join(map(str, list(content)[:6]))}"
    else:
        held = f"a {type(content).__name__}"
    raise DataError(f"{path}: holds {held}, and no tensors by name.", f"Known: {WRAPPERS}.")
