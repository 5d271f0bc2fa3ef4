"""What a pretext task may decide: views, optimiser, defaults, the module that is the result."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ecamp.api.encoder import Encoder
from ecamp.api.plugin import PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.pretext import (
    Objective,
    PretextBatch,
    PretextContext,
    PretextPlugin,
    ViewSpec,
)
from ecamp.bench.plan import make_plan
from ecamp.config import BenchSpec
from ecamp.data.arrays import materialise
from ecamp.data.augment import sample_augmentation
from ecamp.data.augmentation import Augmentation
from ecamp.errors import UsageError
from ecamp.plugin import host
from ecamp.plugin.host import make_plugin
from ecamp.train.pairs import PairDataset, PairSubset, make_batches
from ecamp.train.pretrain import Trainer, pretrain
from ecamp.train.recipe import PretrainRecipe
from ecamp.train.views import MIN_SIGMA, _blur, draw_view

RECIPE = PretrainRecipe(steps=3, batch_size=6, precision="fp32", warmup=0.0)
STRONG = ViewSpec(crop=0.3, flip=True, jitter=0.4, blur=2.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    dataset = make_plugin(
        "ecamp.datasets", PluginRef.parse("phantom?pretrain=20&train=4&val=2&test=2")
    )
    cache = tmp_path_factory.mktemp("cache")
    arrays = materialise(dataset, 64, splits=["pretrain"], cache=cache, workers=1)
    return PairDataset([PairSubset(arrays, np.arange(len(arrays)))])


def encoder() -> Encoder:
    torch.manual_seed(0)
    return make_plugin(
        "ecamp.encoders",
        PluginRef.parse("vit-micro?image_size=32&patch_size=8&width=32&depth=2&heads=2"),
    ).build(1)


# --- views --------------------------------------------------------------------------------------


def test_views_are_functions_of_seed_step_and_number_and_of_nothing_else(
    source: PairDataset,
) -> None:
    def views(step: int = 0, specs: tuple[ViewSpec, ...] = (STRONG, STRONG), **fields: Any) -> Any:
        recipe = RECIPE.model_copy(update=fields)
        batches = make_batches(source, recipe, step, specs)
        return [torch.cat([batch.views[k].images for batch in batches]) for k in range(len(specs))]

    first, second = views()
    assert first.shape == (6, 1, 32, 32)
    assert first.is_contiguous()
    assert not torch.equal(first, second)
    assert all(map(torch.equal, views(), (first, second)))
    # Parts of a batch, and views before it, change nothing.
    assert all(map(torch.equal, views(accumulate=3), (first, second)))
    assert torch.equal(views(specs=(ViewSpec(), STRONG))[1], second)
    assert torch.equal(views(specs=(STRONG,))[0], first)
    assert not torch.equal(views(step=1)[0], first)
    # The recipe's own crop is as without views.
    plain, drawn = (make_batches(source, RECIPE, 0, specs)[0] for specs in ((), (STRONG,)))
    assert torch.equal(plain.images, drawn.images)
    assert plain.views == ()


def test_a_view_is_the_crop_with_contrast_brightness_and_blur(source: PairDataset) -> None:
    """Against a plain computation in grey values, blurred by scipy."""
    drawn = draw_view(6, STRONG, 0, 0, 0)
    index = np.arange(6)
    (images, crop, flip) = (
        (view := drawn.make(source, index, index, 2)).images, view.crop, view.flip,
    )  # fmt: skip
    plain, _ = source.crops(index, crop, flip, 2)
    mean, std = source.info.mean[0], source.info.std[0]
    for i in range(6):
        grey = plain[i, 0].double().numpy() * std  # fraction of white, about the mean
        moved = grey * float(drawn.warp.contrast[i]) + float(drawn.warp.brightness[i])
        sigma = float(drawn.sigma[i])
        if sigma > 0:
            radius = max(1, int(np.ceil(3 * sigma)))
            moved = gaussian_filter(moved, sigma, mode="mirror", radius=radius)
        np.testing.assert_allclose(images[i, 0].double().numpy() * std, moved, atol=2e-5)
    assert (drawn.sigma > 0).any()
    assert (drawn.sigma == 0).any()
    assert 0 < mean < 1
    assert ((drawn.sigma == 0) | ((drawn.sigma >= MIN_SIGMA) & (drawn.sigma <= 2))).all()


def test_without_strength_a_view_is_the_whole_image(source: PairDataset) -> None:
    spec = ViewSpec(crop=1.0, jitter=0.0)
    (batch,) = make_batches(source, RECIPE.model_copy(update={"crop": None}), 0, [spec])
    torch.testing.assert_close(batch.views[0].images, batch.images)
    assert batch.crop.tolist() == [[0.0, 0.0, 1.0, 1.0]] * 6
    arrays = source.parts[0].arrays
    stored = torch.from_numpy(np.array(arrays.images[batch.index.numpy()])).permute(0, 3, 1, 2)
    grey = (stored.double() / 255 - arrays.info.mean[0]) / arrays.info.std[0]
    torch.testing.assert_close(batch.images_large.double(), grey, atol=1e-5, rtol=0)


def test_a_blur_of_nothing_changes_no_bit() -> None:
    image = torch.rand(1, 8, 8)
    assert torch.equal(_blur(image, 0.0), image)
    assert not torch.equal(_blur(image, 50.0), image)  # a kernel larger than the image


def test_the_ranges_of_a_view_are_those_of_an_augmentation() -> None:
    warp = draw_view(500, STRONG, 3, 4, 1).warp
    reference = sample_augmentation(
        500, Augmentation(crop=0.3, jitter=0.4, flip=True), torch.Generator().manual_seed(0)
    )
    for name in ("crop", "contrast", "brightness"):
        found, expected = getattr(warp, name), getattr(reference, name)
        torch.testing.assert_close(found.mean(0), expected.mean(0), atol=0.06, rtol=0)
        torch.testing.assert_close(found.amax(0), expected.amax(0), atol=0.06, rtol=0)


# --- optimiser and result -----------------------------------------------------------------------


class Averaged(Objective):
    """Objective with a head of its own rate, plain SGD, and a teacher as its result."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, 1)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.parts: list[tuple[int, int]] = []

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        self.parts.append((batch.part, batch.parts))
        return {"loss": self.head(self.encoder(batch.images).pooled).square().mean()}

    def lr_scales(self) -> Mapping[str, float]:
        return {"head.": 10.0}

    def make_optimizer(
        self, groups: list[dict[str, Any]], recipe: Mapping[str, Any]
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=recipe["lr"])

    @torch.no_grad()
    def after_step(self) -> None:
        for slow, fast in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 0.25)

    def result(self) -> nn.Module:
        return self.teacher


def test_the_teacher_is_what_is_stored_and_the_optimiser_is_the_objectives(
    source: PairDataset, tmp_path: Path
) -> None:
    objective = Averaged(encoder())
    start = {name: value.clone() for name, value in objective.encoder.state_dict().items()}
    recipe = RECIPE.model_copy(update={"steps": 1, "clip": None, "weight_decay": 0.0})
    head = objective.head.weight.detach().clone()
    weights = load_file(pretrain(objective, source, recipe, tmp_path, "key"))
    after = objective.encoder.state_dict()
    assert any(not torch.equal(start[name], after[name]) for name in start)
    for name, value in weights.items():
        expected = start[name] + 0.25 * (after[name] - start[name])
        torch.testing.assert_close(value, expected)
    # One step of plain descent at ten times the rate.
    gradient = objective.head.weight.grad
    assert gradient is not None
    torch.testing.assert_close(objective.head.weight, head - 10 * recipe.lr * gradient)


def test_an_average_follows_the_result(source: PairDataset) -> None:
    recipe = RECIPE.model_copy(update={"ema": 0.5})
    trainer = Trainer(Averaged(encoder()), recipe, len(source))
    trainer.update(make_batches(source, recipe, 0))
    teacher = trainer.objective.result().state_dict()
    start = encoder().state_dict()
    for name, value in trainer.encoder_state().items():
        torch.testing.assert_close(value, (start[name] + teacher[name]) / 2)


def test_parts_of_a_batch_are_numbered(source: PairDataset) -> None:
    recipe = RECIPE.model_copy(update={"accumulate": 3})
    objective = Averaged(encoder())
    Trainer(objective, recipe, len(source)).update(make_batches(source, recipe, 0))
    assert objective.parts == [(0, 3), (1, 3), (2, 3)]


def test_the_context_has_patients_labels_and_the_recipe(source: PairDataset) -> None:
    context = source.context(RECIPE)
    arrays = source.parts[0].arrays
    assert context.patients == arrays.patients
    np.testing.assert_array_equal(context.labels, arrays.labels)
    assert context.image_size == 32
    assert context.recipe["batch_size"] == 6
    pooled = PairDataset([*source.parts, *source.parts]).context(RECIPE)
    assert len(pooled.patients) == len(pooled.labels) == 2 * len(arrays)


# --- planning -----------------------------------------------------------------------------------


class Contrastive(PretextPlugin[PluginConfig]):
    """Pretext task that prefers its own recipe and needs whole batches."""

    summary, licence, citation = "contrastive", "MIT", "a test"
    whole_batch = True

    def recipe_defaults(self) -> Mapping[str, Any]:
        return {"lr": 3e-4, "steps": 11}

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        return Averaged(encoder)


@pytest.fixture
def contrastive(monkeypatch: pytest.MonkeyPatch) -> None:
    real = host.find_plugin

    def find(group: str, ref: PluginRef, *, any_variant: bool = False) -> host.LoadedPlugin:
        if ref.name != "contrastive":
            return real(group, ref, any_variant=any_variant)
        origin = real("ecamp.pretext", PluginRef(name="mae")).origin
        return host.LoadedPlugin(Contrastive, origin)

    monkeypatch.setattr("ecamp.bench.pretraining.find_plugin", find)


def plan(**fields: Any) -> PretrainRecipe:
    spec = BenchSpec(tasks="cls", seeds=[0], pretext=fields.pop("pretext", "contrastive"), **fields)
    return make_plan(spec).pretrainings[0].recipe


@pytest.mark.usefixtures("contrastive")
def test_defaults_of_a_method_yield_to_the_user() -> None:
    assert (plan().lr, plan().steps, plan().batch_size) == (3e-4, 11, PretrainRecipe().batch_size)
    assert plan(pretrain={"steps": 5}).steps == 5
    assert plan(pretext="contrastive?steps=7", pretrain={"steps": 5}).steps == 7


@pytest.mark.usefixtures("contrastive")
def test_a_loss_over_the_whole_batch_refuses_accumulation() -> None:
    with pytest.raises(UsageError, match="whole batch: accumulate=2 would be another loss"):
        plan(pretrain={"accumulate": 2})
