"""Language data in YAML files: shipped with the package, or a user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import ClassVar, Self

import yaml

from ecamp.api.plugin import PluginConfig
from ecamp.config import identity, validate
from ecamp.errors import MissingError, UsageError, did_you_mean


class LanguageFile(PluginConfig):
    """Base of models that are read from a YAML file of language data.

    Attributes:
        kind: Name of this kind of file in messages (`lexicon`).
        package: Package that ships files of this kind.
        folder: Folder of the package that holds them.
    """

    kind: ClassVar[str]
    package: ClassVar[str] = "ecamp.text"
    folder: ClassVar[str]

    def digest(self) -> str:
        """Hash the content: with other words in the file, results differ."""
        return identity(self.model_dump())

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a shipped file by name, or a user's file by path.

        Args:
            name: Name of a shipped file (`chest`), or a path that ends in .yaml or .yml.

        Raises:
            MissingError: There is no such file.
            UsageError: It is not UTF-8 YAML, or has wrong keys or types; names them.
        """
        data, location = cls._read(name)
        try:
            value = yaml.safe_load(data)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"{location}: not YAML: {error}.") from error
        if not isinstance(value, dict):
            keys = ", ".join(key for key, field in cls.model_fields.items() if field.is_required())
            raise UsageError(f"{location}: must be a mapping with {keys}.")
        return validate(cls, value, location)

    @classmethod
    def _read(cls, name: str) -> tuple[bytes, str]:
        """Return the bytes of a file and its name for messages."""
        shipped_files = resources.files(cls.package) / cls.folder
        shipped = sorted(item.name.removesuffix(".yaml") for item in shipped_files.iterdir())
        path = Path(name)
        if path.suffix in (".yaml", ".yml"):
            if not path.is_file():
                raise MissingError(
                    f"{path}: no such {cls.kind}.", f"Name a file, or {' or '.join(shipped)}."
                )
            return path.read_bytes(), str(path)
        if name not in shipped:
            raise MissingError(
                f"No {cls.kind} '{name}'.", f"{did_you_mean(name, shipped)} Or a .yaml file."
            )
        return (shipped_files / f"{name}.yaml").read_bytes(), f"{cls.kind} {name}"
