"""The contract of every plugin, as checks that any test can call.

    from ecamp.testing.contract import check_plugin
    check_plugin("ecamp.encoders", "my-encoder?width=32")

It raises AssertionError, which names the broken promise. `contract_parts` does the same part by part: it
yields the name of each part before it is checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecamp.api.dataset import SPLITS, USUAL_TRUTHS, Truth
from ecamp.api.encoder import DualEncoder, Encoder, Features, PatchEncoder
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.task import (
    FEATURES,
    Inputs,
    Predictor,
    TaskPlugin,
    TaskSplit,
    distinct_texts,
)
from ecamp.data.arrays import Arrays, materialise
from ecamp.data.decoding import check_records, check_sample
from ecamp.data.normalise import normaliser
from ecamp.datasets.phantom import PhantomConfig, PhantomDataset
from ecamp.metrics.stats import Metric, resample_counts
from ecamp.plugin.host import load_plugin, make_plugin
from ecamp.testing.distillers import distiller_parts
from ecamp.testing.pretexts import pretext_parts
from ecamp.testing.tiny_encoders import tiny_vit

EVALUATED = ("train", "val", "test")


def check_plugin(group: str, name: str, cache: Path | None = None) -> None:
    """Check one plugin by its one-line name.

    Args:
        group: `ecamp.encoders`, `ecamp.pretext`, `ecamp.datasets`, `ecamp.tasks` or
            `ecamp.distillers`.
        name: As on the command line, options included.
        cache: Where decoded images may be put; the user's cache by default.

    Raises:
        AssertionError: Names the broken promise.
    """
    for _ in contract_parts(group, PluginRef.parse(name), cache):
        pass


def contract_parts(group: str, ref: PluginRef, cache: Path | None = None) -> Iterator[str]:
    """Check one plugin part by part.

    Yields:
        The name of the part that is checked next.

    Raises:
        AssertionError: As `check_plugin`, in the part whose name came last.
    """
    yield "takes its options"
    plugin = make_plugin(group, ref)
    yield "is described"
    assert plugin.summary, f"{ref}: no one-line summary"
    assert plugin.licence, f"{ref}: no licence"
    for key, field in type(plugin).Config.model_fields.items():
        assert field.description, f"{ref}: option '{key}' is not described"
    parts: dict[str, Callable[[PluginRef, Path | None], Iterator[str]]] = {
        "ecamp.encoders": _encoder_parts,
        "ecamp.pretext": pretext_parts,
        "ecamp.datasets": _dataset_parts,
        "ecamp.tasks": _task_parts,
        "ecamp.distillers": distiller_parts,
    }
    yield from parts[group](ref, cache)


def _encoder_parts(ref: PluginRef, cache: Path | None) -> Iterator[str]:
    """Check shapes of the feature contract, determinism, gradients, saving and loading."""
    plugin = make_plugin("ecamp.encoders", ref)
    stated = plugin.input_spec.channels
    for channels in (stated,) if stated else (1, 3):
        yield f"features of images of {channels} channel{'s' * (channels > 1)}"
        torch.manual_seed(0)
        encoder: Encoder = plugin.build(channels)
        torch.manual_seed(0)
        twin: Encoder = plugin.build(channels)
        for key, value in encoder.state_dict().items():
            assert torch.equal(value, twin.state_dict()[key]), f"{ref}: {key} differs by build"
        assert encoder.image_size == plugin.image_size, f"{ref}: image_size of plugin and module"
        size = encoder.image_size
        images = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))
        encoder.eval()
        with torch.no_grad():
            out = encoder(images)
            again, alone = encoder(images), encoder(images[:1])
        _check_features(str(ref), out, 3, encoder.width)
        assert torch.equal(out.pooled, again.pooled), f"{ref}: eval mode is not deterministic"
        assert torch.allclose(out.pooled[:1], alone.pooled, atol=1e-4), (
            f"{ref}: an image's features depend on its batch"
        )
    yield "saving and loading"
    torch.manual_seed(1)
    other = plugin.build(channels)
    other.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(images).pooled, out.pooled), (
            f"{ref}: loading changes output"
        )
    yield "gradients"  # after loading: a training pass moves the statistics of normalisation layers
    _check_gradients(str(ref), encoder, images)
    if "visible" in plugin.provides:
        yield "visible patches"
        assert isinstance(encoder, PatchEncoder), f"{ref}: `visible` needs a PatchEncoder"
        keep = torch.tensor([[0, 2, 3]]).expand(3, -1)
        with torch.no_grad():
            shape = encoder.encode_visible(images, keep).shape
        assert shape == (3, 4, encoder.width), f"{ref}: encode_visible gives {tuple(shape)}"
    if "text" in plugin.provides:
        yield "texts"
        _check_text_side(str(ref), encoder, images)


def _check_text_side(name: str, encoder: Encoder, images: torch.Tensor) -> None:
    assert isinstance(encoder, DualEncoder), f"{name}: `text` needs a DualEncoder"
    texts = ["Effusion.", "There is no evidence of effusion, mass or nodule.", "", "Effusion."]
    with torch.no_grad():
        text_embeddings = encoder.embed_text(texts)
        alone = torch.cat([encoder.embed_text([text]) for text in texts])
        image_embeddings = encoder.embed_image(encoder(images))
    assert text_embeddings.shape == (4, image_embeddings.shape[1]), (
        f"{name}: texts and images are of different widths"
    )
    assert len(image_embeddings) == len(images), f"{name}: embed_image lost images"
    assert torch.isfinite(text_embeddings).all(), f"{name}: text embeddings are not finite"
    assert torch.allclose(text_embeddings, alone, atol=1e-4), (
        f"{name}: a text's embedding depends on others"
    )
    assert not torch.allclose(text_embeddings[0], text_embeddings[1], atol=1e-4), (
        f"{name}: all texts are embedded alike"
    )


def _check_features(name: str, out: Features, batch: int, width: int) -> None:
    rows, columns = out.grid
    assert out.pooled.shape == (batch, width), f"{name}: pooled is {tuple(out.pooled.shape)}"
    assert out.tokens.shape == (batch, rows * columns, width), f"{name}: tokens and grid disagree"
    assert out.pyramid, f"{name}: no pyramid"
    for level in out.pyramid:
        assert level.dim() == 4, f"{name}: a pyramid level has {level.dim()} axes, not 4"
        assert len(level) == batch, f"{name}: a pyramid level lost images"
    assert torch.isfinite(out.pooled).all(), f"{name}: features are not finite"


def _check_gradients(name: str, encoder: Encoder, images: torch.Tensor) -> None:
    encoder.train()
    out = encoder(images)
    parts = [out.pooled, out.tokens, *out.pyramid]
    # Random weights: a plain sum is constant behind a normalisation layer.
    generator = torch.Generator().manual_seed(2)
    total = sum((p * torch.randn(p.shape, generator=generator)).sum() for p in parts)
    assert isinstance(total, torch.Tensor)
    total.backward()
    dead = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not dead, f"{name}: no gradient reaches {dead[:3]}"
    encoder.zero_grad(set_to_none=True)
    encoder.eval()


def _dataset_parts(ref: PluginRef, cache: Path | None) -> Iterator[str]:
    """Check order, patient-disjoint splits, truths that fit, a stable fingerprint."""
    yield "records"
    dataset, twin = make_plugin("ecamp.datasets", ref), make_plugin("ecamp.datasets", ref)
    info, records = dataset.info, list(dataset.records())
    assert records == list(twin.records()), f"{ref}: records differ between two readings"
    assert dataset.fingerprint() == twin.fingerprint(), f"{ref}: fingerprint is not stable"
    check_records(records, info)
    yield "splits and labels"
    for record in records:
        assert record.split in SPLITS, f"{ref}: {record.id} has split '{record.split}'"
        if record.labels is not None:
            assert len(record.labels) == len(info.labels), f"{ref}: {record.id}: number of labels"
            assert set(record.labels) <= {0, 1, None}, f"{ref}: {record.id}: label values"
            if info.label_kind == "multiclass" and None not in record.labels:
                assert sum(record.labels) == 1, f"{ref}: {record.id}: not exactly one class"
    channels = info.channels
    assert len(info.mean) == len(info.std) == channels, f"{ref}: mean and std per channel"
    yield "images, masks and boxes"
    for record in [r for s in SPLITS for r in [x for x in records if x.split == s][:2]]:
        sample, again = check_sample(dataset, record, 64), twin.load(record, 64)
        assert sample.image.dtype == np.uint8, f"{ref}: images must be uint8"
        assert sample.image.shape[2] == channels, f"{ref}: {record.id}: channels"
        assert np.array_equal(sample.image, again.image), f"{ref}: {record.id} loads differently"
        if record.has_mask:
            assert sample.mask is not None, f"{ref}: {record.id} has no mask"
            assert len(sample.mask) == len(info.mask_classes), f"{ref}: {record.id}: mask channels"
        if record.has_boxes:
            assert sample.boxes is not None, f"{ref}: {record.id} has no boxes"


def _task_parts(ref: PluginRef, cache: Path | None) -> Iterator[str]:
    """Check a task by running it on a few phantom films, under each of its protocols.

    Heads and floors are fitted, predict without truth, and are scored twice from what was stored.
    A protocol that requires a capability of the encoder is left out: the phantom's encoder has none.
    Integer options whose name ends in `steps` are set to 3 unless `ref` sets them.
    """
    config = load_plugin("ecamp.tasks", ref).Config
    steps = {k: 3 for k, f in config.model_fields.items() if k.endswith("steps") and f.default}
    ref = ref.model_copy(update={"options": {**steps, **ref.options}})
    task = make_plugin("ecamp.tasks", ref)
    yield "needs, metric and protocols"
    own = task.needs not in USUAL_TRUTHS
    assert own == bool(task.needs_kind), (
        f"{ref}: needs '{task.needs}': state its kind in needs_kind, and only for a truth of its own"
    )
    assert task.primary, f"{ref}: no primary metric"
    assert task.protocols, f"{ref}: no protocol"
    unknown = set(task.requires) - set(task.protocols)
    assert not unknown, f"{ref}: requires something for unknown protocols {sorted(unknown)}"
    assert task.reads <= FEATURES, f"{ref}: reads unknown features {sorted(task.reads - FEATURES)}"
    data = PhantomDataset(PhantomConfig(pretrain=0, train=24, val=12, test=12))
    arrays = materialise(data, 32, splits=EVALUATED, cache=cache, workers=1)
    if own:
        arrays = _with_truth(arrays, task)
    parts = {split: arrays.subset(arrays.where(split)) for split in EVALUATED}
    for protocol in task.protocols:
        if protocol not in task.requires:
            yield f"protocol {protocol}"
            _check_protocol(f"{ref} {protocol}", task, parts, protocol)
    inputs = {split: _inputs(part, None) for split, part in parts.items()}
    train, val = (TaskSplit(inputs[s], task.targets(parts[s])) for s in ("train", "val"))
    for name, floor in task.floors().items():
        yield f"floor {name}"
        _check_score(f"{ref} floor {name}", task, floor(train, val, inputs["test"]), parts["test"])


def _with_truth(arrays: Arrays, task: TaskPlugin) -> Arrays:
    """Give the films the truth that a task asks for, made of their labels."""
    kind: Any = task.needs_kind
    truth = Truth(task.needs, kind, 3 if kind == "vector" else 0)
    numbers = np.nan_to_num(arrays.labels).astype(np.float64)
    findings = numbers.sum(1)
    values: dict[str, Any] = {
        "number": findings + np.arange(len(arrays)) / 100,
        "vector": np.stack([findings, findings**2, np.arange(len(arrays)) / 100], 1),
        "text": tuple(f"{count:g} findings" for count in findings),
        "points": tuple(np.full((int(count), 2), 5.0, np.float32) for count in findings),
    }
    info = replace(arrays.info, truths=(truth,))
    return replace(arrays, info=info, truths={task.needs: values[kind]})


def _check_protocol(name: str, task: TaskPlugin, parts: dict[str, Arrays], protocol: str) -> None:
    def fitted() -> tuple[Predictor, dict[str, np.ndarray]]:
        torch.manual_seed(0)
        encoder = tiny_vit().build(1).eval()
        tuned = protocol in task.tunes
        inputs = {s: _inputs(part, None if tuned else encoder) for s, part in parts.items()}
        train, val = (TaskSplit(inputs[s], task.targets(parts[s])) for s in ("train", "val"))
        torch.manual_seed(0)
        head = task.fit(encoder if tuned else None, train, val, protocol=protocol, seed=0)
        return head, head.predict(inputs["test"])

    head, predicted = fitted()
    again = fitted()[1]
    assert predicted, f"{name}: predict gives nothing"
    for key, value in predicted.items():
        assert isinstance(value, np.ndarray), f"{name}: prediction '{key}' is not a numpy array"
        same = np.array_equal(value, again[key], equal_nan=value.dtype.kind == "f")
        assert same, f"{name}: '{key}' differs between two fits of one seed"
    json.dumps(head.selected)  # as result.json will hold it
    for key, weight in head.state_dict().items():
        assert isinstance(weight, torch.Tensor), f"{name}: weight '{key}' is not a tensor"
    _check_score(name, task, predicted, parts["test"])


def _check_score(
    name: str, task: TaskPlugin, predicted: dict[str, np.ndarray], test: Arrays
) -> None:
    targets = task.targets(test)
    shared = sorted(predicted.keys() & targets.keys())
    assert not shared, f"{name}: predictions and targets share the names {shared}"
    stored = {**targets, **predicted}
    assert not stored.keys() & {"ids", "patients"}, f"{name}: 'ids' and 'patients' are reserved"
    counts = resample_counts(test.patients, 100)
    metrics = task.score(predicted, targets, counts)
    assert task.primary in metrics, f"{name}: no metric '{task.primary}'"
    for key, metric in metrics.items():
        assert isinstance(metric, Metric), f"{name}: '{key}' is not an ecamp.api.Metric"
        assert metric.value is None or np.isfinite(metric.value), f"{name}: {key} is not finite"
        assert metric.value is not None or metric.reason, f"{name}: '{key}' is undefined, no reason"
    # Scoring again reads what was stored, truth and predictions in one mapping.
    rescored = task.score(stored, stored, counts)
    value, twice = metrics[task.primary].value, rescored[task.primary].value
    assert value == twice, f"{name}: scored again, {task.primary} is {twice}, not {value}"
    for index in range(len(test)):
        truth, drawn = task.overlay(stored, stored, index)
        for overlay in (truth, drawn):
            for _, mask in overlay.masks:
                assert mask.ndim == 2, f"{name}: an overlay's mask has {mask.ndim} axes, not 2"


def _inputs(part: Arrays, encoder: Encoder | None) -> Inputs:
    normalise = normaliser(part.info)
    texts, _ = distinct_texts(part.reports)
    if encoder is None:
        return Inputs(part.images, None, normalise, texts)
    with torch.no_grad():
        return Inputs(part.images, encoder(normalise(part.images)), normalise, texts)
