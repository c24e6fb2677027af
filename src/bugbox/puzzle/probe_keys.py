# SPDX-License-Identifier: Apache-2.0
"""A check from outside as data: what is sent to the machine, and what is expected back.

Data and not a script: what is sent is sent by the host, and no program of a puzzle's author ever
runs there (decision 0011).
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator

from bugbox.puzzle.keys import Count, Flag, Line, Model, between, key, limited, problem

__all__ = ["Probe", "address_of"]

#: A placeholder of a variant counts as one letter here; what it stands for is looked at later.
_PLACEHOLDER = re.compile(r"\{\{[A-Z][A-Z0-9_]*\}\}")
_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_EXAMPLE = "an address such as http://shop.example:8080/menu"


def address_of(url: str) -> tuple[str, int, str]:
    """Return host, port and path of an `http://` URL; ValueError when it is none.

    Only the port decides where it goes, which is always the machine itself; the host is told.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(url)
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise ValueError(url)
    if not _NAME.fullmatch(parts.hostname):
        raise ValueError(url)
    port = 80 if parts.port is None else parts.port
    if not 1 <= port <= 65535:
        raise ValueError(url)
    path = parts.path or "/"
    return parts.netloc, port, f"{path}?{parts.query}" if parts.query else path


def _url(value: str) -> str:
    try:
        address_of(_PLACEHOLDER.sub("x", value))
    except ValueError:
        raise problem("expected", _EXAMPLE) from None
    return value


def _name(value: str) -> str:
    plain = _PLACEHOLDER.sub("x", value)
    if not _NAME.fullmatch(plain) or any(len(label) > 63 for label in plain.split(".")):
        raise problem("expected", "a name such as printer.lan")
    return value


class Probe(Model):
    """One of http, tcp and dns, and what must come of it."""

    http: Annotated[Line, AfterValidator(_url)] | None = key(
        "URL",
        "A page that is asked for: `http://shop.example:8080/menu`. It always goes to the machine, "
        "at that port; the name is what its server is told.",
        reader="check",
        default=None,
    )
    tcp: Annotated[Count, limited(1, 65535)] | None = key(
        between(1, 65535), "A port that must take a connection.", reader="check", default=None
    )
    dns: Annotated[Line, AfterValidator(_name)] | None = key(
        "name",
        "A name for which the machine's DNS server (port 53, TCP) must know an address.",
        reader="check",
        default=None,
    )
    status: Annotated[Count, limited(100, 599)] | None = key(
        between(100, 599),
        "With `http`: the status that must come.",
        reader="check",
        default=None,
        shown="any from 200 to 399",
    )
    contains: Line | None = key(
        "text",
        "With `http`: what the page must hold. With `tcp`: what must be said first. "
        "With `dns`: an address that must be among the answers.",
        reader="check",
        default=None,
    )
    closed: Flag = key(
        "flag",
        "With `tcp`: nothing may take the connection.",
        reader="check",
        default=False,
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Probe:
        if sum(each is not None for each in (self.http, self.tcp, self.dns)) != 1:
            raise problem("expected", "one of http, tcp and dns")
        if self.status is not None and self.http is None:
            raise problem("expected", "http beside status")
        if self.closed and (self.tcp is None or self.contains is not None):
            raise problem("expected", "tcp, and nothing that it contains, beside closed")
        return self
