# SPDX-License-Identifier: Apache-2.0
"""Stands for a Firecracker process's API in unit tests: answers what it was told to answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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
