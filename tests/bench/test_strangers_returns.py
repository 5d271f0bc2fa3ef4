"""What a stranger's plugin must not return: refused by name, where it would have been scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.api.encoder import Features
from ecamp.api.origin import _package_hash
from ecamp.api.plugin import PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.bench.features import fill_features
from ecamp.bench.plan import make_plan
from ecamp.bench.rescore import rescore
from ecamp.bench.run_folder import RunFolder
from ecamp.bench.runner import Runner, _check_metrics
from ecamp.config import BenchSpec
from ecamp.data.arrays import materialise
from ecamp.data.decoding import check_records, check_sample
from ecamp.errors import DataError, UsageError
from ecamp.metrics.stats import Metric
from ecamp.plugin.host import make_plugin
from tests.data.test_truths import Films
from tests.plugin.packages import fake_package

PHANTOM = "phantom?pretrain=0&train=8&val=6&test=6"
VIT = "vit-micro?image_size=32&patch_size=8&width=16&depth=1&heads=2"


# --- encoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, pooled=f.pooled[:1]), r"pooled of 20 images has shape \(1, 16\)"),
        (lambda f: replace(f, pooled=f.pooled * torch.nan), "pooled is not finite"),
        (lambda f: replace(f, pooled=f.pooled / 0), "pooled is not finite"),
    ],
)
def test_features_of_other_images_or_of_no_number_are_refused(
    change: Callable[[Features], Features], message: str, tmp_path: Path
) -> None:
    dataset = make_plugin("ecamp.datasets", PluginRef.parse(PHANTOM))
    arrays = materialise(dataset, 32, splits=["train", "val", "test"], cache=tmp_path, workers=1)
    encoder = make_plugin("ecamp.encoders", PluginRef.parse(VIT)).build(1)
    real = encoder.forward
    encoder.forward = lambda images: change(real(images))
    with pytest.raises(DataError, match=message):
        fill_features(encoder, arrays, {"pooled": torch.empty(20, 16)})


# --- tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"auroc": 0.5}, "gives 'auroc' as float"),
        ({"other": Metric(0.5)}, "gives no 'auroc', its main metric"),
        ({"auroc": Metric(0.5, "", np.zeros(7))}, r"replicates of shape \(7,\), not \(100,\)"),
    ],
)
def test_what_is_no_metric_is_refused(metrics: dict[str, Any], message: str) -> None:
    plan = make_plan(BenchSpec(tasks="cls", datasets=PHANTOM, encoders=VIT, pretext="none"))
    with pytest.raises(DataError, match=message):
        _check_metrics(plan.cells[0], metrics, 100)


def test_replicates_of_two_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="one axis"):
        Metric.of(0.5, np.zeros((100, 3)))


# --- data sets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"split": "Test"}, "unknown split 'Test'"), ({"labels": (2,)}, "labels are .2,."),
     ({"labels": (0.5,)}, "labels are .0.5,."), ({"labels": (1, 0)}, ".*not 1 of 0, 1 or None")],
)  # fmt: skip
def test_splits_and_labels_are_checked_in_a_bench_too(fields: dict[str, Any], message: str) -> None:
    record = Record(**{"id": "a", "patient": "p", "split": "train", "row": "row 1", **fields})
    with pytest.raises(DataError, match=f"a .row 1.: {message}"):
        check_records([record], DatasetInfo("d", "1", labels=("sick",)))


def test_a_mask_of_grey_values_is_refused() -> None:
    class Grey(Films):
        def load(self, record: Record, size: int) -> Sample:
            return Sample(np.zeros((4, 4, 1), np.uint8), np.full((1, 4, 4), 255, np.uint8))

    with pytest.raises(DataError, match="the mask is uint8, not bool"):
        check_sample(Grey(PluginConfig()), Record("a", "p", "train"), 4)


def test_records_in_another_order_do_not_get_other_images_pixels(tmp_path: Path) -> None:
    """Its fingerprint is the same, its pixels are stored in the order of before."""

    class Reversed(Films):
        def records(self) -> list[Record]:
            return list(super().records())[::-1]

    plain, turned = (
        materialise(cls(PluginConfig()), 20, splits=["train", "val", "test"], cache=tmp_path, workers=1)
        for cls in (Films, Reversed)
    )  # fmt: skip
    # Film i is filled with grey i.
    for arrays in (plain, turned):
        grey = np.asarray(arrays.images).max((1, 2, 3))
        assert [int(i) for i in arrays.ids] == grey.tolist()


# --- code that changes --------------------------------------------------------------------------


def test_every_package_of_a_distribution_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "from ecamp.encoders.timm import MicroViT\nclass Plugin(MicroViT): pass\n"
    fake_package(tmp_path, "two-parts", "ecamp.encoders", "two", body)
    (tmp_path / "two_core.py").write_text("A = 1\n")
    (tmp_path / "two_parts-1.0.dist-info" / "top_level.txt").write_text("two_parts\ntwo_core\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def code() -> str:
        _package_hash.cache_clear()
        return make_plugin("ecamp.encoders", PluginRef(name="two")).origin.code

    before = code()
    assert code() == before
    (tmp_path / "two_core.py").write_text("A = 2\n")
    assert code() != before


def test_cells_scored_with_other_code_are_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ecamp")
    spec = BenchSpec(
        tasks="cls", datasets=PHANTOM, encoders=VIT, pretext="none", protocols=["linear"],
        fractions=[1.0], seeds=[0], bootstrap=100,
    )  # fmt: skip
    plan, run = make_plan(spec), RunFolder(tmp_path / "run")
    run.open(plan.spec, plan.as_json())
    assert not Runner(plan, run, cache=tmp_path / "cache").execute().failed
    from ecamp.tasks.classification import Classification

    monkeypatch.setattr(Classification, "results_version", "other", raising=False)
    total, _, failed = rescore(tmp_path / "run", None)
    assert (total, failed) == (3, [])
    assert "scored with ecamp" in caplog.text
    stored = [json.loads(p.read_text()) for p in (tmp_path / "run").glob("cells/*/result.json")]
    assert {cell["plugins"]["task"]["code"] for cell in stored} == {"results other"}
    monkeypatch.undo()
    outcome = Runner(
        make_plan(spec), RunFolder(tmp_path / "run"), cache=tmp_path / "cache"
    ).execute()
    assert (outcome.done, outcome.reused) == (3, 0)
    assert "was scored again with" in caplog.text


# --- pretext tasks ------------------------------------------------------------------------------


def test_a_result_that_could_not_be_loaded_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecamp.bench.pretraining import run_pretraining
    from ecamp.pretext.mae import MAEObjective

    steps: list[int] = []
    real = MAEObjective.forward
    monkeypatch.setattr(
        MAEObjective, "forward", lambda self, batch: steps.append(batch.step) or real(self, batch)
    )
    monkeypatch.setattr(MAEObjective, "result", lambda self: self.decoder)
    spec = BenchSpec(
        tasks="cls", datasets=PHANTOM, encoders=VIT, pretext="mae?steps=2&scale=1",
        pretrain_data="phantom?pretrain=8&train=2&val=2&test=2",
    )  # fmt: skip
    (item,) = make_plan(spec).pretrainings
    with pytest.raises(
        DataError, match=r"pretext 'mae.*result.. differs from what rebuild.. makes"
    ):
        run_pretraining(item, "fail", tmp_path)
    assert not steps


@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
def test_an_option_that_is_no_number_is_a_users_mistake(value: str) -> None:
    with pytest.raises(UsageError, match=r"finite number|greater than 0"):
        make_plan(BenchSpec(tasks="cls", datasets=PHANTOM, pretext=f"mae?lr={value}"))
