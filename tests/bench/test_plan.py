"""Identity of a cell, and requests that are refused before anything is computed."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from ecamp.bench.plan import make_plan
from ecamp.bench.run_folder import RunFolder
from ecamp.config import BenchSpec, validate
from ecamp.errors import CorruptFileError, EcampError, MissingError, UsageError

DATA = "phantom?pretrain=12&train=12&val=6&test=6"


def _spec(**values: Any) -> BenchSpec:
    return validate(BenchSpec, {"datasets": DATA, "pretrain_data": DATA, **values}, "test")


def _ids(**values: Any) -> set[str]:
    return {cell.key for cell in make_plan(_spec(**values)).cells}


def test_the_default_recipe_is_the_advertised_one():
    plan = make_plan(BenchSpec())
    assert {c.task.ref.name for c in plan.cells} == {"cls", "seg", "det"}
    assert {c.pretext for c in plan.cells if not c.floor} == {"none", "mae", "ecamp"}
    assert {c.seed for c in plan.cells if not c.floor} == {0, 1, 2}
    assert {c.fraction for c in plan.cells} == {0.1, 1.0}
    assert len({c.key for c in plan.cells}) == len(plan.cells)


@pytest.mark.slow
def test_identity_contains_exactly_the_fields_that_matter():
    base = _ids()
    # The same grid written in another order, or a smaller one, has the same cells.
    assert _ids(tasks=["det", "cls", "seg"], seeds=[2, 1, 0]) == base
    assert _ids(seeds=[1]) < base
    assert _ids(pretext="none", pretrain={"steps": 5}) < base
    # A change of the result changes the id.
    cells = {
        "other data": _ids(datasets=DATA + "&seed=1"),
        "other bootstrap": _ids(bootstrap=500),
        "other size": _ids(encoders="vit-micro?image_size=32"),
    }
    for name, ids in cells.items():
        assert not ids & base, name
    seg = _ids(tasks=["seg"], task_options={"seg": {"steps": 3}})
    assert not {c for c in seg if c in base}
    other = _ids(pretrain={"steps": 5})
    none_and_floors = _ids(pretext="none")
    assert other & base == none_and_floors


def test_identity_holds_the_content_of_the_lexicon(tmp_path: Path):
    path = tmp_path / "own.yaml"
    pretext = [{"name": "ecamp", "options": {"masking": {"lexicon": str(path)}}}]

    def key(text: str) -> str:
        path.write_text(text)
        return make_plan(_spec(pretext=pretext, tasks=["cls"])).pretrainings[0].key

    base = key("name: own\nversion: 1\nentities: {mass: [mass]}\n")
    assert key("# a remark\nversion: 1\nname: own\nentities: {mass: [mass]}\n") == base
    assert key("name: own\nversion: 1\nentities: {mass: [mass, masses]}\n") != base


def test_a_pretraining_is_shared_and_independent_of_the_bench():
    few = make_plan(_spec(pretext="none,mae", seeds=[0], tasks=["cls"]))
    many = make_plan(_spec(pretext="mae", seeds=[0, 1], bootstrap=500))
    assert len(few.pretrainings) == len(many.pretrainings) == 1
    assert few.pretrainings[0].key == many.pretrainings[0].key


def test_one_encoder_under_two_spellings_is_evaluated_once():
    plan = make_plan(
        _spec(encoders="vit-micro,vit-micro?depth=4,ecamp:vit-micro", pretext="none,mae?steps=3")
    )
    alone = make_plan(_spec(encoders="vit-micro", pretext="none,mae?steps=3"))
    assert [c.key for c in plan.cells] == [c.key for c in alone.cells]
    assert len(plan.pretrainings) == len(alone.pretrainings) == 1
    assert any("vit-micro?depth=4 none" in note and "evaluated once" in note for note in plan.notes)


def test_a_task_takes_options_where_it_is_named():
    cells = _ids(tasks="seg?steps=3&head=linear,cls")
    assert cells == _ids(tasks=["seg", "cls"], task_options={"seg": {"steps": 3, "head": "linear"}})
    assert cells == _ids(tasks="seg?steps=3,cls", task_options={"seg": {"head": "linear"}})
    assert cells != _ids(tasks="seg,cls")


def test_a_recipe_and_a_command_line_of_one_meaning_are_one_recipe():
    """Options of the command line are text, those of a recipe have types."""
    text = make_plan(_spec(encoders="vit-micro?depth=2", pretext="mae?steps=5&mask_ratio=0.5"))
    typed = make_plan(
        _spec(
            encoders=[{"name": "vit-micro", "options": {"depth": 2}}],
            pretext=[{"name": "mae", "options": {"steps": 5, "mask_ratio": 0.5}}],
        )
    )
    assert text.spec == typed.spec
    assert [c.key for c in text.cells] == [c.key for c in typed.cells]
    assert [c.label for c in text.cells] == [c.label for c in typed.cells]


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"encoders": "vit-mikro"}, MissingError, "Did you mean 'vit-micro'"),
        ({"pretext": "eacmp"}, MissingError, "Did you mean 'ecamp'"),
        ({"tasks": ["cls", "sge"]}, MissingError, "Did you mean 'seg'"),
        ({"encoders": "vit-micro?widht=3"}, UsageError, "Did you mean 'width'"),
        ({"task_options": {"seg": {"step": 3}}}, UsageError, "Did you mean 'steps'"),
        ({"tasks": ["cls"], "task_options": {"seg": {}}}, UsageError, "which does not run"),
        ({"tasks": "seg?step=3"}, UsageError, "Did you mean 'steps'"),
        ({"tasks": "seg?steps=3,cls,seg"}, UsageError, "'seg' is named twice"),
        ({"pretrain": {"stepz": 3}}, UsageError, "Did you mean 'steps'"),
        (
            {"encoders": "timm/resnet18?image_size=64", "pretext": "mae,ecamp"},
            UsageError,
            "Nothing to run.\n  pretext 'mae' requires 'visible', which encoder",
        ),
        ({"fractions": [10]}, UsageError, "0.1 means 10 %"),
        ({"protocols": ["linera"]}, UsageError, "Nothing to run"),
        ({"on_bad_image": "ignore"}, UsageError, "on_bad_image"),
        ({"seed": 3}, UsageError, "Did you mean 'seeds'"),
    ],
)
def test_impossible_requests_are_refused_while_planning(
    values: dict[str, Any], error: type[EcampError], text: str
):
    with pytest.raises(error) as caught:
        make_plan(_spec(**values))
    assert text in str(caught.value)


def test_a_task_cannot_read_features_that_there_are_not(monkeypatch: pytest.MonkeyPatch):
    from ecamp.tasks.segmentation import Segmentation

    monkeypatch.setattr(Segmentation, "reads", frozenset({"pyramids"}))
    with pytest.raises(UsageError, match=r"reads 'pyramids'[^?]*Did you mean 'pyramid'"):
        make_plan(_spec())


def test_reports_are_needed_by_name(tmp_path: Path):
    (tmp_path / "t.csv").write_text("id,image,patient,y\na,a.png,p,1\n")
    (tmp_path / "dataset.yaml").write_text(
        "name: mine\ntable: t.csv\nid: id\nimage: image\npatient: patient\n"
        "split: {hash: {train: 1.0}}\nlabels: {multilabel: [y]}\n"
    )
    mine = str(tmp_path / "dataset.yaml")
    with pytest.raises(UsageError, match=r"'ecamp' needs reports, which data set '.*yaml' lacks"):
        make_plan(_spec(pretext="ecamp", pretrain_data=mine))
    plan = make_plan(_spec(pretext="mae,ecamp", pretrain_data=mine))
    assert {p.label for p in plan.pretrainings} == {"mae"}
    assert [note for note in plan.notes if "needs reports" in note]


def test_a_pair_that_cannot_work_is_left_out_of_a_grid_with_a_note():
    grid = {"encoders": "timm/resnet18?image_size=64,vit-micro", "pretext": "none,mae"}
    plan = make_plan(_spec(**grid, tasks="cls", seeds=[0]))
    pairs = {(c.encoder_name.split("?")[0], c.pretext) for c in plan.cells if not c.floor}
    assert pairs == {("timm/resnet18", "none"), ("vit-micro", "none"), ("vit-micro", "mae")}
    note = "pretext 'mae' requires 'visible', which encoder 'timm/resnet18?image_size=64' lacks"
    assert plan.notes == (f"{note}: this pair is left out.",)


def test_a_run_of_another_recipe_is_refused_with_what_differs(tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    run.open(_spec(), {})
    run.open(_spec(), {})  # the same again is a resume
    with pytest.raises(UsageError, match=r"seeds: was \[0,1,2\], now \[0\]"):
        RunFolder(tmp_path / "run").open(_spec(seeds=[0]), {})
    (tmp_path / "run" / "spec.yaml").write_text("- torn")
    with pytest.raises(CorruptFileError, match=r"spec\.yaml: damaged"):
        RunFolder(tmp_path / "run").open(_spec(), {})
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(tmp_path / "file")


def test_plugins_are_made_once_however_many_cells_there_are(monkeypatch: pytest.MonkeyPatch):
    scans = []
    real = metadata.entry_points

    def counted(**group: str):
        scans.append(group)
        return real(**group)

    monkeypatch.setattr(metadata, "entry_points", counted)
    plan = make_plan(_spec(seeds=list(range(8)), fractions=[0.1, 0.5, 1.0]))
    assert len(plan.cells) >= 150
    assert len(scans) <= 10
    assert len({id(cell.dataset) for cell in plan.cells}) == 1
