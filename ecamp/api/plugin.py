"""Base class of all plugins and of their options. Imports neither torch nor numpy.

A plugin is a class with a pydantic `Config` (unknown keys are refused), a one-line `summary`, a
`licence`, a `citation`, and the methods of its group. It is found through an entry point; the
built-in plugins use the same entry points as a third party's package.

| group            | base class      | turns                                                      |
| ---------------- | --------------- | ---------------------------------------------------------- |
| ecamp.encoders   | EncoderPlugin   | a config into a torch module, image -> features            |
| ecamp.pretext    | PretextPlugin   | an encoder into a training objective on image-report pairs |
| ecamp.datasets   | Dataset         | an on-disk (or procedural) layout into records and samples |
| ecamp.tasks      | TaskPlugin      | features and targets into predictions and scores           |
| ecamp.distillers | Distiller       | reports into entity-centred statements                     |
"""

from __future__ import annotations

import hashlib
from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, get_args

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from ecamp.api.origin import Origin, code_version
from ecamp.api.plugin_ref import PluginRef

GROUPS = (
    "ecamp.encoders", "ecamp.pretext", "ecamp.datasets", "ecamp.tasks", "ecamp.distillers",
)  # fmt: skip


class PluginConfig(BaseModel):
    """Base of every plugin's options: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Covariant, so that a `Dataset[PhantomConfig]` is accepted where a `Dataset` is asked for.
ConfigT = TypeVar("ConfigT", bound=PluginConfig, default=PluginConfig, covariant=True)


class Plugin(ABC, Generic[ConfigT]):
    """Common part of all plugins, generic in its options.

    `class Mine(Dataset[MyConfig])` sets `Mine.Config` to `MyConfig` and makes `self.config` an
    instance of it, checked by mypy.

    Args:
        config: An instance of the class's `Config`.
        variant: The part of the name after the slash (`timm/resnet18` -> `resnet18`), for a
            family of plugins; `None` for a plain name.

    Attributes:
        ref: How the user named the plugin; set by the host that makes it.
        origin: Distribution and code that it comes from; set by the host.
        results_version: Version of the class's results, by its author's word. Results of another
            version are computed again; without one, results are tied to the distribution's version
            and a hash of the package's files. Not inherited.
    """

    summary: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    family: ClassVar[bool] = False  # True: the name needs a variant after a slash
    results_version: ClassVar[int | str | None] = None
    Config: ClassVar[type[PluginConfig]] = PluginConfig
    ref: PluginRef
    origin: Origin

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "Config" not in cls.__dict__:
            for base in cls.__dict__.get("__orig_bases__", ()):
                for argument in get_args(base):
                    config = getattr(argument, "__default__", argument)
                    if isinstance(config, type) and issubclass(config, PluginConfig):
                        cls.Config = config

    def __init__(self, config: ConfigT, variant: str | None = None) -> None:
        self.config = config
        self.variant = variant
        name = type(self).__name__
        self.ref = PluginRef(name=name, variant=variant)
        self.origin = Origin("", name, "", "", code_version(type(self)))

    @classmethod
    def variants(cls) -> Sequence[str]:
        """List the names that may follow the slash; empty when the class is not a family."""
        return ()

    def identity_fields(self) -> dict[str, Any]:
        """Return the options that determine this plugin's results.

        As here, all of them; a field of type `Path` that names a file counts by the file's content.
        A plugin whose options name files as text, or folders, adds their content.
        """
        return {name: _content(value) for name, value in self.config.model_dump().items()}

    @property
    def identity(self) -> list[Any]:
        """Everything that determines this plugin's results: its code, variant and options.

        Identities of cells, pre-trainings, features and decoded images are hashed from it.
        """
        return [self.origin.as_identity(), self.variant, self.identity_fields()]


def _content(value: Any) -> Any:
    """Replace the path of a file by a hash of its content."""
    if not isinstance(value, Path) or not value.is_file():
        return value
    with value.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
