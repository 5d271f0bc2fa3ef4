"""Whatever a stranger's plugin raises is said of that plugin; what others computed is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ecamp.errors import PluginError
from ecamp.plugin.blame import blamed
from tests.conftest import ENCODER, SMALL
from tests.plugin.packages import Said, fake_package, run_ecamp

BASES = {
    "encoders": "from ecamp.encoders.timm import MicroViT as Base",
    "pretext": "from ecamp.pretext.mae import MAE as Base",
    "datasets": "from ecamp.datasets.phantom import PhantomDataset as Base",
    "tasks": "from ecamp.tasks.classification import Classification as Base",
    "distillers": "from ecamp.distill.rules import RulesDistiller as Base",
}


def write_plugin(site: Path, kind: str, members: str) -> None:
    """Write `bad` of bad-pack, which works but for these members."""
    lines = "\n".join(f"    {line}" for line in members.splitlines())
    imports = (
        "import sys\nfrom ecamp.api import PluginConfig\nfrom pydantic import model_validator\n"
    )
    body = f"{imports}{BASES[kind]}\nclass Plugin(Base):\n    summary = 'x'\n{lines}\n"
    fake_package(site, "bad-pack", f"ecamp.{kind}", "bad", body)


def bench(tmp_path: Path, **recipe: str) -> list[str]:
    """Arguments of a small bench."""
    values = {
        "datasets": SMALL, "encoders": ENCODER, "pretext": "none", "tasks": "cls", "fractions": "1",
        "seeds": "0", "bootstrap": "100", "protocols": "linear", "pretrain-data": SMALL,
        "pretrain-steps": "2", "run": str(tmp_path / "run"), "cache": str(tmp_path / "cache"),
        "format": "json", **recipe,
    }  # fmt: skip
    return ["bench", *(word for name, value in values.items() for word in (f"--{name}", value))]


def assert_blamed(said: str, kind: str, method: str, error: str) -> None:
    assert f"{kind}: plugin 'bad' of bad-pack 1.0 fails in {method}: {error}" in said
    assert "authors of bad-pack" in said
    assert "ecamp plugins check bad" in said
    assert "defect" not in said
    assert "Traceback" not in said


IMPORTS = {
    "import no_such_module_here": "ModuleNotFoundError",
    "import sys; sys.exit(7)": "SystemExit: 7",
    "class Odd(BaseException): pass\nraise Odd('odd')": "Odd: odd",
    "assert False, 'no'": "AssertionError: no",
    "def": "SyntaxError",
}


@pytest.mark.parametrize("body", IMPORTS)
def test_a_package_that_fails_on_import_is_named(
    tmp_path: Path, ecamp_here: Callable[..., Said], body: str
) -> None:
    fake_package(tmp_path, "bad-pack", "ecamp.encoders", "bad", body + "\n")
    said = ecamp_here("bench", "--encoders", "bad", "--dry-run")
    assert said.code == 4
    assert "encoders: plugin 'bad' of bad-pack 1.0 fails on import" in said.err
    assert IMPORTS[body] in said.err
    assert "uninstall bad-pack" in said.err
    assert "Traceback" not in said.err


PLANNED = [
    ("encoders", "def __init__(self, *a):\n    raise KeyError('k')", "Plugin.__init__", "KeyError"),
    ("encoders", "def __init__(self):\n    pass", "Plugin.__init__", "TypeError"),
    ("encoders", "@property\ndef image_size(self):\n    sys.exit('so')", "Plugin.image_size",
     "SystemExit: so"),
    ("encoders", "@property\ndef provides(self):\n    return self.nothing", "Plugin.provides",
     "AttributeError"),
    ("datasets", "def fingerprint(self):\n    raise KeyError('k')", "Plugin.fingerprint",
     "KeyError: 'k'"),
    ("tasks", "def floors(self):\n    raise ZeroDivisionError", "Plugin.floors", "ZeroDivisionError"),
    ("encoders", "class Config(PluginConfig):\n    @model_validator(mode='after')\n    def _odd(self):\n"
     "        raise KeyError('k')", "Plugin.Config._odd", "KeyError: 'k'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "members", "method", "error"), PLANNED)
def test_a_plugin_that_fails_while_planning_is_named(
    tmp_path: Path, ecamp_here: Callable[..., Said], kind: str, members: str, method: str, error: str
) -> None:  # fmt: skip
    write_plugin(tmp_path, kind, members)
    recipe = {"pretext": "mae", kind: "bad"}
    said = ecamp_here(*bench(tmp_path, **recipe), "--dry-run", "--no-estimate")
    assert said.code == 1
    assert_blamed(said.err, kind, method, error)


def test_methods_that_are_left_out_are_listed(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    body = "from ecamp.api import EncoderPlugin\nclass Plugin(EncoderPlugin):\n    summary = 'x'\n"
    fake_package(tmp_path, "bad-pack", "ecamp.encoders", "bad", body)
    said = ecamp_here("bench", "--encoders", "bad", "--dry-run")
    assert said.code == 1
    assert "plugin 'bad' of bad-pack 1.0: class Plugin lacks build, image_size" in said.err


def test_options_of_another_kind_are_refused(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    write_plugin(tmp_path, "encoders", "Config = dict")
    said = ecamp_here("bench", "--encoders", "bad", "--dry-run")
    assert said.code == 2
    assert "plugin 'bad' of bad-pack 1.0: Plugin.Config is not a subclass of PluginC" in said.err


@pytest.mark.slow
def test_a_traceback_is_shown_on_request(
    tmp_path: Path, ecamp_here: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path, "encoders", "def build(self, channels):\n    raise KeyError('k')")
    monkeypatch.setenv("ECAMP_DEBUG", "1")
    said = ecamp_here(*bench(tmp_path, encoders="bad"))
    assert "bad_pack.py" in said.err.split("Traceback")[1]


def test_a_wrong_option_names_the_package(tmp_path: Path, ecamp_here: Callable[..., Said]) -> None:
    write_plugin(tmp_path, "encoders", "pass")
    said = ecamp_here("bench", "--encoders", "bad?depth=x", "--dry-run")
    assert said.code == 2
    assert "options of bad?depth=x (of bad-pack 1.0): depth" in said.err


HEAD = """
def fit(self, encoder, train, val, *, protocol, seed):
    head = super().fit(encoder, train, val, protocol=protocol, seed=seed)
    class Head:
        selected = {}
        def predict(self, inputs): raise KeyError('k')
        def state_dict(self): return {}
    return Head()
"""
OBJECTIVE = """
def build(self, encoder, context):
    built = super().build(encoder, context)
    def forward(batch): raise KeyError('k')
    built.forward = forward
    return built
"""
RUN = [
    ("encoders", "def build(self, channels):\n    raise KeyError('k')", "Plugin.build"),
    ("encoders", "def build(self, channels):\n    sys.exit('k')", "Plugin.build"),
    ("datasets", "def load(self, record, size):\n    raise KeyError('k')", "Plugin.load"),
    ("datasets", "def load(self, record, size):\n    return None", "Plugin.load"),
    ("datasets", "def records(self):\n    raise KeyError('k')", "Plugin.records"),
    ("pretext", "def build(self, encoder, context):\n    raise KeyError('k')", "Plugin.build"),
    ("pretext", OBJECTIVE, "Plugin.build.<locals>.forward"),
    ("tasks", "def targets(self, split):\n    raise KeyError('k')", "Plugin.targets"),
    ("tasks", "def fit(self, *args, **kinds):\n    raise KeyError('k')", "Plugin.fit"),
    ("tasks", "def score(self, *args):\n    raise KeyError('k')", "Plugin.score"),
    ("tasks", HEAD, "Plugin.fit.<locals>.Head.predict"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "members", "method"), RUN)
def test_a_plugin_that_fails_in_a_run_fails_its_cells_alone(
    tmp_path: Path, ecamp_here: Callable[..., Said], kind: str, members: str, method: str
) -> None:
    write_plugin(tmp_path, kind, members)
    good = {"encoders": ENCODER, "pretext": "none", "datasets": SMALL, "tasks": "ret,seg"}[kind]
    bad = "bad?pretrain=8&train=8&val=8&test=8" if kind == "datasets" else "bad"
    more = {"protocols": "linear,frozen"} if kind == "tasks" else {}
    said = ecamp_here(*bench(tmp_path, **{kind: f"{good},{bad}"}, **more))
    assert said.code == 3, said.err
    error = {"sys.exit": "SystemExit: k", "return None": "TypeError: NoneType instead of a Sample"}
    raised = next((text for part, text in error.items() if part in members), "KeyError: 'k'")
    assert_blamed(said.err, kind, method, raised)
    assert json.loads(said.out)
    events = [json.loads(line) for line in (tmp_path / "run/ledger.jsonl").read_text().splitlines()]
    failed = [event for event in events if event["event"] == "failed"]
    assert failed
    # The author finds the traceback there.
    assert any("bad_pack.py" in event["trace"] for event in failed) or "load" in method


@pytest.mark.slow
@pytest.mark.parametrize("members", ["raise KeyError('k')", "return None"])
def test_pictures_that_fail_lose_neither_table_nor_page(
    tmp_path: Path, ecamp_here: Callable[..., Said], members: str
) -> None:
    write_plugin(tmp_path, "tasks", f"def overlay(self, *args):\n    {members}")
    said = ecamp_here(*bench(tmp_path, tasks="bad"))
    assert said.code == 0, said.err
    assert json.loads(said.out)
    assert (tmp_path / "run/report/index.html").exists()
    assert "no pictures: tasks: plugin 'bad' of bad-pack 1.0 fails in Plugin.overlay" in said.err


@pytest.mark.slow
def test_a_data_set_that_fails_in_a_worker_process_is_named(tmp_path: Path) -> None:
    write_plugin(tmp_path, "datasets", "def load(self, record, size):\n    sys.exit('k')")
    said = run_ecamp(tmp_path, *bench(tmp_path, datasets="bad?pretrain=0&train=200&val=40&test=40"))
    assert said.returncode == 3
    assert_blamed(said.stderr, "datasets", "Plugin.load", "SystemExit: k")


@pytest.mark.slow
def test_a_data_set_that_leaves_its_origin_behind_still_decodes(tmp_path: Path) -> None:
    """Strangers choose what travels to worker processes, as our public data sets do."""
    members = "def __getstate__(self):\n    return {'config': self.config, 'variant': self.variant}"
    write_plugin(tmp_path, "datasets", members)
    said = run_ecamp(tmp_path, *bench(tmp_path, datasets="bad?pretrain=0&train=200&val=40&test=40"))
    assert said.returncode == 0, said.stderr


def test_a_distiller_that_fails_is_named_and_its_rows_are_kept(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    members = (
        "def distill(self, reports):\n    for row in super().distill(reports):\n        yield row\n"
        "        raise KeyError('k')"
    )
    write_plugin(tmp_path, "distillers", members)
    (tmp_path / "reports.csv").write_text("id,text\n1,No effusion.\n2,Mass.\n")
    out = tmp_path / "out.jsonl"
    said = ecamp_here("distill", str(tmp_path / "reports.csv"), "-o", str(out), "--with", "bad")
    assert said.code == 1
    assert_blamed(said.err, "distillers", "Plugin.distill", "KeyError: 'k'")
    assert len(out.with_name("out.jsonl.partial.jsonl").read_text().splitlines()) == 2


def test_our_own_failure_stays_a_defect_and_names_who_else_is_in_use(
    tmp_path: Path, ecamp_here: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("ecamp.bench.plan.identity", fails)
    said = ecamp_here(*bench(tmp_path), "--dry-run")
    assert said.code == 1
    assert "ecamp: defect: KeyError: 'ours'" in said.err
    assert "Plugins of other packages" not in said.err
    write_plugin(tmp_path, "encoders", "pass")
    said = ecamp_here(*bench(tmp_path, encoders="bad"), "--dry-run")
    assert "defect: KeyError: 'ours'" in said.err
    assert "(bad of bad-pack 1.0)" in said.err


def test_of_two_plugins_of_one_package_the_one_at_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.plugin.host import make_plugin

    body = """
from ecamp.api import Encoder, EncoderPlugin
from ecamp.datasets.phantom import PhantomDataset
class Net(Encoder):
    def forward(self, images): raise KeyError('k')
class Plugin(EncoderPlugin):
    image_size = 8
    def build(self, channels): return Net()
class Films(PhantomDataset):
    def records(self): raise KeyError('k')
"""
    fake_package(tmp_path, "two-pack", "ecamp.encoders", "net", body)
    points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
    points.write_text(points.read_text() + "[ecamp.datasets]\nfilms = two_pack:Films\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    net = make_plugin("ecamp.encoders", PluginRef(name="net")).build(1)
    films = make_plugin("ecamp.datasets", PluginRef(name="films"))
    with pytest.raises(PluginError, match=r"encoders: plugin 'net' of two-pack 1\.0"), blamed():
        net(None)
    with pytest.raises(PluginError, match=r"datasets: plugin 'films' of two-pack 1\.0"), blamed():
        films.records()


def test_an_interruption_passes() -> None:
    with pytest.raises(KeyboardInterrupt), blamed():
        raise KeyboardInterrupt
