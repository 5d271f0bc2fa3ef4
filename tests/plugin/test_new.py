"""`ecamp plugins new` writes packages that install, keep the contract, and pass their own tests."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ecamp.cli.plugins import KINDS
from ecamp.plugin import new
from tests.conftest import ENCODER, SMALL
from tests.plugin.packages import Said, install, run_ecamp, run_python


def test_the_command_offers_what_there_is() -> None:
    assert tuple(new.KINDS) == KINDS
    assert {path.name for path in new.TEMPLATES.iterdir()} == {
        *(name for name in new.FILES.values() if "$" not in name),
        *(f"{kind}.py.template" for kind in KINDS),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_works(tmp_path: Path, kind: str) -> None:
    made = run_ecamp(
        tmp_path, "plugins", "new", "my-own", "--kind", kind, "--output", str(tmp_path)
    )
    assert made.returncode == 0, made.stderr
    folder, site = tmp_path / "my-own", tmp_path / "site"
    assert len(re.findall(r"^(pip|ecamp) ", (folder / "README.md").read_text(), re.M)) == 3
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ecamp"):
                assert node.module in ("ecamp.api", "ecamp.testing.contract")
    install(folder, site)
    checked = run_ecamp(site, "plugins", "check", "my-own", "-f", "json")
    parts = json.loads(checked.stdout)
    assert checked.returncode == 0, checked.stdout
    assert {part["status"] for part in parts} == {"pass"}
    assert len(parts) > 4
    tested = run_python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c",
                        str(folder / "pyproject.toml"), str(folder / "tests"))  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout


@pytest.mark.slow
def test_new_plugins_of_all_kinds_run_and_are_compared(tmp_path: Path) -> None:
    """The grid, the report and the comparison take a stranger's task as one of ours."""
    site = tmp_path / "site"
    for kind in ("encoder", "pretext", "dataset", "task"):
        run_ecamp(tmp_path, "plugins", "new", f"my-{kind}", "--kind", kind,
                  "--output", str(tmp_path))  # fmt: skip
        install(tmp_path / f"my-{kind}", tmp_path / "one")
        site.mkdir(exist_ok=True)
        for part in (tmp_path / "one").iterdir():
            part.rename(site / part.name)
    done = run_ecamp(
        site, "bench", "--encoders", f"my-encoder,{ENCODER}", "--pretext", "none,my-pretext,mae",
        "--datasets", f"my-dataset,{SMALL}", "--tasks", "my-task", "--pretrain-data", SMALL,
        "--pretrain-steps", "2", "--fractions", "1", "--seeds", "0", "--bootstrap", "100",
        "--run", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "-f", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'mae' requires 'visible', which encoder 'my-encoder' lacks: this pair is" in done.stderr
    pairs = {(row["encoder"].split("?")[0], row["pretext"]) for row in json.loads(done.stdout)}
    assert pairs == {
        (encoder, pretext)
        for encoder in ("my-encoder", "vit-micro")
        for pretext in ("none", "my-pretext", "mae")
    } - {("my-encoder", "mae")}
    run = f"{tmp_path / 'run'}:encoder=my-encoder"
    compared = run_ecamp(
        site, "compare", f"{run},pretext=none", f"{run},pretext=my-pretext", "-f", "json"
    )
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My_Net", "'My_Net' is not a name"),
        ("-x", "No such option"),
        ("a--b", "'a--b' is not a name"),
        ("../x", "is not a name"),
        ("class", "'class' is there already"),
        ("json", "'json' is there already"),
        ("torch", "'torch' is there already"),
        ("vit-micro", "ecamp has a plugin 'vit-micro'"),
        ("there", "there exists"),
    ],
)
def test_a_name_or_folder_that_cannot_be_is_refused(
    tmp_path: Path, ecamp_here: Callable[..., Said], name: str, message: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "kept.txt").write_text("kept")
    said = ecamp_here("plugins", "new", name, "--kind", "encoder", "--output", str(tmp_path))
    assert said.code == 2
    assert message in said.err
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "kept.txt"]
