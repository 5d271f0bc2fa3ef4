"""checkpoint_keys.json, downstream models: names, shapes, counts, and what a checkpoint gives them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecamp.published.downstream.classification import classifier, start_classifier
from ecamp.published.downstream.detection import EXPANSION, Detector
from ecamp.published.downstream.segmentation import SegViT, seg_vit_riga
from ecamp.published.downstream.vit import Start, published_names, start_dense
from ecamp.published.downstream.yolo import published_anchors
from tests.golden.check import EXACT, Check, compare, read_json

FILE = "checkpoint_keys.json"
PRE_TRAINING = "ECAMP_vit_base"  # checked with the pre-training model; here the checkpoint to load


def key_checks(folder: Path) -> Iterator[Check]:
    """Every field of every downstream model; a field that no check looks at fails."""
    file = read_json(folder / FILE)
    checkpoint = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, shape, dtype in file[PRE_TRAINING]["state_dict"]
    }
    for name, recorded in file.items():
        if name != PRE_TRAINING:
            yield from _model(name, recorded, checkpoint)


def _build(name: str, recorded: dict[str, Any]) -> nn.Module:
    if name.startswith("Classifier"):
        classes = re.search(r"num_classes=(\d+)", recorded["arguments"])
        return classifier(int(classes[1]) if classes else 0)
    if match := re.fullmatch(r"Detector_expansion(\d+)", name):
        return Detector(expansion=int(match[1]))
    return {"SegViT": SegViT, "SegViT_RIGA": seg_vit_riga}[name]()


def _model(name: str, recorded: dict[str, Any], checkpoint: dict[str, Tensor]) -> Iterator[Check]:
    with torch.device("meta"):
        model = _build(name, recorded)
    names = published_names(model)
    listed = [
        (names[ours], list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for ours, tensor in model.state_dict().items()
    ]
    counts: dict[str, Callable[[], int]] = {
        "parameter_count": lambda: _size(model),
        "decoder_parameter_count": lambda: _size(model.get_submodule("decoders")),
        "detection_layers_parameter_count": lambda: _size(model.get_submodule("maps")),
        "yolo_head_parameter_count": lambda: _size(model.get_submodule("head")),
    }
    for field, value in recorded.items():
        label = f"{FILE}/{name}/{field}"
        if field == "state_dict":
            yield _same(label, map(str, listed), [str(tuple(row)) for row in value])
        elif field in counts:
            yield compare(label, counts[field](), value, EXACT)
        elif field == "published_setup":
            yield from _setup(label, model, checkpoint, value)
        elif field == "published_setup_linear_probe":
            start_classifier(model, checkpoint, linear_probe=True)
            yield from _trainable(label, model, value)
            yield from _unknown(label, value, {"trainable", "trainable_count"})
        elif field == "arguments":
            yield Check(f"{label}: drop_path_rate", "drop_path_rate=0.1" not in value, EXACT)
        elif field == "drop_path_rates":
            blocks = model.get_submodule("blocks").children()
            rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
            yield compare(label, rates, np.array(value), 1e-6)
        elif field == "head_weight_std_after_setup":
            yield compare(label, _head_spread(recorded), value, 0.1)
        elif field == "fc_norm_is_identity_after_setup":
            yield Check(label, value is not True, EXACT)  # `missing` has both of its tensors
        elif field == "used_for_data_volume":
            ours = [str(v) for v, e in EXPANSION.items() if name.endswith(f"expansion{e}")]
            yield _same(label, ours, value)
        elif field == "not_in_state_dict":
            text = str(list(published_anchors().shape)).replace(" ", "")
            yield Check(label, text not in value["anchors"], EXACT)
            yield from _unknown(label, value, {"anchors"})
        else:
            yield Check(label, float("nan"), EXACT, "unknown field")


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _same(label: str, ours: Any, theirs: Collection[str]) -> Check:
    """Equal as sorted lists: state_dict order is torch's and timm's business."""
    mine, other = sorted(ours), sorted(theirs)
    wrong = sorted(set(mine) ^ set(other))
    note = f"{len(wrong)} differ, e.g. {wrong[0]}" if wrong else ""
    return Check(label, float(mine != other), EXACT, note)


def _setup(
    label: str, model: nn.Module, checkpoint: dict[str, Tensor], recorded: dict[str, Any]
) -> Iterator[Check]:
    is_classifier = not hasattr(model, "encoder")
    with warnings.catch_warnings():
        # Only names and shapes count here; torch warns that nothing is copied to "meta" tensors.
        warnings.filterwarnings("ignore", message=".*no-op.*", category=UserWarning)
        start: Start = (start_classifier if is_classifier else start_dense)(model, checkpoint)
    yield _same(f"{label}/loaded_keys", start.loaded, recorded["loaded_keys"])
    yield _same(f"{label}/missing_keys", start.missing, recorded["missing_keys"])
    yield _same(f"{label}/unexpected_keys", start.unexpected, recorded["unexpected_keys"])
    yield compare(f"{label}/total_count", _size(model), recorded["total_count"], EXACT)
    yield from _trainable(label, model, recorded)
    known = {"loaded_keys", "missing_keys", "unexpected_keys", "total_count"}
    yield from _unknown(label, recorded, known | {"trainable", "frozen", "trainable_count"})


def _trainable(label: str, model: nn.Module, recorded: dict[str, Any]) -> Iterator[Check]:
    names, parameters = published_names(model), dict(model.named_parameters())
    trainable = [names[ours] for ours, p in parameters.items() if p.requires_grad]
    frozen = [names[ours] for ours, p in parameters.items() if not p.requires_grad]
    yield _same(f"{label}/trainable", trainable, recorded["trainable"])
    if "frozen" in recorded:
        yield _same(f"{label}/frozen", frozen, recorded["frozen"])
    count = sum(p.numel() for p in parameters.values() if p.requires_grad)
    yield compare(f"{label}/trainable_count", count, recorded["trainable_count"], EXACT)


def _unknown(label: str, recorded: dict[str, Any], known: set[str]) -> Iterator[Check]:
    for field in sorted(set(recorded) - known):
        yield Check(f"{label}/{field}", float("nan"), EXACT, "unknown field")


def _head_spread(recorded: dict[str, Any]) -> float:
    """Standard deviation of a real head after the published start (the draw itself is random)."""
    shapes = {name: shape for name, shape, _ in recorded["state_dict"]}
    classes, width = shapes["head.weight"]
    model = nn.ModuleDict({"head": nn.Linear(width, classes)})
    start_classifier(model, {})
    return float(model.get_parameter("head.weight").detach().std())
