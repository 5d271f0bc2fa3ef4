"""What enters the identity of a plugin's results: its distribution, code, options and files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ecamp
from ecamp.api.dataset import Dataset
from ecamp.api.encoder import EncoderPlugin
from ecamp.api.origin import _package_hash, code_version
from ecamp.api.plugin import Plugin, PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.plugin.host import make_plugin
from tests.plugin.packages import EXAMPLE, fake_package, install, run_ecamp

BENCH = (
    "bench", "--tasks", "cls", "--datasets", "shapes", "--encoders", "tiny-conv", "--pretext", "none",
    "--protocols", "linear", "--fractions", "1", "--seeds", "0", "--bootstrap", "100", "-f", "json",
)  # fmt: skip


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.slow
def test_an_upgraded_package_is_evaluated_again_and_both_versions_are_named(tmp_path: Path) -> None:
    source, site, run = tmp_path / "source", tmp_path / "site", tmp_path / "run"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    bench = (*BENCH, "--run", str(run), "--cache", str(tmp_path / "cache"))

    def bench_again() -> tuple[list[dict[str, object]], str, set[str]]:
        done = run_ecamp(site, *bench)
        assert done.returncode == 0, done.stderr
        cells = {path.parent.name for path in run.glob("cells/*/result.json")}
        return json.loads(done.stdout), done.stderr, cells

    install(source, site)
    rows, _, first = bench_again()
    cell = next(json.loads(p.read_text()) for p in run.glob("cells/*/result.json"))
    assert cell["plugins"]["dataset"]["dist"] == "ecamp-example"
    assert json.loads((run / "env.json").read_text())["packages"]["ecamp-example"] == "0.1.0"
    _, said, cells = bench_again()
    assert cells == first
    assert "0 cells done" in said

    # Other code under the same version: nobody raised it.
    edit(source / "src/ecamp_example/network.py", "nn.ReLU()", "nn.Tanh()")
    install(source, site)
    changed, said, second = bench_again()
    assert "0 reused" in said
    assert not (second - first) & first
    assert len(second) == 2 * len(first)
    assert said.count("ecamp-example 0.1.0 (") >= 2
    assert "are computed again" in said
    assert "older cells are left out" in said
    assert len(changed) == len(rows)
    assert changed[0]["value"] != rows[0]["value"]

    # Another version with the same code.
    edit(source / "pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    install(source, site)
    _, said, _ = bench_again()
    assert "0 reused" in said
    assert "ecamp-example 0.1.0 (" in said
    assert "ecamp-example 0.2.0 (" in said


@pytest.mark.slow
def test_an_author_who_vouches_for_results_keeps_them_over_an_upgrade(tmp_path: Path) -> None:
    source, site, run = tmp_path / "source", tmp_path / "site", tmp_path / "run"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    init = source / "src/ecamp_example/__init__.py"
    init.write_text(init.read_text() + "\n__results_version__ = 7\n")
    bench = (*BENCH, "--run", str(run), "--cache", str(tmp_path / "cache"))
    install(source, site)
    assert run_ecamp(site, *bench).returncode == 0
    edit(source / "pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    edit(source / "src/ecamp_example/network.py", '"""', '"""Documented better. ')
    install(source, site)
    kept = run_ecamp(site, *bench)
    assert "0 cells done" in kept.stderr, kept.stderr
    edit(init, "__results_version__ = 7", "__results_version__ = 8")
    install(source, site)
    assert "0 reused" in run_ecamp(site, *bench).stderr


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with two modules, importable here."""
    folder = tmp_path / "strange_code"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "part.py").write_text("class Part: pass\n")
    (folder / "table.csv").write_text("a,b\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("strange_code")]:
        del sys.modules[name]


def test_every_file_of_a_package_counts(package: Path) -> None:
    from strange_code.part import Part  # type: ignore[import-not-found]

    def version() -> str:
        _package_hash.cache_clear()
        return code_version(Part)

    before = version()
    assert version() == before
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "part.pyc").write_bytes(b"1")
    assert version() == before
    (package / "table.csv").write_text("a,c\n")
    second = version()
    assert second != before
    (package / "later.py").write_text("")
    assert version() not in (before, second)


def test_a_results_version_is_that_of_the_class_then_of_the_innermost_package() -> None:
    class Own(Plugin):
        results_version = 3

    class Derived(Own):
        pass

    assert code_version(Own) == "results 3"
    assert code_version(Derived) != "results 3"  # it has to state its own
    datasets = make_plugin("ecamp.datasets", PluginRef(name="phantom"))
    task = make_plugin("ecamp.tasks", PluginRef(name="cls"))
    assert datasets.origin.code == "results 1"
    assert task.origin.code == f"results {ecamp.__results_version__}"
    assert datasets.origin.dist == "ecamp"


def test_a_path_counts_by_the_content_of_its_file(tmp_path: Path) -> None:
    class Config(PluginConfig):
        table: Path = Path("none")

    class Mine(Plugin[Config]):
        pass

    def identity(name: str, text: str) -> list[object]:
        (tmp_path / name).write_text(text)
        return Mine(Config(table=tmp_path / name)).identity

    assert identity("a", "1") == identity("b", "1")
    assert identity("a", "1") != identity("a", "2")


def test_a_changed_pretext_takes_no_old_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two codes of one name, version and options have pre-trainings of two keys."""
    from ecamp.bench.plan import make_plan
    from ecamp.config import BenchSpec

    monkeypatch.syspath_prepend(str(tmp_path))
    body = "from ecamp.pretext.mae import MAE\nclass Plugin(MAE):\n    factor = 1\n"
    fake_package(tmp_path, "loss-pack", "ecamp.pretext", "my-loss", body)
    spec = BenchSpec(tasks="cls", pretext="my-loss", seeds=[0])

    def key() -> str:
        _package_hash.cache_clear()
        sys.modules.pop("loss_pack", None)
        return make_plan(spec).pretrainings[0].key

    before = key()
    assert key() == before
    (tmp_path / "loss_pack.py").write_text(body.replace("factor = 1", "factor = 2"))
    assert key() != before


@pytest.mark.parametrize("base", [Dataset, EncoderPlugin])
def test_bases_state_no_results_version(base: type[Plugin]) -> None:
    """A stranger's class derives from them: it must not share the version of ours."""
    assert base.results_version is None
