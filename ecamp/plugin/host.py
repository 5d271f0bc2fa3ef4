"""Finds plugins through entry points and loads them one at a time.

stevedore's own listing is cached on disk for minutes, loses the distribution of cached entries,
misses duplicate names that are not adjacent, and would import a whole namespace at once. So the
manager here reads `importlib.metadata` afresh, sorted, and loads exactly one name.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from typing import Any

from stevedore import NamedExtensionManager

from ecamp.api.origin import Origin, code_version
from ecamp.api.plugin import GROUPS, Plugin, PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.config import typed_options, validate
from ecamp.errors import MissingError, PluginError, UsageError, did_you_mean
from ecamp.plugin.blame import blamed, raised_at
from ecamp.plugin.entries import OWN, dist_of, entry_points, version_of

_log = logging.getLogger(__name__)

# Base class of each group, imported when a plugin is loaded: a listing needs no torch.
BASES = {
    "ecamp.encoders": "ecamp.api.encoder:EncoderPlugin",
    "ecamp.pretext": "ecamp.api.pretext:PretextPlugin",
    "ecamp.datasets": "ecamp.api.dataset:Dataset",
    "ecamp.tasks": "ecamp.api.task:TaskPlugin",
    "ecamp.distillers": "ecamp.api.distiller:Distiller",
}


@dataclass(frozen=True)
class PluginEntry:
    """One registered name; its module is not imported.

    Attributes:
        value: `module:Class`.
    """

    group: str
    name: str
    dist: str
    version: str
    value: str


class PluginManager(NamedExtensionManager):  # type: ignore[type-arg]
    """stevedore's manager for one entry point, without its cache."""

    def __init__(self, group: str, point: metadata.EntryPoint) -> None:
        self._point = point
        self.failure: BaseException | None = None
        super().__init__(
            group,
            [point.name],
            on_load_failure_callback=self._failed,
            on_missing_entrypoints_callback=lambda _: None,  # it failed: that is said once, by us
        )

    def list_entry_points(self) -> list[metadata.EntryPoint]:
        """Return the one requested entry point."""
        return [self._point]

    def _failed(self, manager: Any, point: Any, error: BaseException) -> None:
        self.failure = error


def list_plugins(group: str) -> list[PluginEntry]:
    """List the plugins registered in a group, sorted by name and distribution; imports nothing."""
    return [
        PluginEntry(
            group,
            point.name,
            dist_of(point),
            version_of(point),
            point.value,
        )
        for point in entry_points(group)
    ]


@dataclass(frozen=True)
class LoadedPlugin:
    """The class of a plugin, and where it comes from."""

    cls: type[Plugin]
    origin: Origin

    def make(self, ref: PluginRef) -> Any:
        """Make the plugin with the options of a reference.

        Raises:
            UsageError: Unknown or wrong options.
            PluginError: A class of another package that lacks methods, or fails.
        """
        cls, origin = self.cls, self.origin
        if lacking := sorted(cls.__abstractmethods__):
            raise PluginError(
                f"{origin.title}: class {cls.__qualname__} lacks {', '.join(lacking)}.",
                f"Its base class describes what to implement; `ecamp plugins check {ref.name}` tests it.",
            )
        ref = ref.model_copy(update={"options": typed_options(cls.Config, ref.options)})
        package = "" if origin.dist == OWN else f" (of {origin.dist} {origin.version})"
        with blamed(origin, f"the options of {cls.__qualname__}"):
            config = validate(cls.Config, ref.options, f"options of {ref}{package}")
        with blamed(origin, f"{cls.__qualname__}.__init__"):
            plugin = cls(config, ref.variant)
        plugin.ref, plugin.origin = ref, origin
        return plugin


def find_plugin(group: str, ref: PluginRef, *, any_variant: bool = False) -> LoadedPlugin:
    """Import the class of one plugin.

    A name that `ecamp` and another distribution register means that of `ecamp`, with a warning, so
    that installing a package changes no result; the other is reached as `distribution:name`.

    Args:
        any_variant: A family may be named without a variant, to describe it.

    Raises:
        MissingError: Unknown name, or the plugin fails on import (named with its distribution).
        UsageError: Two other distributions with the name; a variant missing, unknown or out of
            place; a class that is not derived from the group's base.
    """
    if group not in GROUPS:
        raise UsageError(f"No plugin group '{group}'.", did_you_mean(group, GROUPS))
    kind = group.removeprefix("ecamp.")
    points = entry_points(group)
    named = [p for p in points if p.name == ref.name and (not ref.dist or dist_of(p) == ref.dist)]
    if not named:
        hint = did_you_mean(ref.name, [point.name for point in points])
        raise MissingError(f"{kind}: no plugin '{ref.name}'.", hint)
    if len(named) > 1:
        named = _choose(kind, ref.name, named)
    (point,) = named
    origin = Origin(group, ref.name, dist_of(point), version_of(point), "")
    cls = _check(origin, ref, _load(origin, point), any_variant)
    return LoadedPlugin(cls, replace(origin, code=code_version(cls, _packages_of(point))))


def _packages_of(point: metadata.EntryPoint) -> list[str]:
    """List the top-level packages of a distribution, as its build tool wrote them down."""
    text = point.dist.read_text("top_level.txt") if point.dist else None
    return (text or "").split()


def _choose(kind: str, name: str, points: list[metadata.EntryPoint]) -> list[metadata.EntryPoint]:
    owners = [dist_of(point) or point.value for point in points]
    ours = [point for point in points if dist_of(point) == OWN]
    if len(ours) != 1:
        raise UsageError(
            f"{kind}: '{name}' is registered by {' and '.join(owners)}.",
            f"Write {owners[0]}:{name} to pick one, or uninstall the other.",
        )
    other = next(owner for owner in owners if owner != OWN)
    _log.warning(
        "%s: '%s' is registered by %s too; the one of %s is used. For the other write %s:%s.",
        kind, name, other, OWN, other, name,
    )  # fmt: skip
    return ours


def load_plugin(group: str, ref: PluginRef, *, any_variant: bool = False) -> type[Plugin]:
    """Import the class of one plugin; arguments and errors as `find_plugin`."""
    return find_plugin(group, ref, any_variant=any_variant).cls


def skip_bad_rows(ref: PluginRef) -> PluginRef:
    """Add the option to skip unusable rows, where the data set has it and the user gave none.

    `--on-bad-image skip` means both: for a user, an unusable row and an unreadable file are the same.

    Raises:
        MissingError, UsageError: As `load_plugin`.
    """
    fields = load_plugin("ecamp.datasets", ref, any_variant=True).Config.model_fields
    if "on_bad_row" not in fields or "on_bad_row" in ref.options:
        return ref
    return ref.model_copy(update={"options": {**ref.options, "on_bad_row": "skip"}})


def _load(origin: Origin, point: metadata.EntryPoint) -> Any:
    failure: BaseException | None
    try:
        manager = PluginManager(origin.group, point)
        failure = manager.failure
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # stevedore lets some pass, such as `sys.exit` on import
        failure = error
    if failure is not None:
        location = raised_at(failure, point.module.partition(".")[0])
        raise MissingError(
            f"{origin.title} fails on import: {type(failure).__name__}: {failure}"
            f"{f' ({location})' if location else ''}",
            f"Fix or uninstall {origin.dist}; other plugins are not affected.",
        ) from failure
    return manager.extensions[0].plugin


def _check(origin: Origin, ref: PluginRef, cls: Any, any_variant: bool) -> type[Plugin]:
    kind = origin.group.removeprefix("ecamp.")
    module, _, name = BASES[origin.group].partition(":")
    base: type[Plugin] = getattr(import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UsageError(
            f"{origin.title}: {getattr(cls, '__qualname__', repr(cls))} is not a subclass of "
            f"{base.__name__}.",
            f"Derive the class from ecamp.api.{base.__name__}.",
        )
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, PluginConfig)):
        raise UsageError(
            f"{origin.title}: {cls.__qualname__}.Config is not a subclass of PluginConfig.",
            "Derive it from ecamp.api.PluginConfig: an unknown option is then an error.",
        )
    with blamed(origin, f"{cls.__qualname__}.variants"):
        variants: Sequence[str] = list(cls.variants()) if cls.family else ()
    if cls.family and not ref.variant and not any_variant:
        examples = ", ".join(variants[:3]) or "as its documentation says"
        raise UsageError(
            f"{kind}: '{ref.name}' is a family.",
            f"Write {ref.name}/VARIANT, e.g. {examples}.",
        )
    if ref.variant and not cls.family:
        raise UsageError(f"{kind}: '{ref.name}' has no variants; drop '/{ref.variant}'.")
    if ref.variant and variants and ref.variant not in variants:
        close = did_you_mean(ref.variant, variants)
        # A family can have a thousand members: only the closest is named.
        raise MissingError(
            f"{kind}: '{ref.name}' has no variant '{ref.variant}'.", close.split(" Known:")[0][:200]
        )
    return cls


def make_plugin(group: str, ref: PluginRef) -> Any:
    """Load a plugin and configure it.

    Raises:
        MissingError, UsageError: As `find_plugin`; also for unknown or wrong options.
    """
    return find_plugin(group, ref).make(ref)
