"""Fields of `dataset.yaml`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from ecamp.api.dataset import SPLITS, USUAL_TRUTHS
from ecamp.api.plugin import PluginConfig
from ecamp.config import load_recipe, validate
from ecamp.errors import MissingError, UsageError


class SplitRule(PluginConfig):
    """Splits: either a column with their names, or fractions by a hash of the patient."""

    column: str | None = Field(default=None, description="column with the name of the split")
    names: dict[str, str] = Field(
        default_factory=dict, description="value of the column -> pretrain, train, val or test"
    )
    hash: dict[str, float] = Field(
        default_factory=dict, description="split -> share; the sum must be 1"
    )

    @model_validator(mode="after")
    def _one(self) -> SplitRule:
        if bool(self.column) == bool(self.hash):
            raise ValueError("give either `column` or `hash`")
        for name in [*self.hash, *self.names.values()]:
            if name not in SPLITS:
                raise ValueError(f"unknown split '{name}'; use {', '.join(SPLITS)}")
        if self.hash and abs(sum(self.hash.values()) - 1) > 1e-6:
            raise ValueError(f"the fractions sum to {sum(self.hash.values()):g}, not 1")
        return self


class Labels(PluginConfig):
    """Labels: either several 0/1 columns, or one column with the class."""

    multilabel: dict[str, str] = Field(default_factory=dict, description="label -> 0/1 column")
    multiclass: str | None = Field(default=None, description="column with the class")
    classes: list[str] = Field(
        default_factory=list, description="classes of `multiclass`, in order"
    )

    @field_validator("multilabel", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {str(v): str(v) for v in value} if isinstance(value, list) else value

    @field_validator("classes", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        # YAML reads `no`, `1` and the like as other types; a table contains text.
        return [str(v) for v in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one(self) -> Labels:
        if bool(self.multilabel) == bool(self.multiclass):
            raise ValueError("give either `multilabel` or `multiclass`")
        if self.multiclass and len(self.classes) < 2:
            raise ValueError("`multiclass` needs `classes`: a list of two or more, in order")
        return self


class Layout(PluginConfig):
    """Content of `dataset.yaml`."""

    name: str = Field(min_length=1, description="name in every result")
    version: str = Field(default="1", description="version of the splits")
    table: str = Field(description="CSV or TSV file, relative to dataset.yaml; ${VAR} is replaced")
    root: str | None = Field(
        default=None, description="folder of images and masks; default: that of the table"
    )
    where: dict[str, str | list[str]] = Field(
        default_factory=dict, description="column -> value(s) of the rows to keep"
    )
    id: str = Field(description="column: unique name of the image")
    image: str | list[str] = Field(
        description="column: path of the image; several columns of grey images are stacked as channels"
    )
    patient: str = Field(description="column: patient; splits and intervals are by patient")
    split: SplitRule
    labels: Labels | None = None
    masks: dict[str, str] = Field(default_factory=dict, description="class -> column of mask paths")
    boxes: str | None = Field(default=None, description="COCO JSON file")
    reports: list[str] = Field(
        default_factory=list, description="columns of the report, joined in this order"
    )
    numbers: dict[str, str] = Field(
        default_factory=dict, description="truth of one number -> its column; empty = unknown"
    )
    vectors: dict[str, list[str]] = Field(
        default_factory=dict, description="truth of several numbers -> their columns"
    )
    texts: dict[str, str] = Field(
        default_factory=dict, description="truth of text -> its column; empty = unknown"
    )
    distilled: str | None = Field(
        default=None, description="column: entity-centred statements distilled from the report"
    )
    distilled_file: str | None = Field(
        default=None, description="output file of `ecamp distill`, instead of a column"
    )
    distilled_id: str | None = Field(
        default=None, description="column: id of the report in that file; default: id"
    )
    colour: str = Field(default="grey", pattern="^(grey|rgb)$")
    mean: list[float] | None = None
    std: list[float] | None = None
    licence: str = ""
    citation: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """Columns of the image's channels; one column for a grey or colour image."""
        return (self.image,) if isinstance(self.image, str) else tuple(self.image)

    @model_validator(mode="after")
    def _stack(self) -> Layout:
        if not self.images:
            raise ValueError("image: name at least one column")
        if self.colour == "rgb" and len(self.images) > 1:
            raise ValueError("image: several columns are stacks of grey images; leave colour: grey")
        return self

    @model_validator(mode="after")
    def _unique_truths(self) -> Layout:
        names = [*self.numbers, *self.vectors, *self.texts]
        for name in names:
            if names.count(name) > 1 or name in USUAL_TRUTHS:
                raise ValueError(f"truth '{name}': choose another name; that one is taken")
        for name, columns in self.vectors.items():
            if not columns:
                raise ValueError(f"vectors.{name}: name at least one column")
        return self

    @model_validator(mode="after")
    def _one_distilled(self) -> Layout:
        if self.distilled and self.distilled_file:
            raise ValueError("give either `distilled` or `distilled_file`")
        if self.distilled_id and not self.distilled_file:
            raise ValueError("`distilled_id` needs `distilled_file`")
        return self

    @field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) else value

    @field_validator("where", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: [str(x) for x in v] if isinstance(v, list) else str(v) for k, v in value.items()}

    @field_validator("reports", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


def read_layout(path: Path) -> Layout:
    """Read `dataset.yaml`.

    Raises:
        MissingError: No such file.
        UsageError: Not YAML, or a wrong or unknown key; names it.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such data set.", "Check the path after --datasets.")
    return validate(Layout, load_recipe(path), str(path))


def resolve(text: str, base: Path, location: str) -> Path:
    """Replace `${VAR}` and resolve the path relative to `base`.

    Raises:
        UsageError: The variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise UsageError(
                f"{location}: ${{{name}}} is not set.", f"export {name}=/path/to/folder"
            )
        return os.environ[name]

    return base / Path(re.sub(r"\$\{(\w+)\}", value, text)).expanduser()
