"""The published classification: mean-pooled ViT, and the numbers its `valid()` reports.

Kept here (docs/published-flaws.md#f24): the loss is a plain mean over batches, whatever their size,
and AUROC is computed from float32 sigmoids, where large logits tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ecamp.published.downstream.vit import Start, ViTShape, load_named


def classifier(classes: int, shape: ViTShape | None = None) -> VisionTransformer:
    """Build a ViT, mean over patch tokens, a new layer norm, a linear head; drop-path 0.1.

    timm's own module with global average pooling computes exactly that, under the published names.
    """
    shape = shape or ViTShape()
    return VisionTransformer(
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        num_classes=classes,
        global_pool="avg",
        drop_path_rate=0.1,
    )


def start_classifier(
    model: nn.Module, checkpoint: Mapping[str, Tensor], *, linear_probe: bool = False
) -> Start:
    """Start from a checkpoint's `model`: every tensor with a matching name, and a head near zero.

    The checkpoint's final norm is not used: the new `fc_norm` starts at identity. The published
    linear probe freezes all but the head, that untrained norm included.

    Raises:
        DataError: When a tensor has another shape.
    """
    usable = dict(checkpoint)
    for name in ("head.weight", "head.bias"):
        if name in usable and usable[name].shape != model.state_dict()[name].shape:
            del usable[name]
    result = load_named(model, usable)
    nn.init.trunc_normal_(model.get_parameter("head.weight"), std=2e-5)
    if linear_probe:
        model.requires_grad_(False)
        model.get_submodule("head").requires_grad_(True)
    return result


@dataclass(frozen=True)
class Validation:
    """Numbers that the published `valid()` reports.

    Attributes:
        result: Macro AUROC (multi-label) or accuracy (exclusive classes).
        loss: Mean over batches of the batch means.
        auroc: Per class; empty for exclusive classes.
        accuracy: Fraction of correct labels; multi-label: element by element at probability 0.5.
    """

    result: float
    loss: float
    auroc: list[float]
    accuracy: float


def valid(logits: Tensor, labels: Tensor, batch_sizes: Sequence[int]) -> Validation:
    """Score logits as the published validation does.

    Args:
        logits: float32 (n, classes).
        labels: (n, classes) of 0 and 1, or (n, 1) class indices when there are more classes.
        batch_sizes: How the n images were batched; the loss depends on it.

    Raises:
        ValueError: From scikit-learn, when a class has one label only (the published code too).
    """
    multilabel = labels.shape[1] == logits.shape[1]
    batches = zip(logits.split(list(batch_sizes)), labels.split(list(batch_sizes)), strict=True)
    if not multilabel:
        losses = [F.cross_entropy(x, y.squeeze(1).long()).item() for x, y in batches]
        accuracy = float((logits.argmax(1) == labels.squeeze(1)).float().mean(dtype=torch.float64))
        return Validation(accuracy, float(np.mean(losses)), [], accuracy)
    losses = [F.binary_cross_entropy_with_logits(x, y.float()).item() for x, y in batches]
    probability, truth = logits.sigmoid(), labels.numpy()
    auroc = [
        float(roc_auc_score(truth[:, k], probability[:, k].numpy())) for k in range(truth.shape[1])
    ]
    accuracy = float(((probability > 0.5) == (labels > 0.5)).float().mean(dtype=torch.float64))
    return Validation(float(np.mean(auroc)), float(np.mean(losses)), auroc, accuracy)
