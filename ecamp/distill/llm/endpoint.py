"""The endpoint that reports are sent to, and its key; both are checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ecamp.errors import UsageError

_PATH = "/chat/completions"


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint.

    Attributes:
        base: Address as given by the user, for messages; contains no secret.
        scheme: `http` or `https`.
        host: Name or IP address of the machine.
        local: Whether that is this machine.
    """

    base: str
    scheme: str
    host: str
    local: bool

    @property
    def url(self) -> str:
        """Address that requests are sent to."""
        return self.base + _PATH


def check_endpoint(base: str, allow_plain_http: bool) -> Endpoint:
    """Check the address of an endpoint.

    Args:
        base: Address as given by the user.
        allow_plain_http: Whether http to another machine is allowed.

    Raises:
        UsageError: It is empty or not an http(s) address, contains a key or password, or is plain http
            to another machine.
    """
    if not base:
        raise UsageError(
            "llm: no endpoint given. There is no default: reports are never sent without one.",
            "Write llm?endpoint=http://127.0.0.1:8000/v1&model=NAME, or offline=true to replay a cache.",
        )
    try:
        parts = urlsplit(base.strip())
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "llm: the endpoint's address contains a user, a key or a query.",
            "Give the address alone; put the key into an environment variable: key_env=NAME.",
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(
            f"llm: endpoint '{base}' is not an http address.",
            "Give one such as http://127.0.0.1:8000/v1.",
        )
    local = _is_loopback(host)
    if parts.scheme == "http" and not local and not allow_plain_http:
        raise UsageError(
            f"llm: endpoint {base} uses plain http to another machine: others on the network could read the"
            " reports.",
            "Use https, or set allow_plain_http=true on a network that you control.",
        )
    return Endpoint(base.strip().rstrip("/").removesuffix(_PATH), parts.scheme, host, local)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Key:
    """The key of an endpoint; never shown, stored or logged."""

    _value: str = field(default="", repr=False)

    def headers(self) -> dict[str, str]:
        """Return the headers that authorise a request."""
        return {"authorization": f"Bearer {self._value}"} if self._value else {}

    def hidden(self, text: str) -> str:
        """Replace the key in a text of the endpoint, which may repeat it."""
        return text.replace(self._value, "[KEY]") if self._value else text


def read_key(variable: str) -> Key:
    """Read the key from the environment.

    Args:
        variable: Name of the environment variable; empty: no key.

    Raises:
        UsageError: There is no such variable, or its value cannot be a key. The message shows neither
            name nor value, since a user may have given the key itself.
    """
    if not variable:
        return Key()
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UsageError(
            "llm: the environment variable named by key_env is not set.",
            "Run: export NAME=the-key. Then give key_env=NAME: the name of the variable, not the key.",
        )
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UsageError(
            "llm: the environment variable named by key_env is not a valid key: it contains characters that"
            " an HTTP header cannot carry.",
            "Set it again, without quotes, spaces or line breaks.",
        )
    return Key(value)
