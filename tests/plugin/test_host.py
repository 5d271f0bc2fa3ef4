"""The plugin host with real installed packages: strangers, broken ones, and two of one name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ecamp.api.plugin_ref import PluginRef
from ecamp.bench.pretraining import request_pretext
from ecamp.errors import MissingError, UsageError
from ecamp.plugin.host import list_plugins, load_plugin
from tests.plugin.packages import EXAMPLE, Said, fake_package, install, run_ecamp


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install(EXAMPLE, site)
    return site


@pytest.mark.slow
def test_a_third_party_package_is_benchmarked_without_touching_the_core(
    installed: Path, tmp_path: Path
) -> None:
    listed = run_ecamp(installed, "plugins", "list", "-f", "json")
    assert {("tiny-conv", "ecamp-example"), ("shapes", "ecamp-example")} <= {
        (p["name"], p["dist"]) for p in json.loads(listed.stdout)
    }
    assert "three strided" in run_ecamp(installed, "plugins", "describe", "tiny-conv").stdout
    done = run_ecamp(
        installed, "bench", "--tasks", "cls,seg,det", "--datasets", "shapes", "--encoders", "tiny-conv",
        "--pretext", "none", "--fractions", "1", "--seeds", "0", "--bootstrap", "100",
        "--run", str(tmp_path / "run"), "-f", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {r["task"] for r in rows} == {"cls", "seg", "det"}
    assert {r["encoder"] for r in rows} == {"tiny-conv"}


PLAN = ("bench", "--tasks", "cls", "--pretext", "none", "--dry-run", "--no-estimate")


def test_a_package_that_fails_on_import_is_named_and_hurts_nobody(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    fake_package(
        tmp_path, "broken-pack", "ecamp.encoders", "broken", "import no_such_module_here\n"
    )
    assert "broken-pack" in ecamp_here("plugins", "list").out
    used = ecamp_here("bench", "--encoders", "broken", "--dry-run")
    assert used.code == 4
    assert "broken-pack 1.0" in used.err
    assert "no_such_module_here" in used.err
    assert "Traceback" not in used.err
    assert ecamp_here(*PLAN).code == 0


def test_a_name_of_ours_stays_ours_and_the_other_can_be_picked(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    body = "from ecamp.encoders.timm import MicroViT\nclass Plugin(MicroViT): pass\n"
    # Names around it in the alphabet: duplicates that are not neighbours are found too.
    fake_package(tmp_path, "a-pack", "ecamp.encoders", "vit-micro", body)
    fake_package(tmp_path, "between", "ecamp.encoders", "vit-large", body)
    used = ecamp_here(*PLAN)
    assert used.code == 0
    assert "registered by a-pack too; the one of ecamp is used" in used.err
    assert "a-pack:vit-micro" in used.err
    ours = ecamp_here(*PLAN, "--encoders", "ecamp:vit-micro")
    assert ours.code == 0
    assert "a-pack" not in ours.err
    picked = ecamp_here(*PLAN, "--encoders", "a-pack:vit-micro")
    assert picked.code == 0, picked.err
    assert "a-pack:vit-micro" in picked.out


def test_two_strangers_of_one_name_are_refused_and_can_be_picked(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    body = "from ecamp.encoders.timm import MicroViT\nclass Plugin(MicroViT): pass\n"
    fake_package(tmp_path, "a-pack", "ecamp.encoders", "best", body)
    fake_package(tmp_path, "b-pack", "ecamp.encoders", "best", body)
    used = ecamp_here(*PLAN, "--encoders", "best")
    assert used.code == 2
    assert "a-pack and b-pack" in used.err
    assert ecamp_here(*PLAN, "--encoders", "b-pack:best").code == 0


def test_a_pretext_gets_its_own_options_also_where_the_optimisation_has_the_name(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    body = """
from ecamp.api import PluginConfig, PretextPlugin
class Options(PluginConfig):
    lr: str = "unset"
class Plugin(PretextPlugin[Options]):
    summary, licence = "own lr", "MIT"
    def build(self, encoder, context): raise NotImplementedError
"""
    fake_package(tmp_path, "own-lr", "ecamp.pretext", "own-lr", body)
    request = request_pretext(PluginRef.parse("own-lr?lr=cosine&steps=7"))
    assert request.plugin.config.lr == "cosine"
    assert request.recipe == {"steps": 7}
    assert str(request.ref) == "own-lr?lr=cosine&steps=7"
    refused = ecamp_here(*PLAN[:3], "--pretext", "own-lr?stepz=7", "--dry-run")
    assert refused.code == 2
    assert "stepz" in refused.err


def test_a_class_of_another_kind_is_refused(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    fake_package(tmp_path, "odd", "ecamp.encoders", "odd", "class Plugin:\n    pass\n")
    used = ecamp_here("bench", "--encoders", "odd", "--dry-run")
    assert used.code == 2
    assert "plugin 'odd' of odd 1.0: Plugin is not a subclass of EncoderPlugin" in used.err


def test_listing_reads_the_environment_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {e.name for e in list_plugins("ecamp.encoders")}
    fake_package(tmp_path, "new-pack", "ecamp.encoders", "brand-new", "class Plugin: pass\n")
    after = [e for e in list_plugins("ecamp.encoders") if e.name not in before]
    assert [(e.name, e.dist, e.version) for e in after] == [("brand-new", "new-pack", "1.0")]


@pytest.mark.parametrize(
    ("text", "error"),
    [("vit-mirco", MissingError), ("timm", UsageError), ("vit-micro/large", UsageError),
     ("timm/no_such_model", MissingError)],
)  # fmt: skip
def test_wrong_plugin_names_are_errors(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        load_plugin("ecamp.encoders", PluginRef.parse(text))
