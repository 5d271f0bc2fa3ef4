"""Describes the options of a plugin: default, type, choices and bounds of every field of its `Config`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

BOUNDS = {
    "ge": "at least", "gt": "above", "le": "at most", "lt": "below",
    "min_length": "length at least", "max_length": "length at most", "pattern": "pattern",
}  # fmt: skip
DEEPEST = 5  # nested models that are listed; one that holds itself has no end


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: Within nested options with those around it: `masking.lexicon`.
        default: As Python writes it; `required` without one, empty where nested options have theirs.
        takes: Its type, or choices, and bounds.
    """

    name: str
    default: str
    takes: str
    description: str


def list_options(
    model: type[BaseModel], prefix: str = "", values: BaseModel | None = None
) -> Iterator[Option]:
    """List the options of a model, each nested model's after it.

    Args:
        prefix: Put before names.
        values: Instance that holds the defaults; those of the fields without it.
    """
    for name, field in model.model_fields.items():
        default = _default(field) if values is None else getattr(values, name)
        nested = _nested(field.annotation)
        own = isinstance(default, BaseModel)
        shown = "required" if field.is_required() and values is None else repr(default)
        yield Option(prefix + name, "" if own else shown, _takes(field), field.description or "")
        for inner in nested if prefix.count(".") < DEEPEST else ():
            below = default if isinstance(default, inner) else None
            yield from list_options(inner, f"{prefix}{name}.", below)


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _nested(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _nested(part)]


def _takes(field: FieldInfo) -> str:
    return ", ".join([_type(field.annotation), *_bounds(field.metadata)])


def _bounds(metadata: Any) -> list[str]:
    return [
        f"{words} {getattr(item, name)}"
        for item in metadata
        for name, words in BOUNDS.items()
        if getattr(item, name, None) is not None
    ]


def _type(annotation: Any) -> str:
    """Write a type for people: choices of a literal, `or` between the members of a union."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in parts)
    if origin is Annotated:
        bounds = _bounds(item for part in parts[1:] for item in getattr(part, "metadata", [part]))
        return " ".join([_type(parts[0]), *bounds])
    if annotation in (None, NoneType):
        return "null"
    if isinstance(origin, type):
        inner = ", ".join("..." if part is Ellipsis else _type(part) for part in parts)
        return f"{origin.__name__}[{inner}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "options below"
    return str(getattr(annotation, "__name__", annotation))
