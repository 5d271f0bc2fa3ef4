"""checkpoint_keys.json, pre-training part: names, shapes, counts and start values of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ecamp.published.pretraining.keys import (
    BIAS,
    BIAS_TWIN,
    UNUSED,
    our_name,
    published_name,
    to_published,
)
from ecamp.published.pretraining.model import PublishedModel
from tests.golden.check import EXACT, Check, read_json
from tests.golden.masking import unknown
from tests.golden.model_sizes import PUBLISHED_HEADS, model_of_shapes

FILE, PART = "checkpoint_keys.json", "ECAMP_vit_base"
FINETUNING = {
    "Classifier_vit_base_patch16", "SegViT", "SegViT_RIGA", "Detector_expansion4",
    "Detector_expansion8",
}  # fmt: skip
FIELDS = {
    "factory", "state_dict", "parameter_count", "trainable_count", "not_trainable", "same_storage",
    "mlm_decoder_weight_is_word_embedding", "mlm_decoder_weight_shares_storage_with_word_embedding",
    "weight_decay_groups_timm_0_4_12", "init_check_f32_std", "init_rows", "checkpoint_file_layout",
}  # fmt: skip
STANDARD_ERRORS = 5.0


def checks(folder: Path) -> Iterator[Check]:
    """Our model of the recorded sizes against what was recorded of the published one."""
    content = read_json(folder / FILE)
    yield from unknown(FILE, content, {PART, *FINETUNING})
    part = content[PART]
    yield from unknown(f"{FILE}/{PART}", part, FIELDS)
    shapes = {name: shape for name, shape, _ in part["state_dict"]}
    torch.manual_seed(0)
    model = model_of_shapes(shapes, heads=PUBLISHED_HEADS)
    for name, ours, recorded in [*_names(model, shapes, part), *_flags(model, part)]:
        same = ours == recorded
        note = "" if same else f"ours {str(ours)[:200]}"
        yield Check(f"{FILE}/{PART}/{name}", 0.0 if same else float("nan"), EXACT, note)
    yield from _start(model, part)


def _names(
    model: PublishedModel, shapes: Mapping[str, list[int]], part: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """(what, ours, recorded) of names, shapes, types and counts."""
    state = to_published(model.state_dict())
    listed = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in state.items()]
    unused = [entry for entry in part["state_dict"] if entry[0] in UNUSED]
    yield "state_dict", sorted(listed + unused), sorted(part["state_dict"])
    yield "unused", sorted(entry[0] for entry in unused), sorted(UNUSED)
    fixed = {name for name in shapes if name.endswith("pos_embed")}
    trained = {published_name(n): p for n, p in model.named_parameters() if p.requires_grad}
    idle = sum(math.prod(shape) for _, shape, _ in unused)
    trainable = sum(p.numel() for p in trained.values()) + idle
    tables = sum(math.prod(shapes[name]) for name in fixed)
    yield "trainable_count", trainable, part["trainable_count"]
    yield "parameter_count", trainable + tables, part["parameter_count"]
    left = set(state) - {BIAS_TWIN} - set(trained)
    yield "not_trainable", sorted(left), sorted(part["not_trainable"])
    twins = state[BIAS].data_ptr() == state[BIAS_TWIN].data_ptr()
    yield "same_storage", [[BIAS, BIAS_TWIN]] if twins else [], part["same_storage"]
    plain = {name for name, p in trained.items() if p.ndim < 2}
    plain |= {name for name, shape, _ in unused if len(shape) < 2}
    groups = part["weight_decay_groups_timm_0_4_12"]
    yield "no_decay", sorted(plain), sorted(groups["no_decay"])
    decayed = {*trained, *UNUSED} - plain
    yield "decay", sorted(decayed), sorted(groups["decay"])


def _flags(model: PublishedModel, part: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(what, ours, recorded) of the output matrix, start rows, the layout of a checkpoint file."""
    words, output = model.text.embeddings.word_embeddings.weight, model.text.output
    assert output is not None
    same = output.weight is words
    shared = output.weight.data_ptr() == words.data_ptr()
    for name, ours in (
        ("mlm_decoder_weight_is_word_embedding", same),
        ("mlm_decoder_weight_shares_storage_with_word_embedding", shared),
    ):
        yield name, ours, part[name]
    rows = {
        "word_embedding_row0_is_zero": not words[0].any(),
        "cls.predictions.bias_is_zero": not model.text.bias.any(),
    }
    yield "init_rows", rows, part["init_rows"]
    yield "checkpoint_file_layout/model", "state_dict", part["checkpoint_file_layout"]["model"]


def _start(model: PublishedModel, part: Mapping[str, Any]) -> Iterator[Check]:
    """Spread of start values: both are samples, so they differ by chance, and not by more."""
    state = model.state_dict()
    for name, recorded in part["init_check_f32_std"].items():
        value = state[our_name(name) or ""]
        # A sample's standard deviation is off by less than 1 / sqrt(2 n) of itself.
        error = recorded / math.sqrt(value.numel())
        off = abs(float(value.double().std()) - recorded) / error
        yield Check(f"{FILE}/{PART}/init_check_f32_std/{name}", off, STANDARD_ERRORS)
