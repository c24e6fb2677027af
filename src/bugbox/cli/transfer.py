# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file through the keeper, both ways."""

from __future__ import annotations

import io
import json
import select
from typing import IO, Any

from bugbox.keeper import protocol
from bugbox.keeper.client import stream
from bugbox.keeper.stream import KeeperGone, Stream, error_of
from bugbox.paths import Home

__all__ = ["receive", "send"]

_CHUNK = 1 << 16


def send(id: str | None, path: str, source: IO[bytes], mode: int) -> int:
    """Write a file in the guest; return its size. The source must be seekable."""
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    args = {"id": id, "path": path, "mode": mode, "size": size}
    left = size
    with stream(Home(), "put", args) as link:
        if not left:
            link.stdin(b"")
        while True:
            if left and not link.pending:
                piece = source.read(min(_CHUNK, left))
                # The file may have become shorter: end early, and the other side says what it had.
                left = left - len(piece) if piece else 0
                link.stdin(piece)
                if piece and not left:
                    link.stdin(b"")
            if _done(link, more=bool(left)):
                return size


def receive(id: str | None, path: str, target: IO[bytes]) -> int:
    """Read a file of the guest into `target`; return its size."""
    got = 0
    with stream(Home(), "get", {"id": id, "path": path}) as link:
        while True:
            select.select([link], [], [], 0 if link.ready else None)
            for kind, payload in _frames(link):
                if kind == protocol.STDOUT:
                    target.write(payload)
                    got += len(payload)
                elif kind == protocol.EXIT:
                    target.flush()
                    return got


def _done(link: Stream, *, more: bool) -> bool:
    """Send what waits and hear what comes; True when the other side is done."""
    writes: list[Any] = [link] if link.pending else []
    timeout = 0 if link.ready or (more and not link.pending) else None
    _, writable, _ = select.select([link], writes, [], timeout)
    if writable:
        link.flush()
    return any(kind == protocol.EXIT for kind, _ in _frames(link))


def _frames(link: Stream) -> list[protocol.Frame]:
    frames = link.receive()
    if frames is None:
        raise KeeperGone("the keeper ended the connection", hint="bugbox ps")
    for kind, payload in frames:
        if kind == protocol.ERROR:
            raise error_of(json.loads(payload))
    return frames
