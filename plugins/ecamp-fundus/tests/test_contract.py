"""Every set, in the layout of its release and of the published lists, keeps a plugin's promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecamp.api import PluginRef, list_plugins, make_plugin
from ecamp.testing.contract import check_plugin
from ecamp.testing.folders import check_folder, check_twice

NAMES = ("ffa-ir", "odir", "aptos", "mured", "riga")


def test_every_set_is_registered() -> None:
    """Run `pip install plugins/ecamp-fundus` first where this fails."""
    installed = [e.name for e in list_plugins("ecamp.datasets") if e.dist == "ecamp-fundus"]
    assert sorted(installed) == sorted(NAMES)


# Every set in the layout of its release, and of the published lists where it has them.
CASES = [
    ("ffa_ir", "language=en"), ("ffa_ir", "language=zh&per_case=2"),
    ("odir", "labels=eye"), ("odir", "labels=patient"), ("odir_lists", "lists=auto"),
    ("odir_lists", "lists=auto&percent=10"),
    ("aptos", "on_bad_row=skip"), ("aptos", "lists={root}/clone"),
    ("mured", "on_bad_row=fail"), ("mured", "lists={root}/clone"),
    ("mured", "splits=few-shot&shots=2"),
    ("riga", "on_bad_row=skip"), ("riga", "lists={root}/clone"),
]  # fmt: skip
EVERY_CASE = pytest.mark.parametrize(("fixture", "options"), CASES)


def dataset_ref(fixture: str, options: str, request: pytest.FixtureRequest) -> str:
    """Return the reference of a fixture's data set."""
    root = request.getfixturevalue(fixture)
    name = {"ffa_ir": "ffa-ir", "odir_lists": "odir"}.get(fixture, fixture)
    return f"{name}?root={root}&{options.format(root=root)}"


@pytest.fixture
def ref(fixture: str, options: str, request: pytest.FixtureRequest) -> str:
    return dataset_ref(fixture, options, request)


@EVERY_CASE
def test_contract(ref: str, tmp_path: Path) -> None:
    check_plugin("ecamp.datasets", ref, tmp_path / "cache")


@EVERY_CASE
def test_bad_input(ref: str, tmp_path: Path) -> None:
    """Spelling of tables, paths outside the root, an archive that is not unpacked."""
    tables = [p for s in ("*.csv", "*.txt", "*.json") for p in sorted(tmp_path.rglob(s))]
    check_folder(ref, tables)


@pytest.mark.parametrize(
    ("fixture", "options", "table"),
    [
        ("odir", "labels=eye", "full_df.csv"),
        ("odir_lists", "lists=auto", "ECAMP/Fine-tuning/Classification/datasets/ODIR5K/test_list.txt"),
        ("aptos", "splits=ecamp", "train.csv"),
        ("aptos", "lists={root}/clone", "clone/datasets/Aptos/val_list.txt"),
        ("mured", "splits=ecamp", "val_data.csv"),
        ("mured", "lists={root}/clone", "clone/datasets/MURED/train_list.txt"),
        ("riga", "lists={root}/clone", "clone/datasets/RIGA/test_list.csv"),
    ],
)  # fmt: skip
def test_a_row_that_appears_twice_is_named(ref: str, table: str, tmp_path: Path) -> None:
    check_twice(ref, tmp_path / table)


def test_every_set_and_protocol_is_among_them(request: pytest.FixtureRequest) -> None:
    """A new set or protocol fails here until CASES names it."""
    covered: dict[str, set[str]] = {name: set() for name in NAMES}
    known: dict[str, set[str]] = {}
    for fixture, options in CASES:
        dataset = make_plugin(
            "ecamp.datasets", PluginRef.parse(dataset_ref(fixture, options, request))
        )
        covered[dataset.name].add(dataset.splits_name)
        known[dataset.name] = set(dataset.named_splits)
    assert covered == known
