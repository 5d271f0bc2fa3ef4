"""The input that an encoder states is part of the identity of everything made from its images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecamp.api.encoder import AS_STORED, InputSpec
from ecamp.bench.estimate import estimate_cost
from ecamp.bench.feature_cache import feature_key
from ecamp.bench.plan import Plan, make_plan
from ecamp.bench.pretraining import build_objective, read_source
from ecamp.config import BenchSpec
from ecamp.data.arrays import materialise
from ecamp.encoders.timm import MicroViT
from ecamp.train.pairs import make_batches

SMALL = "phantom?pretrain=16&train=12&val=6&test=6"
ENCODER = "vit-micro?width=32&depth=1&heads=2&image_size=32&patch_size=8"
STATED = (
    AS_STORED,
    InputSpec((0.1,), (0.3,)),
    InputSpec((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 3),
    InputSpec(channels=3),
    InputSpec(fit="crop"),
    InputSpec(fit="stretch"),
)


def _plan(stated: InputSpec, monkeypatch: pytest.MonkeyPatch) -> Plan:
    if stated != AS_STORED:  # without a word, the base class's answer counts
        monkeypatch.setattr(MicroViT, "input_spec", stated, raising=False)
    return make_plan(
        BenchSpec.model_validate(
            {"tasks": "cls", "datasets": SMALL, "encoders": ENCODER, "pretext": "mae",
             "pretrain_data": SMALL, "fractions": [1], "seeds": [0]}
        )
    )  # fmt: skip


def test_every_identity_contains_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cells, pretrainings, features, floors = set(), set(), set(), set()
    for stated in STATED:
        with monkeypatch.context() as patch:
            plan = _plan(stated, patch)
            cell = next(cell for cell in plan.cells if cell.encoder)
            assert cell.encoder is not None
            arrays = materialise(
                cell.dataset, 32, splits=["test"], expected=stated, cache=tmp_path, workers=1
            )
            torch.manual_seed(0)
            encoder = cell.encoder.build(arrays.channels)
            cells.add(cell.key)
            floors.add(next(cell.key for cell in plan.cells if cell.floor))
            pretrainings.add(plan.pretrainings[0].key)
            features.add(feature_key(encoder, cell.encoder, arrays))
    assert [len(found) for found in (cells, pretrainings, features)] == [len(STATED)] * 3
    assert len(floors) == 3  # fits alone: a floor sees no encoder


def test_pretraining_batches_previews_and_estimates_have_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = _plan(STATED[2], monkeypatch)
    pretraining = plan.pretrainings[0]
    source = read_source(pretraining, 64, "fail", tmp_path)
    (batch,) = make_batches(source, pretraining.recipe, 0)
    assert batch.images.shape[1] == 3
    pixels = batch.images * torch.tensor(source.info.std).view(1, 3, 1, 1)
    pixels += torch.tensor(source.info.mean).view(1, 3, 1, 1)
    torch.testing.assert_close(pixels[:, 0], pixels[:, 2])
    assert (pixels > -0.01).all()
    assert (pixels < 1.01).all()
    assert build_objective(pretraining, source)(batch)["loss"].isfinite()
    assert estimate_cost(plan, tmp_path / "run", tmp_path).lines
