"""The bench recipe with its plugin references, and canonical hashing.

Everything that determines a result is a pydantic model here; identities are hashes of its canonical
JSON. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ecamp.api.plugin_ref import PluginRef
from ecamp.errors import MissingError, UsageError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def canonical_json(value: Any) -> str:
    """Serialise to the one spelling that identities are hashed from.

    Keys sorted, no white space, NaN and infinity refused, pydantic models dumped.

    Raises:
        ValueError: For NaN or infinity.
    """
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
        default=_plain,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no canonical form")


def identity(value: Any) -> str:
    """Hash a value's canonical JSON to 16 hex digits (64 bits).

    Raises:
        UsageError: It contains NaN or infinity.
    """
    try:
        text = canonical_json(value)
    except ValueError as error:
        raise UsageError("An option is not a finite number (nan or inf).", str(error)) from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_refs(value: Any) -> Any:
    if isinstance(value, str):
        return PluginRef.parse_list(value)
    return [PluginRef.parse(item) if isinstance(item, str) else item for item in value]


class BenchSpec(BaseModel):
    """The recipe of `ecamp bench`: a grid of encoders x pretexts x data sets x tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: list[PluginRef] = [PluginRef(name="cls"), PluginRef(name="seg"), PluginRef(name="det")]
    datasets: list[PluginRef] = [PluginRef(name="phantom")]
    encoders: list[PluginRef] = [PluginRef(name="vit-micro")]
    pretext: list[PluginRef] = [
        PluginRef(name="none"),
        PluginRef(name="mae"),
        PluginRef(name="ecamp"),
    ]
    pretrain_data: list[PluginRef] = [PluginRef(name="phantom")]
    pretrain: dict[str, Any] = Field(default_factory=dict)
    fractions: list[float] = [0.1, 1.0]
    seeds: list[int] = [0, 1, 2]
    protocols: list[str] = ["linear", "frozen"]
    pretrain_seed: int | Literal["cell"] = 0
    init_from: str | None = None
    bootstrap: int = Field(default=1000, ge=100, le=100_000)
    on_bad_image: str = Field(default="fail", pattern="^(fail|skip)$")
    task_options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("tasks", "datasets", "encoders", "pretext", "pretrain_data", mode="before")
    @classmethod
    def _refs(cls, value: Any) -> Any:
        return _as_refs(value)

    def task_refs(self) -> dict[str, PluginRef]:
        """Return the tasks by name, with the options of `task_options`; the reference's own win.

        Raises:
            UsageError: A task named twice, or options for one that does not run.
        """
        refs: dict[str, PluginRef] = {}
        for ref in self.tasks:
            if ref.name in refs:
                raise UsageError(
                    f"tasks: '{ref.name}' is named twice.",
                    "Results name a task without its options; run the other ones in a second run.",
                )
            options = {**self.task_options.get(ref.name, {}), **ref.options}
            refs[ref.name] = ref.model_copy(update={"options": options})
        for name in self.task_options:
            if name not in refs:
                raise UsageError(
                    f"task_options names '{name}', which does not run.", did_you_mean(name, refs)
                )
        return refs

    @field_validator("fractions")
    @classmethod
    def _fractions(cls, value: list[float]) -> list[float]:
        for fraction in value:
            if not 0 < fraction <= 1:
                raise ValueError(f"fraction {fraction} lies outside (0, 1]; 0.1 means 10 %")
        return sorted(set(value))

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int]) -> list[int]:
        return sorted(set(value))


def typed_options(model: type[BaseModel], options: dict[str, Any]) -> dict[str, Any]:
    """Read options that were written as text by the types of the fields that take them.

    A field of text takes its value to the letter (`root=2024` is a path); `null` is None where the
    field may be None. Any other field takes JSON where the value is JSON (`6`, `true`, `[16, 32]`),
    else the text, which pydantic then converts or refuses.
    """
    return {
        key: _typed(model.model_fields[key].annotation, value)
        if isinstance(value, str) and key in model.model_fields
        else value
        for key, value in options.items()
    }


def _typed(annotation: Any, text: str) -> Any:
    members = _members(annotation)
    if text == "null" and type(None) in members:
        return None
    if all(member in (str, Path, type(None)) or isinstance(member, str) for member in members):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _members(annotation: Any) -> list[Any]:
    """List the types of a union and the values of a literal; an annotation is looked through."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return list(get_args(annotation)) if origin is Literal else [annotation]


def load_recipe(path: Path) -> dict[str, Any]:
    """Read a YAML recipe into a plain mapping.

    Raises:
        MissingError: When there is no such file.
        UsageError: When it is not a YAML mapping; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such recipe.", "Check the path after -c.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}.") from error
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: a recipe is a mapping of keys to values.")
    return value


def validate(model: type[Model], values: dict[str, Any], source: str) -> Model:
    """Build a model, turning pydantic's report into one line per wrong field.

    Args:
        source: Name of the input (`recipe.yaml`, `options of timm/resnet18`), for the message.

    Raises:
        UsageError: Names the field, and the nearest known one for an unknown key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"unknown key '{key}'. {did_you_mean(key, model.model_fields)}")
            else:
                hint = "; put it in quotes" if problem["type"] == "string_type" else ""
                lines.append(f"{key}: {problem['msg']} (got {problem['input']!r}){hint}")
        raise UsageError(f"{source}: " + "; ".join(lines)) from None
