"""Origin of a plugin: the distribution and the code that its results come from. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

WHOLE = 10_000_000  # bytes; of larger files the size alone counts


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from.

    Attributes:
        group, name: Entry point.
        dist, version: Distribution and its version; empty for a class that no package registers.
        code: Hash of the files of the distribution's packages, or the author's results version
            (`results 3`): changes with everything that may change results.
    """

    group: str
    name: str
    dist: str
    version: str
    code: str

    def as_json(self) -> dict[str, str]:
        """Return the plain form for `plan.json` and `result.json`."""
        return asdict(self)

    def as_identity(self) -> list[str]:
        """Return what enters identities.

        An author who states a results version vouches for it: other versions then share results.
        """
        version = "" if self.code.startswith("results ") else self.version
        return [self.group, self.name, self.dist, version, self.code]

    @property
    def title(self) -> str:
        """Group, name, distribution and version, as messages begin."""
        kind = self.group.removeprefix("ecamp.")
        return f"{kind}: plugin '{self.name}' of {self.dist} {self.version}"

    def __str__(self) -> str:
        return f"{self.dist} {self.version} ({self.code})"


def code_version(cls: type, packages: Iterable[str] = ()) -> str:
    """Return the results version that the author states, or a hash of the package's files.

    A version is stated on the class itself (`results_version = 2`; a subclass has to state its own),
    or as `__results_version__` of a package around it, the innermost first.

    Args:
        packages: Further top-level packages of the distribution.
    """
    stated = cls.__dict__.get("results_version")
    parts = cls.__module__.split(".")
    for depth in range(len(parts), 0, -1):
        if stated is None:
            module = sys.modules.get(".".join(parts[:depth]))
            stated = getattr(module, "__results_version__", None)
    if stated is not None:
        return f"results {stated}"
    hashes = [_package_hash(name) for name in sorted({parts[0], *packages})]
    return (
        hashes[0]
        if len(hashes) == 1
        else hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]
    )


@cache
def _package_hash(module: str) -> str:
    """Hash the files of a top-level package or module, in the order of their names; 16 hex digits."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        spec = find_spec(module)  # of a top-level name: nothing is imported
        file = None if spec is None else spec.origin
    if file is None:
        return "unknown"
    path = Path(file)
    digest = hashlib.sha256()
    folder = path.parent
    files = [path] if path.name != "__init__.py" else sorted(folder.rglob("*"))
    for part in files:
        if "__pycache__" in part.parts or not part.is_file():
            continue
        size = part.stat().st_size
        digest.update(f"{part.relative_to(folder).as_posix()}\0{size}\0".encode())
        if size <= WHOLE:
            digest.update(part.read_bytes())
    return digest.hexdigest()[:16]
