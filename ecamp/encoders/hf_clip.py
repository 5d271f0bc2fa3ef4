"""A CLIP folder in Hugging Face's layout as an encoder with a text side. Never downloads."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ecamp.api.encoder import DualEncoder, EncoderPlugin, Features
from ecamp.config import identity
from ecamp.errors import DataError, MissingError
from ecamp.storage.files import content_hash

WHERE = "ECAMP_MODELS"  # the folder of folders; the current one when unset
CONTENT = (".json", ".txt", ".safetensors")  # what decides: weights, sizes, vocabulary


class CLIPEncoder(DualEncoder):
    """CLIP's image tower; `pooled` is its normalised class token, which the projection reads.

    Images come with the data set's own mean and std instead of CLIP's; one grey channel is given
    to all three. The text side and the projections are read, not trained.
    """

    pretrained = True

    def __init__(self, clip: Any, tokenizer: Any, channels: int) -> None:
        super().__init__()
        self.clip, self.tokenizer, self.channels = clip, tokenizer, channels
        vision = clip.config.vision_config
        self.image_size, self.width = int(vision.image_size), int(vision.hidden_size)
        self.grid = (self.image_size // int(vision.patch_size),) * 2
        self.depth = int(vision.num_hidden_layers)
        self.levels = sorted({max(self.depth // 2, 1), self.depth})
        self.longest = int(clip.config.text_config.max_position_embeddings)
        self.logit_scale = float(clip.logit_scale.detach().exp())
        clip.requires_grad_(False)
        clip.vision_model.requires_grad_(True)

    def forward(self, images: Tensor) -> Features:
        tower = self.clip.vision_model
        out = tower(pixel_values=images.expand(-1, 3, -1, -1), output_hidden_states=True)
        maps = [tower.post_layernorm(out.hidden_states[level][:, 1:]) for level in self.levels]
        pyramid = tuple(level.transpose(1, 2).unflatten(2, self.grid) for level in maps)
        return Features(out.pooler_output, maps[-1], self.grid, pyramid)

    def layers(self) -> list[tuple[str, ...]]:
        tower = "clip.vision_model."
        blocks = [(f"{tower}encoder.layers.{i}.",) for i in range(self.depth)]
        return [(f"{tower}embeddings.", f"{tower}pre_layrnorm."), *blocks]

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        said = self.clip.text_model(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        result: Tensor = self.clip.text_projection(said.pooler_output)
        return result

    def embed_image(self, features: Features) -> Tensor:
        result: Tensor = self.clip.visual_projection(features.pooled)
        return result


class CLIPFolder(EncoderPlugin):
    """`hf-clip/NAME`: the folder NAME under `$ECAMP_MODELS`, known by the content of its files."""

    summary = "a CLIP folder in Hugging Face's layout (with text side), from $ECAMP_MODELS"
    licence = "Apache-2.0 (transformers); weights as their authors say"
    citation = "Radford et al., Learning Transferable Visual Models, ICML 2021"
    family = True

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(os.environ.get(WHERE, ".")) / str(self.variant)

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"text"})

    @property
    def image_size(self) -> int:
        file = self.folder / "config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MissingError(f"{file}: cannot be read.", f"Is ${WHERE} set? {error}") from error
        if config.get("model_type") != "clip":
            raise DataError(f"{file}: model_type is {config.get('model_type')!r}, not 'clip'.")
        return int(config.get("vision_config", {}).get("image_size", 224))

    def identity_fields(self) -> dict[str, Any]:
        files = sorted(p for p in self.folder.glob("*") if p.suffix in CONTENT)
        states = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
        return {**super().identity_fields(), "content": _content(states)}

    def build(self, channels: int) -> CLIPEncoder:
        from transformers import AutoTokenizer, CLIPModel

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            clip = CLIPModel.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DataError(f"{self.folder}: cannot be loaded: {str(error)[:200]}") from error
        return CLIPEncoder(clip.float().eval(), tokenizer, channels)


@cache
def _content(states: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of the files' content; read once while size and time are unchanged."""
    return identity([[Path(name).name, content_hash(Path(name))] for name, *_ in states])
