# SPDX-License-Identifier: Apache-2.0
"""Which of a guest's ports may be reached from outside: those that the puzzle names."""

from __future__ import annotations

from typing import Any

from bugbox.errors import UserError
from bugbox.session.plan import Plan

__all__ = ["port_of"]


def port_of(plan: Plan, wanted: object) -> dict[str, Any]:
    """Return the port that a number or a name means: number, protocol and path; UserError."""
    text = str(wanted)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if plan.puzzle is None:
        if not 1 <= number <= 65535:
            raise UserError(f"port {text}: expected a number from 1 to 65535")
        return {"port": number, "protocol": "tcp", "path": ""}
    ports = plan.puzzle.manifest.ports
    for port in ports:
        if port.port == number or port.name == text:
            return {"port": port.port, "protocol": port.protocol, "path": port.path or ""}
    known = ", ".join(f"{port.name} ({port.port})" for port in ports)
    raise UserError(
        f"{plan.name} opens no port {text}",
        hint=f"it opens {known}" if known else "its puzzle.yaml names none under `ports`",
    )
