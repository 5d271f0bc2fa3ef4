"""Where reports are sent, and the key: what is allowed, checked before anything is sent."""

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
        base: As named by the user, for messages; holds no secret.
        scheme, host: Parts of it.
        local: Whether it is this machine.
    """

    base: str
    scheme: str
    host: str
    local: bool

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.base + _PATH


def check_endpoint(base: str, allow_plain_http: bool) -> Endpoint:
    """Check an endpoint's address.

    Raises:
        UsageError: None named, no http(s) address, a key or password within it, or plain http to another
            machine.
    """
    if not base:
        raise UsageError(
            "llm: no endpoint is named, and there is no default: reports leave the machine only by your word.",
            "Write llm?endpoint=http://127.0.0.1:8000/v1&model=NAME, or offline=true to replay a cache.",
        )
    try:
        parts = urlsplit(base.strip())
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "llm: the endpoint's address holds a user, a key or a query.",
            "Give the plain address; the key goes into an environment variable: key_env=NAME.",
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(
            f"llm: endpoint '{base}' is no http address.", "Such as http://127.0.0.1:8000/v1."
        )
    local = _is_loopback(host)
    if parts.scheme == "http" and not local and not allow_plain_http:
        raise UsageError(
            f"llm: endpoint {base} is plain http to another machine: anybody between could read the reports.",
            "Use https, or say allow_plain_http=true where the network is yours.",
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
        """What a request carries."""
        return {"authorization": f"Bearer {self._value}"} if self._value else {}

    def hidden(self, text: str) -> str:
        """A text of the endpoint, which may repeat the key, without it."""
        return text.replace(self._value, "[KEY]") if self._value else text


def read_key(variable: str) -> Key:
    """Read the key from the environment.

    Raises:
        UsageError: No such variable, or it holds what cannot be a key. The message shows neither, as a
            user might have given the key itself.
    """
    if not variable:
        return Key()
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UsageError(
            "llm: key_env names no environment variable that is set.",
            "export NAME=the-key, then key_env=NAME: the name of the variable, not the key itself.",
        )
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UsageError(
            "llm: the environment variable of key_env holds no key: letters that no header can carry.",
            "Set it again, without quotes, spaces or line breaks.",
        )
    return Key(value)
