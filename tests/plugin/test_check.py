"""`ecamp plugins check` and `describe` on strangers' plugins."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugin.packages import Said, fake_package

DISTILLER = """
from typing import Annotated, Literal
from pydantic import Field
from ecamp.api import Distiller, PluginConfig
from ecamp.distill.rules import RulesDistiller
class Inner(PluginConfig):
    deep: float = Field(0.5, gt=0, le=1, description="how deep")
class Options(PluginConfig):
    words: list[str] = Field(description="words of the list")
    mode: Literal["quick", "thorough"] = Field("quick", description="how")
    scale: Annotated[int | None, Field(ge=2)] = Field(None, description="scale")
    inner: Inner = Field(Inner(deep=0.25), description="inner ones")
    table: str = Field("a default that is longer than forty characters, whole", description="t")
class Plugin(Distiller[Options]):
    summary, licence = "a list", "MIT"
    def distill(self, reports):
        return RulesDistiller(RulesDistiller.Config()).distill(reports)
"""


def write(site: Path, members: str) -> None:
    """Write a distiller that breaks one promise."""
    body = "from ecamp.distill.rules import RulesDistiller\nclass Plugin(RulesDistiller):\n"
    lines = "".join(f"    {line}\n" for line in members.splitlines())
    fake_package(site, "list-pack", "ecamp.distillers", "my-list", body + lines)


def parts(said: Said) -> dict[str, tuple[str, str]]:
    return {part["part"]: (part["status"], part["reason"]) for part in json.loads(said.out)}


@pytest.mark.slow
def test_without_a_name_all_plugins_of_other_packages_are_checked(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    write(tmp_path, "summary = 'x'")
    said = ecamp_here("plugins", "check", "--group", "distillers")
    assert said.code == 0, said.out
    lines = [line for line in said.out.splitlines() if "my-list" in line]
    assert lines[0] == "pass  distillers my-list  is loaded"
    assert all(line.startswith("pass  ") for line in lines)
    assert not [line for line in said.out.splitlines() if " rules " in line]
    ours = ecamp_here("plugins", "check", "rules")
    assert "pass  distillers rules  is described" in ours.out


FAILURES = {
    "summary = ''": ("is described", "no one-line summary"),
    "def distill(self, reports):\n    return iter(())": (
        "one result per report, in order", "results and reports"),
    "def distill(self, reports):\n    yield 3": (
        "one result per report, in order", "AttributeError: 'int' object has no attribute 'id'"),
    "def distill(self, reports):\n    raise KeyError('k')\n    yield": (
        "one result per report, in order",
        "plugin 'my-list' of list-pack 1.0 fails in Plugin.distill: KeyError: 'k'"),
    "def distill(self, reports):\n    raise SystemExit(2)\n    yield": (
        "one result per report, in order", "SystemExit: 2"),
    "def __init__(self, *args):\n    raise KeyError('k')": ("takes its options", "KeyError: 'k'"),
}  # fmt: skip


@pytest.mark.parametrize("members", FAILURES)
def test_a_broken_promise_is_named_with_its_reason(
    tmp_path: Path, ecamp_here: Callable[..., Said], members: str
) -> None:
    write(tmp_path, members)
    said = ecamp_here("plugins", "check", "my-list", "-f", "json")
    assert said.code == 1
    part, reason = FAILURES[members]
    last = list(parts(said).items())[-1]
    assert last[0] == part
    assert last[1][0] == "fail"
    assert reason in last[1][1]
    assert [status for status, _ in parts(said).values()].count("fail") == 1


def test_a_traceback_is_shown_on_request(
    tmp_path: Path, ecamp_here: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "def distill(self, reports):\n    raise KeyError('k')\n    yield")
    assert "Traceback" not in ecamp_here("plugins", "check", "my-list").err
    monkeypatch.setenv("ECAMP_DEBUG", "1")
    assert "list_pack.py" in ecamp_here("plugins", "check", "my-list").err.split("Traceback")[1]


@pytest.mark.slow
def test_one_that_fails_on_import_fails_its_check_alone(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    fake_package(tmp_path, "a-pack", "ecamp.distillers", "broken", "raise SystemExit(1)\n")
    write(tmp_path, "summary = 'x'")
    said = ecamp_here("plugins", "check", "broken", "my-list")
    assert said.code == 1
    assert "fail  distillers broken  is loaded: distillers: plugin 'broken' of a-pack" in said.out
    assert "fail  distillers my-list" not in said.out
    assert "pass  distillers my-list" in said.out


@pytest.mark.slow
def test_missing_options_are_named_and_can_be_given(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    fake_package(tmp_path, "opt-pack", "ecamp.distillers", "my-options", DISTILLER)
    said = ecamp_here("plugins", "check", "my-options?mode=thorough", "-f", "json")
    assert said.code == 4
    again = "ecamp plugins check 'my-options?mode=thorough&words=...'"
    assert parts(said)["takes its options"] == ("skip", f"needs words: {again}")
    everything = ecamp_here("plugins", "check", "--group", "distillers")
    assert everything.code == 0
    assert "skip  distillers my-options  takes its options: needs words" in everything.out
    given = ecamp_here("plugins", "check", "my-options?words=[a, b]")
    assert given.code == 0, given.out


def test_a_missing_file_is_no_broken_promise(ecamp_here: Callable[..., Said]) -> None:
    said = ecamp_here("plugins", "check", "mimic-cxr?root=/no/such/folder", "-f", "json")
    assert said.code == 4
    assert list(parts(said).values())[-1][0] == "skip"
    assert "/no/such/folder" in list(parts(said).values())[-1][1]


def test_an_unknown_name_or_group_is_refused(ecamp_here: Callable[..., Said]) -> None:
    for command in ("check", "describe"):
        said = ecamp_here("plugins", command, "vit-mirco")
        assert said.code == 4
        assert "Did you mean 'vit-micro'" in said.err
    for args in (("check", "--group", "encoder"), ("describe", "encoder", "vit-micro")):
        said = ecamp_here("plugins", *args)
        assert said.code == 2
        assert "Did you mean 'encoders'" in said.err
    assert ecamp_here("plugins", "describe", "tasks", "vit-micro").code == 4


def test_a_description_holds_every_option_with_all_that_it_takes(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    fake_package(tmp_path, "opt-pack", "ecamp.distillers", "my-options", DISTILLER)
    said = ecamp_here("plugins", "describe", "distillers", "my-options")
    assert said.out == ecamp_here("plugins", "describe", "my-options").out
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in said.out.splitlines()}
    assert lines["package"].startswith("opt-pack 1.0 (")
    assert lines["words"] == "required words of the list [list[str]]"
    assert lines["mode"] == "'quick' how [quick | thorough]"
    assert lines["scale"] == "None scale [int or null, at least 2]"
    assert lines["inner"] == "inner ones [options below]"
    assert lines["inner.deep"] == "0.25 how deep [float, above 0, at most 1]"
    assert "'a default that is longer than forty characters, whole'  t [str]" in said.out


def test_a_family_is_described_with_its_variants(ecamp_here: Callable[..., Said]) -> None:
    said = ecamp_here("plugins", "describe", "encoders", "timm")
    assert said.code == 0
    assert "variants  1" in said.out
    assert "results 1" in said.out


def test_the_example_of_the_page_keeps_the_contract(
    tmp_path: Path, ecamp_here: Callable[..., Said]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "add-a-distiller.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    fake_package(tmp_path, "page-pack", "ecamp.distillers", "my-words", f"{code}\nPlugin = Words\n")
    said = ecamp_here("plugins", "check", "my-words")
    assert said.code == 0, said.out
