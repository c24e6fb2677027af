# SPDX-License-Identifier: Apache-2.0
"""Stands for Firecracker in unit tests: its API, which answers as it was told, or all of it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bugbox.config import Settings
from bugbox.machine.firecracker import driver as firecracker
from bugbox.paths import Home

PROGRAM = Path(__file__).with_name("firecracker_program.py")
DATA = Path(__file__).parents[1] / "data" / "firecracker"
EXCHANGES = [json.loads(line) for line in (DATA / "exchanges.jsonl").read_text().splitlines()]

#: (status, headers, body) for a method, a path and a body; status None: it hangs up.
Answers = Callable[[str, str, Any], tuple[int | None, dict[str, str], Any]]


def recorded(version: str = "1.17.0-dev") -> Answers:
    """Answer every request as the real program once did, and any other with 204."""

    def answer(method: str, path: str, body: Any) -> tuple[int | None, dict[str, str], Any]:
        if path == "/version":
            return 200, {}, {"firecracker_version": version}
        for each in EXCHANGES:
            if each["request"] == {"method": method, "path": path, "body": body}:
                said = each["response"]
                return said["status"], said["headers"], said["body"]
        return 204, {}, ""

    return answer


@asynccontextmanager
async def serving(socket: Path, answers: Answers) -> AsyncIterator[list[tuple[str, str, Any]]]:
    """Listen; yields what was asked so far."""
    asked: list[tuple[str, str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                length = 0
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                body = json.loads(await reader.readexactly(length)) if length else None
                asked.append((method, path, body))
                status, headers, said = answers(method, path, body)
                if status is None:
                    break
                text = b"" if said == "" else json.dumps(said, separators=(",", ":")).encode()
                kept = {k: v for k, v in headers.items() if k != "Content-Length"}
                if text:
                    kept["Content-Length"] = str(len(text))
                head = f"HTTP/1.1 {status} \r\n" + "".join(f"{k}: {v}\r\n" for k, v in kept.items())
                writer.write(head.encode() + b"\r\n" + text)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(socket))
    try:
        yield asked
    finally:
        server.close()


def double(
    folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.17.0"
) -> firecracker.FirecrackerDriver:
    """Return Firecracker's driver with something else in the place of the program."""
    monkeypatch.setattr(firecracker, "check_kvm", lambda: None)
    program = folder / "firecracker"
    program.write_text(f'#!/bin/sh\nFAKE_FIRECRACKER_VERSION={version} exec {sys.executable} '
                       f'{PROGRAM} "$@"\n')  # fmt: skip
    program.chmod(0o755)
    settings = replace(Settings(), firecracker=str(program), firecracker_jail="off")
    return firecracker.FirecrackerDriver(Home(folder), settings)


def end_commands(folder: Path) -> None:
    """End the commands of a fake guest whose process was killed, as a machine's end would."""
    mark = f"FAKE_ROOT={folder / 'fake'}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
