"""Reads the entry points of plugins from the environment, afresh at each call; imports none of them."""

from __future__ import annotations

from importlib import metadata

OWN = "ecamp"  # our distribution


def entry_points(group: str) -> list[metadata.EntryPoint]:
    """List all entry points of a group, by name and distribution.

    An editable install and a build folder can both describe one distribution; equal entries of
    one distribution count once.
    """
    points: dict[tuple[str, str, str], metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=group):
        points.setdefault((point.name, dist_of(point), point.value), point)
    return [points[key] for key in sorted(points)]


def dist_of(point: metadata.EntryPoint) -> str:
    """Return the distribution that registers an entry point; empty where none is known."""
    return point.dist.name if point.dist else ""


def version_of(point: metadata.EntryPoint) -> str:
    """Return the version of that distribution; empty where none is known."""
    return point.dist.version if point.dist else ""
