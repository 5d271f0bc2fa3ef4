"""Options as users write them: quoting, lists, and values that are taken to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from ecamp.api.plugin import PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.config import BenchSpec, typed_options, validate
from ecamp.errors import UsageError


def options(text: str) -> dict[str, Any]:
    return PluginRef.parse(text).options


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("d?root=/x/films #2", "/x/films #2"),
        ("d?root=/x/a b", "/x/a b"),
        ("d?root=2024", "2024"),
        ("d?root=/x/what?=1", "/x/what?=1"),
        ("d?root=/x/a,b", "/x/a,b"),  # of a single reference
        ('d?root="/x/R&D, 2"', "/x/R&D, 2"),
        ('d?root=/x/5" film', '/x/5" film'),
        (r'd?root="a \"b\" \\c"', r'a "b" \c'),
        ("d?root=null", "null"),
        ("d?root=", ""),
        ("d?root=yes", "yes"),
        ("d?root=[16,32]", [16, 32]),
        ("d?root=[a, 'b,c']", ["a", "b,c"]),
        ("d?root={lexicon: fundus}", {"lexicon": "fundus"}),
    ],
)
def test_a_value(text: str, value: Any) -> None:
    assert options(text) == {"root": value}


def test_commas_separate_references_only_outside_quotes_and_brackets() -> None:
    text = 'cnn?widths=[16,32]&name=a, "my sets, 2.yaml"?on_bad_row=skip,d?root="/a,b" , p:q/r'
    assert PluginRef.parse_list(text) == [
        PluginRef(name="cnn", options={"widths": [16, 32], "name": "a"}),
        PluginRef(name="folder", options={"path": "my sets, 2.yaml", "on_bad_row": "skip"}),
        PluginRef(name="d", options={"root": "/a,b"}),
        PluginRef(name="q", variant="r", dist="p"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no plugin"),
        ("?a=1", "names no plugin"),
        ("a,,b", "names no plugin"),
        ("d?root", "'root' of 'd\\?root' has no value"),
        ("d?root=/R&D", "'D' of .* has no value"),
        ("d?a=1&a=2", "'a' appears twice"),
        ('d?root="/x', "quote is not closed"),
        ('d?root="/x"y', "'y' follows a closed quote"),
        ("d?w=[1,2", "bracket is not closed"),
        ("d?w=[1,2]3", "'3' follows"),
        ("d?w={a: b: c}", "not a list or mapping"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PluginRef.parse_list(text)


VALUES = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="&,?#=\"'[]{} \\/a1", max_size=8),
    st.lists(st.one_of(st.integers(), st.text(max_size=4)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
REFS = st.builds(
    PluginRef,
    name=st.just("d"),
    options=st.dictionaries(st.sampled_from(["root", "a_b", "z"]), VALUES, max_size=3),
)
FOLDERS = st.builds(
    lambda path: PluginRef(name="folder", options={"path": path + ".yaml"}),
    st.text(alphabet='a b,?/"&', max_size=8).filter(lambda path: path == path.lstrip()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(REFS, FOLDERS), min_size=1, max_size=4))
def test_what_is_written_is_read_again(refs: list[PluginRef]) -> None:
    assert PluginRef.parse_list(",".join(map(str, refs))) == refs
    assert [PluginRef.parse(str(ref)) for ref in refs] == refs
    assert BenchSpec(datasets=",".join(map(str, refs))).datasets == refs


class Options(PluginConfig):
    root: str = ""
    path: Path = Path()
    column: str | None = None
    depth: int = 0
    fold: Annotated[int | None, Field(ge=0)] = None
    rate: float = 0.0
    flag: bool = False
    percent: Literal[1, 10] = 1
    mode: Literal["a", "b"] = "a"
    widths: list[int] = Field([])
    words: tuple[str, ...] = ()
    seed: int | Literal["cell"] = 0


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("root=2024", "root", "2024"),
        ("root=null", "root", "null"),
        ("root=true", "root", "true"),
        ("path=007", "path", Path("007")),
        ("column=1e3", "column", "1e3"),
        ("column=null", "column", None),
        ("depth=6", "depth", 6),
        ("depth=010", "depth", 10),
        ("fold=null", "fold", None),
        ("fold=3", "fold", 3),
        ("rate=1e-4", "rate", 1e-4),
        ("flag=true", "flag", True),
        ("flag=no", "flag", False),
        ("percent=10", "percent", 10),
        ("mode=b", "mode", "b"),
        ("widths=[16,32]", "widths", [16, 32]),
        ("words=[a,b]", "words", ("a", "b")),
        ("seed=cell", "seed", "cell"),
        ("seed=4", "seed", 4),
    ],
)
def test_the_field_decides_the_type(text: str, field: str, value: Any) -> None:
    config = validate(Options, typed_options(Options, options(f"d?{text}")), "options")
    assert getattr(config, field) == value
    assert type(getattr(config, field)) is type(value) or field == "path"


@pytest.mark.parametrize("text", ["depth=2.5", "depth=x", "flag=2", "percent=5", "widths=16,32"])
def test_a_value_of_the_wrong_type_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition("=")[0]):
        validate(Options, typed_options(Options, options(f"d?{text}")), "options")


def test_a_number_in_yaml_is_no_path() -> None:
    """007 is seven in YAML: the path would be another one, so quotes are asked for."""
    with pytest.raises(UsageError, match=r"root: .*valid string .got 7.*quotes"):
        validate(Options, {"root": 7}, "recipe.yaml")
