"""Builds our published model with the sizes that a file's parameters have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from timm.models.vision_transformer import VisionTransformer

from ecamp.encoders.timm import ViTEncoder
from ecamp.published.pretraining.model import PublishedModel
from tests.golden.text_branch import PREFIX, text_config

# Shapes do not show numbers of heads: those of the published factory.
PUBLISHED_HEADS = {"num_heads": 12, "decoder_num_heads": 16, "num_attention_heads": 6}


def model_of_shapes(
    shapes: Mapping[str, Sequence[int]],
    *,
    heads: Mapping[str, int],
    side: int | None = None,
    mask_ratio: float = 0.75,
) -> PublishedModel:
    """Build our model with the sizes that published parameters have.

    Args:
        shapes: Shape by published name.
        heads: `num_heads`, `decoder_num_heads` and `num_attention_heads` (of the text tower).
        side: Side of the large images in pixels; twice the encoder's without one.
        mask_ratio: Fraction of patches removed.
    """
    bert = f"{PREFIX}bert."
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    size = math.isqrt(shapes["pos_embed"][1] - 1) * patch
    decoder_width = shapes["mask_token"][-1]
    words, hidden = shapes[f"{bert}embeddings.word_embeddings.weight"]
    vit = VisionTransformer(
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=_count(shapes, "blocks."),
        num_heads=heads["num_heads"],
        mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
        num_classes=0,
    )
    text = {
        "vocab_size": words,
        "hidden_size": hidden,
        "num_hidden_layers": _count(shapes, f"{bert}encoder.layer."),
        "num_attention_heads": heads["num_attention_heads"],
        "intermediate_size": shapes[f"{bert}encoder.layer.0.intermediate.dense.weight"][0],
        "max_position_embeddings": shapes[f"{bert}embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shapes[f"{bert}embeddings.token_type_embeddings.weight"][0],
    }
    decoder = (decoder_width, _count(shapes, "decoder_blocks."), heads["decoder_num_heads"])
    return PublishedModel(
        ViTEncoder(vit, 3),
        decoder,
        text_config(text),
        scale=2 if side is None else side // size,
        mask_ratio=mask_ratio,
        decoder_mlp_ratio=shapes["decoder_blocks.0.mlp.fc1.weight"][0] / decoder_width,
    )


def _count(shapes: Mapping[str, Sequence[int]], prefix: str) -> int:
    """Count the blocks under a prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})
