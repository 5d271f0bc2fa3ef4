"""Finds the plugin of another package that an exception comes from, and names it.

"Defect" is said of our own code only. Whoever raised is to blame: the package of the innermost frame
that belongs to a plugin of another distribution.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

from ecamp.api.origin import Origin
from ecamp.api.plugin import GROUPS, Plugin
from ecamp.errors import EcampError, PluginError
from ecamp.plugin.entries import OWN, dist_of, entry_points, version_of

# Objects that a plugin builds and others call, by module: known only where that is loaded already.
PRODUCTS = {
    "ecamp.encoders": ("ecamp.api.encoder", "Encoder"),
    "ecamp.pretext": ("ecamp.api.pretext", "Objective"),
}


@dataclass(frozen=True)
class Culprit:
    """Plugin that raised.

    Attributes:
        points: Its entry point; all those of its package, where the frames do not tell which.
        method: Hook of it that was called.
        location: File and line that raised.
    """

    points: tuple[EntryPoint, ...]
    method: str
    location: str

    def error(self, raised: BaseException) -> PluginError:
        """Make the error that a user reads."""
        kinds = ", ".join(dict.fromkeys(p.group.removeprefix("ecamp.") for p in self.points))
        names = " or ".join(f"'{point.name}'" for point in self.points)
        dist, version = dist_of(self.points[0]), version_of(self.points[0])
        title = f"{kinds}: plugin {names} of {dist} {version}"
        return _error(title, dist, self.points[0].name, self.method, self.location, raised)


def _error(
    title: str, dist: str, name: str, method: str, location: str, raised: BaseException
) -> PluginError:
    place = f" ({location})" if location else ""
    return PluginError(
        f"{title} fails in {method}: {type(raised).__name__}: {raised}{place}.",
        f"Fix it, or report it to the authors of {dist}: `ecamp plugins check {name}` tests it, "
        "ECAMP_DEBUG=1 shows the traceback.",
    )


@contextmanager
def blamed(origin: Origin | None = None, method: str = "") -> Iterator[None]:
    """Turn what a plugin of another package raises into a `PluginError` that names it.

    `sys.exit` and other BaseExceptions of a plugin too. A user's mistake (`EcampError`), an
    interruption, and whatever our own code raises pass as they are.

    Args:
        origin, method: The plugin that the block calls, if it is one alone: it is to blame also
            where none of its frames is left, because it returned something else than it should.

    Raises:
        PluginError: Names group, plugin, distribution, version and method.
    """
    try:
        yield
    except (EcampError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as raised:
        culprit = find_culprit(raised)
        if culprit is not None:
            raise culprit.error(raised) from raised
        if origin is not None and origin.dist not in ("", OWN):
            raise _error(origin.title, origin.dist, origin.name, method, "", raised) from raised
        raise


def find_culprit(raised: BaseException) -> Culprit | None:
    """Find the plugin of another package that raised; None where our own code did."""
    packages = _packages()
    frames = [frame for frame, _ in walk_tb(raised.__traceback__)]
    package = next((_top(f) for f in reversed(frames) if _top(f) in packages), None)
    if package is None:
        return None
    hook = next(index for index, frame in enumerate(frames) if _top(frame) == package)
    points = _plugin_of(frames[: hook + 1], package, packages[package])
    name = frames[hook].f_code.co_qualname
    method = "import" if name == "<module>" else name
    return Culprit(tuple(points), method, raised_at(raised, package))


def raised_at(raised: BaseException, package: str = "") -> str:
    """Return file and line of the innermost frame (of a package); empty without a traceback."""
    places = [
        f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])} line {line}"
        for frame, line in walk_tb(raised.__traceback__)
        if not package or _top(frame) == package
    ]
    return places[-1] if places else ""


def suspects() -> str:
    """Say, after a failure in our own code, which plugins of other packages it may come from.

    What a plugin returns is used later, where no frame of it is left.
    """
    loaded = sorted(
        f"{point.name} of {dist_of(point)} {version_of(point)}"
        for points in _packages().values()
        for point in points
        if _loaded(point) is not None
    )
    if not loaded:
        return ""
    return (
        f"\n  Plugins of other packages are in use ({', '.join(loaded)}): "
        "`ecamp plugins check` tells whether they return what they should."
    )


def _packages() -> dict[str, list[EntryPoint]]:
    """Map top-level modules of other distributions to the plugins that they hold."""
    packages: dict[str, list[EntryPoint]] = {}
    for group in GROUPS:
        for point in entry_points(group):
            top = point.module.partition(".")[0]
            if dist_of(point) != OWN and top != OWN:
                packages.setdefault(top, []).append(point)
    return packages


def _top(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _plugin_of(
    frames: Sequence[FrameType], package: str, points: list[EntryPoint]
) -> list[EntryPoint]:
    """Choose the plugin that was at work: it, or what it built, is at hand in the nearest frame."""
    if len(points) == 1:
        return points
    for frame in reversed(frames):
        for value in list(frame.f_locals.values()):
            for point in points:
                if _belongs(value, point, package):
                    return [point]
    return points


def _belongs(value: Any, point: EntryPoint, package: str) -> bool:
    """Tell whether an object is a plugin of this entry point, its class, or built by it."""
    cls = value if isinstance(value, type) else type(value)
    origin = getattr(value, "origin", None) if issubclass(cls, Plugin) else None
    if isinstance(origin, Origin) and origin.dist:
        return (origin.group, origin.name) == (point.group, point.name)
    plugin = _loaded(point)
    if isinstance(plugin, type) and issubclass(cls, plugin):
        return True
    module, name = PRODUCTS.get(point.group, ("", ""))
    product = getattr(sys.modules.get(module), name, None)
    ours = cls.__module__.partition(".")[0] == package
    return ours and isinstance(product, type) and issubclass(cls, product)


def _loaded(point: EntryPoint) -> Any:
    """Return the object that an entry point names, if its module is loaded."""
    return getattr(sys.modules.get(point.module), point.attr, None)
