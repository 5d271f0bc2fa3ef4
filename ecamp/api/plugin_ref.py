"""References to plugins as users write them. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ecamp.errors import UsageError

QUOTE = 'Put a value with & or , in double quotes: root="/films, 2024".'


class PluginRef(BaseModel):
    """A plugin, its variant and its options: `[dist:]name[/variant][?key=value&key=value]`.

    Examples: `phantom`, `timm/resnet18`, `vit-micro?depth=6`, `my-package:retina?root=/data`,
    `path/to/dataset.yaml`, `my-cnn?widths=[16,32]`, `retina?root="/films, R&D"`.

    A value goes to the next `&` (in a list of references, or the next comma) and is taken to the
    letter, spaces, `#`, `?` and `=` included. A value in double quotes is a JSON string; one in
    brackets or braces is a YAML list or mapping. The plugin's own fields decide the type of the
    others: `root=2024` is a path where `root` is text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    variant: str | None = None
    dist: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> PluginRef:
        """Read the one-line form. A path that ends in .yaml or .yml is the `folder` data set.

        Raises:
            UsageError: When the text is empty, an option has no `=` or appears twice, or a quote or
                bracket is not closed.
        """
        (ref,) = _Reader(text.strip(), end="").references()
        return ref

    @classmethod
    def parse_list(cls, text: str) -> list[PluginRef]:
        """Read references separated by commas; commas in quotes and brackets separate nothing.

        Raises:
            UsageError: As `parse`.
        """
        return list(_Reader(text.strip(), end=",").references())

    def __str__(self) -> str:
        if self.name == "folder" and "path" in self.options:
            body = _path_text(str(self.options["path"]))
            options = {k: v for k, v in self.options.items() if k != "path"}
        else:
            body = f"{self.dist}:" if self.dist else ""
            body += self.name + (f"/{self.variant}" if self.variant else "")
            options = self.options
        query = "&".join(f"{key}={_option_text(value)}" for key, value in sorted(options.items()))
        return f"{body}?{query}" if query else body


def _path_text(path: str) -> str:
    """Quote a path that stands in the place of a name, where it would be read otherwise."""
    return json.dumps(path, ensure_ascii=False) if set(path) & set('?,"') else path


def _option_text(value: Any) -> str:
    """Write a value so that the same reference is read again."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    plain = (
        value and value == value.strip() and value[0] not in '"[{' and not set(value) & set("&,")
    )
    return value if plain else json.dumps(value, ensure_ascii=False)


class _Reader:
    """Reads references from left to right.

    Args:
        end: Characters that end a reference outside quotes and brackets.
    """

    def __init__(self, text: str, end: str) -> None:
        self.text, self.end, self.position = text, end, 0

    def references(self) -> Iterator[PluginRef]:
        while True:
            yield self._reference()
            if self.position >= len(self.text):
                return
            self.position += 1  # the comma

    def _reference(self) -> PluginRef:
        start = self.position
        self._skip_spaces()
        if self._peek() == '"':
            body = self._quoted()
            self._expect_end("?")
        else:
            body = self._until("?" + self.end).strip()
        options: dict[str, Any] = {}
        if self._peek() == "?":
            self.position += 1
            options = self._options()
        where = self.text[start : self.position].strip()
        if not body:
            raise UsageError(
                f"'{where}' names no plugin.", "Write name, name/variant or name?key=value."
            )
        if body.endswith((".yaml", ".yml")):
            return PluginRef(name="folder", options={"path": body, **options})
        dist, colon, rest = body.rpartition(":")
        name, _, variant = rest.partition("/")
        return PluginRef(
            name=name, variant=variant or None, dist=dist if colon else None, options=options
        )

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        while True:
            key = self._until("=&" + self.end).strip()
            if self._peek() == "=":
                self.position += 1
                if key in options:
                    raise UsageError(f"Option '{key}' appears twice in '{self.text}'.")
                options[key] = self._value()
            elif key:
                raise UsageError(f"Option '{key}' of '{self.text}' has no value.",
                                 f"Write key=value. {QUOTE}")  # fmt: skip
            if self._peek() != "&":
                return options
            self.position += 1

    def _value(self) -> Any:
        first = self._peek()
        if first == '"':
            value = self._quoted()
            self._expect_end("&")
            return value
        if first in ("[", "{"):
            text = self._bracketed()
            self._expect_end("&")
            try:
                return json.loads(text)  # as `str` writes it; YAML cannot read every such string
            except ValueError:
                return self._yaml(text)
        return self._until("&" + self.end).strip()

    def _yaml(self, text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(
                f"'{text}' in '{self.text}' is not a list or mapping.",
                "Write [a, b] or {key: value}.",
            ) from None

    def _quoted(self) -> str:
        try:
            value, self.position = json.JSONDecoder().raw_decode(self.text, self.position)
        except ValueError:
            raise UsageError(
                f"'{self.text[self.position :]}': the quote is not closed.",
                'Within quotes write \\" for a quote and \\\\ for a backslash.',
            ) from None
        return str(value)

    def _bracketed(self) -> str:
        """Return the text from a bracket to the one that closes it."""
        start, depth, quote = self.position, 0, ""
        while self.position < len(self.text):
            letter = self.text[self.position]
            self.position += 1
            if quote:
                if letter == "\\" and quote == '"':
                    self.position += 1  # what follows is escaped
                elif letter == quote:
                    quote = ""
            elif letter in "\"'":
                quote = letter
            else:
                depth += (letter in "[{") - (letter in "]}")
                if not depth:
                    return self.text[start : self.position]
        raise UsageError(f"'{self.text[start:]}': the bracket is not closed.")

    def _expect_end(self, stops: str) -> None:
        """Skip spaces; anything but the end, or what may follow, is a mistake."""
        self._skip_spaces()
        following = self._peek()
        if following and following not in stops + self.end:
            raise UsageError(
                f"'{self.text}': '{self.text[self.position :]}' follows a closed quote or bracket.",
                "Put the whole value in quotes.",
            )

    def _skip_spaces(self) -> None:
        while self._peek().isspace():
            self.position += 1

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _until(self, stops: str) -> str:
        start = self.position
        while self.position < len(self.text) and self.text[self.position] not in stops:
            self.position += 1
        return self.text[start : self.position]
