"""Dense heads on every kind of encoder: shapes, gradients, learning, repeatability."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ecamp.api.encoder import Encoder
from ecamp.published.downstream.yolo import published_anchors
from ecamp.tasks import feature_batches as running
from ecamp.tasks.detection.fcos_head import DenseHead
from ecamp.tasks.detection.head import BoxHead
from ecamp.tasks.detection.yolo_head import YOLOv3, _as_rows
from ecamp.tasks.neck import Neck, Standardise, nearest_level
from ecamp.tasks.segmentation.heads import HEADS
from ecamp.testing.recipes import check_schedule
from ecamp.train.heads import HeadRecipe, Model, train_head
from tests.tasks.planted import Planted, Problem, build, features

RESNET = "timm/resnet18"
ENCODERS = [
    "timm/resnet18?image_size=64", "timm/resnet18?image_size=100", "timm/resnet50?image_size=64",
    "timm/resnet50?image_size=32", "timm/convnext_atto?image_size=64",
    "timm/convnext_atto?image_size=96", "vit-micro?image_size=64&width=32&depth=2&heads=2",
    "vit-micro?image_size=56&width=32&depth=2&heads=2", "vit-micro?image_size=48&patch_size=16",
]  # fmt: skip


def _features(name: str, count: int = 3):
    encoder = build(name)
    return features(encoder, Planted(count, encoder.image_size).images), encoder.image_size


@pytest.mark.parametrize("name", ENCODERS)
def test_a_pyramid_goes_from_fine_to_coarse_and_starts_at_a_quarter(name: str) -> None:
    found, size = _features(name)
    rows = [level.shape[2] for level in found.pyramid]
    assert rows == sorted(rows, reverse=True)
    if name.startswith("timm"):
        assert [round(size / r) for r in rows] == pytest.approx([4, 8, 16, 32], rel=0.3)
        assert found.tokens.shape[1] == rows[-1] ** 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", HEADS)
def test_mask_heads_fit_every_pyramid(name: str, head: str) -> None:
    found, size = _features(name)
    torch.manual_seed(0)
    model = HEADS[head](found, size, 3, 16)
    logits = model(found)
    assert logits.shape == (3, 3, size, size)
    (logits * torch.randn(logits.shape)).sum().backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, f"no gradient reaches {parameter}"
        assert torch.isfinite(value.grad).all()
    with torch.no_grad():
        alone = model.eval()(running.Inputs(np.zeros(3), found, None).batch_features(np.array([1])))
    torch.testing.assert_close(alone, model(found)[1:2], atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("head", [DenseHead, YOLOv3])
def test_box_heads_fit_every_pyramid(name: str, head: type[BoxHead]) -> None:
    found, size = _features(name, 2)
    torch.manual_seed(0)
    model = head(found, size, 2, *([16] if head is DenseHead else []))
    outputs = model(found)
    boxes, scores = model.boxes(outputs)
    assert boxes.shape == (*scores.shape[:2], 4)
    assert scores.shape[2] == 2
    assert ((scores >= 0) & (scores <= 1)).all()
    some = torch.tensor([[1.0, 1, 20, 20], [size / 2, size / 2, size, size]])
    truth = [(some, torch.tensor([0, 1])), (some[:0], torch.zeros(0, dtype=torch.long))]
    loss = model.loss(outputs, truth)
    loss.backward()
    assert torch.isfinite(loss)
    dead = [n for n, p in model.named_parameters() if p.grad is None]
    assert not dead
    nothing = [truth[1], truth[1]]
    assert torch.isfinite(model.loss(model(found), nothing))


# Chance: 0.25 Dice (a square of a quarter of the film, everything marked: 0.4), 0 mAP.
DENSE = [
    ("seg", "frozen", {"steps": 60}, 0.85),
    ("seg", "frozen", {"steps": 60, "loss": "published"}, 0.85),
    ("seg", "frozen", {"steps": 150, "head": "linear"}, 0.65),
    ("seg", "frozen", {"steps": 40, "head": "pyramid", "width": 32}, 0.8),
    pytest.param(
        "seg",
        "frozen",
        {"steps": 20, "head": "conv", "batch_size": 8},
        0.7,
        marks=pytest.mark.slow,
    ),
    ("seg", "finetune", {"steps": 40}, 0.85),
    ("det", "frozen", {"steps": 100}, 0.8),
    ("det", "finetune", {"steps": 60}, 0.6),
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "protocol", "options", "least"), DENSE)
def test_a_planted_square_is_found_the_same_way_twice(
    task: str, protocol: str, options: dict, least: float
) -> None:
    problem = Problem(task)
    first, found = problem.fit(protocol, **options)
    assert problem.score(found) > least
    again, same = problem.fit(protocol, **options)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert found.keys() == same.keys()
    for name, value in found.items():
        assert np.array_equal(value, same[name]), name


@pytest.mark.slow
def test_the_published_detector_learns() -> None:
    problem = Problem("det")
    _, found = problem.fit("frozen", head="yolov3", steps=45)
    assert problem.score(found) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("task", ["seg", "det"])
@pytest.mark.parametrize(
    "name", ["timm/resnet18?image_size=64", "timm/convnext_atto?image_size=64"]
)
def test_heads_learn_on_convolutional_encoders(task: str, name: str) -> None:
    problem = Problem(task, name, size=64)
    _, found = problem.fit("frozen", steps=60)
    assert problem.score(found) > {"seg": 0.85, "det": 0.5}[task]


@pytest.mark.parametrize(
    ("task", "protocol"), [("seg", "frozen"), ("det", "frozen"), ("seg", "finetune")]
)
def test_batch_sizes_of_prediction_do_not_matter(
    task: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = Problem(task).fit(protocol, steps=15)
    monkeypatch.setattr(running, "BATCH", 7)
    _, parts = Problem(task, batch=5).fit(protocol, steps=15)
    if task == "seg":
        assert (whole["mask"] != parts["mask"]).mean() < 1e-3
        return
    assert len(whole["scores"]) == len(parts["scores"])
    np.testing.assert_allclose(parts["scores"], whole["scores"], atol=1e-3)


def test_frozen_heads_train_on_the_cache_and_never_read_an_image() -> None:
    problem = Problem("seg")
    for name, split in problem.splits.items():
        blind = running.Inputs(
            np.broadcast_to(np.uint8(0), split.inputs.images.shape), split.inputs.features, None
        )
        problem.splits[name] = type(split)(blind, split.targets)
    _, found = problem.fit("frozen", steps=60)
    assert problem.score(found) > 0.85


# --- recipe of training ---------------------------------------------------------------------------


@pytest.fixture
def steps() -> Iterator[list[dict[int, float]]]:
    """At each optimiser step: the rate of each parameter, by its identity."""
    seen: list[dict[int, float]] = []

    def note(optimizer: Optimizer, args: object, kwargs: object) -> None:
        groups = optimizer.param_groups
        seen.append({id(p): group["lr"] for group in groups for p in group["params"]})

    hook = register_optimizer_step_pre_hook(note)
    yield seen
    hook.remove()


def test_rates_fall_from_head_to_first_layer(steps: list[dict[int, float]]) -> None:
    for name, first, last in (
        ("vit-micro?width=32&depth=2&heads=2&image_size=32", "vit.patch_embed.proj.weight",
         "vit.blocks.1.attn.qkv.weight"),
        ("timm/resnet18?image_size=32", "body.conv1.weight", "body.layer4.0.conv1.weight"),
    ):  # fmt: skip
        fitted, _ = Problem("seg", name, train=8).fit(
            "finetune", steps=1, lr=1.0, encoder_lr_scale=0.1
        )
        rates = {name: steps[-1][id(p)] for name, p in fitted.model.named_parameters()}
        top = rates["head.out.weight"]
        layers = {"vit": 3, "tim": 5}[name[:3]]
        assert top > 0
        assert rates[f"encoder.{last}"] == pytest.approx(0.1 * 0.75 * top)
        assert rates[f"encoder.{first}"] == pytest.approx(0.1 * 0.75**layers * top)


def test_training_stops_after_looks_without_a_new_best(steps: list[dict[int, float]]) -> None:
    """Looked at after 5, 10, 15 and 20 of 50 steps; the third best of all never comes."""
    model = Model(torch.nn.Linear(2, 1), None)
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    kept: list[torch.Tensor] = []

    def validate() -> float:
        kept.append(model.head.weight.detach().clone())
        return next(scores)

    fit = train_head(
        model, lambda index, step: model(torch.ones(len(index), 2)).pow(2).mean(), validate,
        count=8, recipe=HeadRecipe(steps=50, validations=10, patience=2), lr=0.1, seed=0,
    )  # fmt: skip
    assert len(steps) == 20
    assert (fit.best_step, fit.best_score) == (10, 0.5)
    assert torch.equal(model.head.weight, kept[1])
    assert not torch.equal(model.head.weight, kept[3])


def test_the_lr_of_heads_ends_where_training_ends(steps: list[dict[int, float]]) -> None:
    Problem("det", train=16).fit("frozen", steps=25)
    assert len(steps) == 25
    assert all(len(set(rates.values())) == 1 for rates in steps)
    check_schedule([next(iter(rates.values())) for rates in steps])


@pytest.mark.slow
def test_a_single_training_image_is_enough_to_run() -> None:
    for name in ("timm/resnet18?image_size=32", "vit-micro?image_size=32&width=32&depth=1&heads=2"):
        _, found = Problem("seg", name, train=1).fit("finetune", steps=2)
        assert found["mask"].shape == (96, 1, 32, 32)


# --- parts ----------------------------------------------------------------------------------------


def test_a_channel_dead_in_training_does_not_blow_up() -> None:
    level = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    level[:, 1] = 0
    made = Standardise([level])
    (scaled,) = made([level + torch.tensor([0.0, 1.0, 0.0])[:, None, None]])
    assert float(scaled.abs().max()) < 500
    plain = (level[:, 0] - level[:, 0].mean()) / level[:, 0].std(unbiased=False)
    torch.testing.assert_close(made([level])[0][:, 0], plain, atol=1e-4, rtol=1e-4)


def test_one_cell_of_one_image_has_statistics() -> None:
    made = Standardise([torch.randn(1, 8, 1, 1)])
    assert all(torch.isfinite(value).all() for value in made.buffers())


def test_the_nearest_level_is_by_ratio_and_the_deepest_of_equals() -> None:
    levels = [torch.zeros(1, 1, r, r) for r in (56, 28, 14, 7)]
    assert nearest_level(levels, 14) == 2
    assert nearest_level(levels, 20) == 1  # 14 is nearer by difference, 28 by ratio
    assert nearest_level([torch.zeros(1, 1, 14, 14)] * 2, 28) == 1


def test_boxes_are_given_to_the_published_loss_as_fractions() -> None:
    truth = [
        (torch.tensor([[0.0, 10.0, 20.0, 50.0], [90.0, 90.0, 110.0, 110.0]]), torch.tensor([1, 0])),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    ]
    rows = _as_rows(truth, 100)
    assert rows.shape == (2, 2, 5)
    assert rows[0, 0].tolist() == pytest.approx([1, 0.1, 0.3, 0.2, 0.4])
    assert rows[0, 1, 1] < 1  # its centre lies on the edge, and no cell is beyond
    assert not rows[1].any()


def test_anchors_grow_with_the_image() -> None:
    found, _ = _features("vit-micro?image_size=32&width=32&depth=1&heads=2", 1)
    torch.testing.assert_close(YOLOv3(found, 448, 1).anchors, published_anchors() * 2)


def _neck_grid(encoder: Encoder, size: int) -> tuple[int, int]:
    return Neck(features(encoder, Planted(2, size).images), size, 16).grid


def test_the_neck_works_on_an_eighth() -> None:
    assert _neck_grid(build("timm/resnet18?image_size=96"), 96) == (12, 12)
    assert _neck_grid(build("vit-micro?image_size=64"), 64) == (8, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "same"),
    [("seg", {"head": "conv", "loss": "published"}), ("det", {"head": "yolov3"})],
)
def test_published_is_the_published_head_and_loss_on_frozen_features(task: str, same: dict) -> None:
    problem = Problem(task, train=16)
    published, found = problem.fit("published", steps=3)
    ours, expected = problem.fit("frozen", steps=3, **same)
    assert published.model.encoder is None
    assert published.state_dict().keys() == ours.state_dict().keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name
