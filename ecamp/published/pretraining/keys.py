"""Parameter names of the published checkpoints and ours, both ways."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ecamp.errors import DataError

_BERT = "bert_encoder.model.bert."
_FUSION = _BERT + "context_fusion_layer."
_HEAD = "bert_encoder.model.cls.predictions."

# (published, ours): a whole name, or a prefix that ends in a dot; the longest match applies.
RULES = (
    ("cls_token", "encoder.vit.cls_token"),
    ("pos_embed", "encoder.vit.pos_embed"),
    ("patch_embed.", "encoder.vit.patch_embed."),
    ("blocks.", "encoder.vit.blocks."),
    ("norm.", "encoder.vit.norm."),
    ("decoder_embed.", "decoder.embed."),
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.position"),
    ("decoder_blocks.", "decoder.blocks."),
    ("decoder_norm.", "decoder.norm."),
    ("decoder_pred.", "decoder.out."),
    ("super_res.conv1.", "super_resolution.first."),
    ("super_res.conv2.", "super_resolution.second."),
    ("bert_mlp.", "text.project."),
    (_BERT + "embeddings.", "text.embeddings."),
    (_FUSION, "text.fusion."),
    (_FUSION + "cross_self_attention.", "text.fusion.cross_attention."),
    (_FUSION + "gap_mlp.", "text.fusion.global_projection."),
    (_FUSION + "out_layer.", "text.fusion.merge."),
    (_BERT + "encoder.layer.", "text.layers."),
    (_HEAD + "transform.", "text.transform."),
    (_HEAD + "decoder.weight", "text.output.weight"),
    (_HEAD + "bias", "text.bias"),
)
# In every published checkpoint, never computed with.
UNUSED = (_BERT + "pooler.dense.weight", _BERT + "pooler.dense.bias")
# The same storage under a second name.
BIAS, BIAS_TWIN = _HEAD + "bias", _HEAD + "decoder.bias"


def _renamed(name: str, rules: list[tuple[str, str]]) -> str | None:
    matches = [
        (old, new)
        for old, new in rules
        if name == old or (old.endswith(".") and name.startswith(old))
    ]
    if not matches:
        return None
    old, new = max(matches, key=lambda rule: len(rule[0]))
    return new + name[len(old) :]


def our_name(published: str) -> str | None:
    """Return our name of a published parameter; None where we have none."""
    return _renamed(published, list(RULES))


def published_name(ours: str) -> str | None:
    """Return the published name of one of our parameters; None where it has none."""
    return _renamed(ours, [(new, old) for old, new in RULES])


def to_ours(
    published: Mapping[str, Tensor],
    like: Mapping[str, Tensor] | None = None,
    source: str = "published checkpoint",
) -> dict[str, Tensor]:
    """Rename a published state for `PublishedObjective.load_state_dict`.

    Args:
        published: Parameters by their published names.
        like: Our state of the same model; names and shapes are checked against it.
        source: Name of the file that was read, for messages.

    Returns:
        Parameters by our names; the unused ones and the twin of the bias are left out.

    Raises:
        DataError: Names unknown, missing and misshapen parameters (by their published names).
    """
    problems, state = [], {}
    for name, value in published.items():
        if name in UNUSED:
            continue
        if name == BIAS_TWIN:
            if BIAS in published and not torch.equal(value, published[BIAS]):
                problems.append(f"{BIAS_TWIN} differs from {BIAS}")
            continue
        ours = our_name(name)
        if ours is None or (like is not None and ours not in like):
            problems.append(f"unexpected {name}")
        elif like is not None and value.shape != like[ours].shape:
            problems.append(f"{name} is {tuple(value.shape)}, not {tuple(like[ours].shape)}")
        else:
            state[ours] = value
    for ours in like or ():
        name = published_name(ours) or ours
        if name not in published:
            problems.append(f"missing {name}")
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise DataError(
            f"{source}: {'; '.join(problems[:8])}{more}.",
            "It must be the `model` of a published ECAMP checkpoint of these sizes.",
        )
    return state


def to_published(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our state for the published code; its unused pooler is not invented.

    Raises:
        DataError: A parameter has no published name.
    """
    state = {}
    for name, value in ours.items():
        published = published_name(name)
        if published is None:
            raise DataError(f"{name}: not a parameter of the published model.")
        state[published] = value
        if published == BIAS:
            state[BIAS_TWIN] = value
    return state
