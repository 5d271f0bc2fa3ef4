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

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, get_args

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

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
    """

    summary: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    family: ClassVar[bool] = False  # True: the name needs a variant after a slash
    Config: ClassVar[type[PluginConfig]] = PluginConfig
    ref: PluginRef

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
        self.ref = PluginRef(name=type(self).__name__, variant=variant)

    @classmethod
    def variants(cls) -> Sequence[str]:
        """List the names that may follow the slash; empty when the class is not a family."""
        return ()

    def identity_fields(self) -> dict[str, Any]:
        """Return everything that determines this plugin's results.

        As here, its options; a plugin whose options name files adds the content of those files.
        Identities of cells and pre-trainings are hashed from it.
        """
        return dict(self.config.model_dump())
