"""Runs the contract on installed plugins, and reports each part of it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ecamp.api.plugin import GROUPS
from ecamp.api.plugin_ref import PluginRef
from ecamp.errors import EcampError, MissingError, did_you_mean
from ecamp.plugin.blame import blamed, raised_at
from ecamp.plugin.entries import OWN
from ecamp.plugin.host import LoadedPlugin, find_plugin, list_plugins
from ecamp.testing.contract import contract_parts

_log = logging.getLogger(__name__)

Status = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class PartResult:
    """One part of the contract of one plugin.

    Attributes:
        plugin: Its reference, options included.
        status: `skip` where it cannot be checked here: an option or its data are missing.
        reason: Why it fails or is skipped. What comes after such a part is not checked.
    """

    group: str
    plugin: str
    part: str
    status: Status
    reason: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the plain form."""
        return asdict(self)


def choose_plugins(names: tuple[str, ...], group: str | None = None) -> list[tuple[str, PluginRef]]:
    """Find the plugins to check.

    Args:
        names: References; without any, all plugins of other packages.
        group: Only those of this group.

    Raises:
        MissingError: No plugin of this name.
    """
    entries = [e for g in GROUPS if group in (None, g) for e in list_plugins(g)]
    if not names:
        other = [entry for entry in entries if entry.dist != OWN]
        names_taken = Counter((entry.group, entry.name) for entry in entries)
        return [
            (entry.group, PluginRef(name=entry.name, dist=entry.dist if shared else None))
            for entry in other
            for shared in [names_taken[entry.group, entry.name] > 1]
        ]
    chosen = []
    for name in names:
        ref = PluginRef.parse(name)
        groups = {
            entry.group: None
            for entry in entries
            if entry.name == ref.name and ref.dist in (None, entry.dist)
        }
        if not groups:
            known = [entry.name for entry in entries]
            raise MissingError(f"No plugin '{name}'.", did_you_mean(ref.name, known))
        chosen += [(found, ref) for found in groups]
    return chosen


def check_installed(group: str, ref: PluginRef, cache: Path | None = None) -> Iterator[PartResult]:
    """Check one plugin; stops after the first part that does not pass.

    Yields:
        Each part when it is done.
    """
    kind = group.removeprefix("ecamp.")

    def result(part: str, status: Status, reason: str = "") -> PartResult:
        return PartResult(kind, str(ref), part, status, reason)

    try:
        with blamed():
            loaded = find_plugin(group, ref, any_variant=True)
            if loaded.cls.family and not ref.variant and loaded.cls.variants():
                ref = ref.model_copy(update={"variant": loaded.cls.variants()[0]})
    except EcampError as error:
        _log_traceback(ref, error)
        yield result("is loaded", "fail", error.message)
        return
    yield result("is loaded", "pass")
    if missing := missing_options(loaded, ref):
        options = "&".join(f"{name}=..." for name in missing)
        joint = "&" if ref.options else "?"
        reason = f"needs {', '.join(missing)}: ecamp plugins check '{ref}{joint}{options}'"
        yield result("takes its options", "skip", reason)
        return
    parts = contract_parts(group, ref, cache)
    part = next(parts)
    while True:
        try:
            with blamed():
                following = next(parts, None)
        except Exception as error:
            _log_traceback(ref, error)
            yield result(part, *_judge(error, ref))
            return
        yield result(part, "pass")
        if following is None:
            return
        part = following


def _judge(error: Exception, ref: PluginRef) -> tuple[Status, str]:
    """Tell a broken promise from what is missing here, with the reason."""
    if isinstance(error, AssertionError):
        return "fail", str(error).removeprefix(f"{ref}: ")
    if isinstance(error, EcampError):
        return "skip" if isinstance(error, MissingError) else "fail", error.message
    return (
        "fail",
        f"{type(error).__name__}: {error} ({raised_at(error)})",
    )  # ours, at what it returned


def _log_traceback(ref: PluginRef, error: Exception) -> None:
    if os.environ.get("ECAMP_DEBUG") == "1":
        _log.warning("%s", ref, exc_info=error)


def missing_options(loaded: LoadedPlugin, ref: PluginRef) -> list[str]:
    """List the options without a default that a reference does not give."""
    fields = loaded.cls.Config.model_fields
    return [key for key, field in fields.items() if field.is_required() and key not in ref.options]
