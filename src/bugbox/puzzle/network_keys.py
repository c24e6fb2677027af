# SPDX-License-Identifier: Apache-2.0
"""What a puzzle says of its machine's network: what it may reach, and what it calls things."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from bugbox.puzzle.keys import Model, key, problem

__all__ = ["Network"]

_WORDS = ("none", "dns", "full")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", re.IGNORECASE)
_MAX_ALLOWED = 32


def _egress(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str) and value in _WORDS:
        return value
    if isinstance(value, dict) and set(value) == {"allow"} and isinstance(value["allow"], list):
        goals = value["allow"]
        if 0 < len(goals) <= _MAX_ALLOWED and all(_is_goal(goal) for goal in goals):
            return tuple(goals)
    raise problem("expected", 'none, dns, full, or {allow: ["host:port", …]}')


def _is_goal(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    host, colon, port = value.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
    return bool(colon and _HOST.fullmatch(host)) and 1 <= number <= 65535


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise problem("expected", "a host's name such as db.internal")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise problem("expected", "an IP address such as 10.0.2.100") from None


Egress = Annotated[
    str | tuple[str, ...],
    PlainValidator(_egress),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*_WORDS]},
                {
                    "type": "object",
                    "properties": {"allow": {"type": "array", "items": {"type": "string"}}},
                    "required": ["allow"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
HostName = Annotated[str, AfterValidator(_host)]
Address = Annotated[str, AfterValidator(_address)]


class Network(Model):
    """What the machine may reach."""

    egress: Egress = key(
        '`none`, `dns`, `full` or `{allow: ["host:port"]}`',
        "What the machine may reach outside; what a host cannot keep to is refused at its start.",
        reader="session",
        default="none",
    )
    hosts: Annotated[dict[HostName, Address], Field(max_length=64)] = key(
        "mapping of name to IP address",
        "Names it resolves: lines of its /etc/hosts.",
        reader="build",
        default={},
    )
