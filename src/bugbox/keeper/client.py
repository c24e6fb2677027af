# SPDX-License-Identifier: Apache-2.0
"""Ask the keeper: what every command uses, thin ones included.

    request(home, "check", {"id": "read-me-3f9k"})           -> the answer
    with stream(home, "exec", {...}) as s: relay(s)          -> the command's status
    with Terminal(home, {"id": ..., "rows": ...}) as t: ...  -> frames, across a keeper's death

A keeper is started when none listens; one of another version, or at a start one with other
settings, is asked to retire first, which touches no machine. Closing the connection (also by
dying) cancels what was asked.
Standard library only, without asyncio: this is on the path of `bugbox start`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from bugbox.errors import BugboxError, HostError
from bugbox.keeper import protocol
from bugbox.keeper.identity import code_version, settings_digest
from bugbox.keeper.protocol import Frame
from bugbox.keeper.start import connect, retire
from bugbox.keeper.stream import KeeperGone, Stream, error_of, exit_code, relay
from bugbox.paths import Home

__all__ = ["KeeperGone", "Stream", "Terminal", "exit_code", "relay", "request", "stream"]

OnEvent = Callable[[dict[str, Any]], None]

_CHUNK = 1 << 16
#: Seconds that an interrupted command waits for the keeper to take everything back.
_TAKE_BACK_TIMEOUT = 60.0
_ATTEMPTS = 5
#: Keepers that may end without a word before one has to answer.
_DEAF = 2
_GONE = "the keeper ended before it answered"


class _NeverHeard(Exception):
    """The keeper ended without a word."""


class _Skew(Exception):
    """The keeper that listens is of another version, or has other settings."""


def request(
    home: Home,
    verb: str,
    args: Mapping[str, Any] | None = None,
    on_event: OnEvent | None = None,
    *,
    start: bool = True,
) -> Any:
    """Ask and wait for the answer; raise the error the keeper answered, by its kind.

    With `start=False` no keeper is started: KeeperGone when none listens. Interrupted by Ctrl-C
    it waits until the keeper has taken everything back; a second Ctrl-C ends at once.
    """
    connection = _ask(home, verb, args or {}, on_event, start=start)
    with connection.sock:
        if "result" in connection.answer:
            return connection.answer["result"]
        raise BugboxError(f"{verb} answers with a stream")


def stream(
    home: Home, verb: str, args: Mapping[str, Any] | None = None, on_event: OnEvent | None = None
) -> Stream:
    """Ask for exec, terminal, attach, console, put or get; return the open stream."""
    connection = _ask(home, verb, args or {}, on_event, start=True)
    if "stream" not in connection.answer:
        connection.sock.close()
        raise BugboxError(f"{verb} answers without a stream")
    return Stream(connection.sock, connection.answer["stream"], connection.rest)


class Terminal:
    """A login in the guest that survives the keeper: we attach to the same shell again.

    Used like a Stream: fileno, pending, ready, flush, receive, stdin, resize, detach, close.
    `args` are those of the verb `terminal`; `fileno` changes when the keeper was lost.
    """

    def __init__(
        self, home: Home, args: Mapping[str, Any], on_event: OnEvent | None = None
    ) -> None:
        self._home = home
        self._size = {"rows": args["rows"], "cols": args["cols"]}
        self._rescue = bool(args.get("rescue"))
        self._stream = stream(home, "terminal", args, on_event)
        self.id = str(self._stream.info["id"])
        self.terminal = str(self._stream.info["terminal"])
        self._ended = False

    @property
    def info(self) -> dict[str, Any]:
        """What the keeper said when it opened the terminal: id, terminal, title, goal."""
        return self._stream.info

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the shell lives on."""
        self._stream.close()

    def fileno(self) -> int:
        """The socket, for select; another one after a reconnect."""
        return self._stream.fileno()

    @property
    def pending(self) -> int:
        """Bytes still to be sent."""
        return self._stream.pending

    @property
    def full(self) -> bool:
        """Whether no more input should be sent now."""
        return self._stream.full

    @property
    def ready(self) -> bool:
        """Whether `receive` has frames without waiting for the socket."""
        return self._stream.ready

    def flush(self) -> None:
        """Send what the socket takes now."""
        self._stream.flush()

    def stdin(self, data: bytes) -> None:
        """Send what was typed."""
        if data:
            self._stream.stdin(data)

    def resize(self, rows: int, cols: int) -> None:
        """Tell the terminal's new size."""
        self._size = {"rows": rows, "cols": cols}
        self._stream.resize(rows, cols)

    def detach(self) -> None:
        """Leave the shell running and end."""
        self._ended = True
        self._stream.detach()

    def receive(self) -> list[Frame] | None:
        """Return the frames that have come; None when the terminal ended."""
        frames = self._stream.receive()
        if frames is not None:
            for kind, payload in frames:
                self._ended = self._ended or kind in (protocol.EXIT, protocol.ERROR)
                if kind == protocol.NOTICE:
                    self.terminal = str(json.loads(payload).get("terminal", self.terminal))
            return frames
        if self._ended:
            return None
        self._reattach()
        return [(protocol.NOTICE, b'{"text":"the keeper was restarted","state":"reattached"}')]

    def _reattach(self) -> None:
        self._stream.close()
        args = {
            "id": self.id,
            "terminal": self.terminal,
            "rescue": self._rescue,
            **self._size,
        }
        for attempt in range(_ATTEMPTS):
            try:
                self._stream = stream(self._home, "attach", args)
                return
            except KeeperGone:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.2 * 2**attempt)


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answer: dict[str, Any] = {}
        self.rest = b""


def _ask(
    home: Home, verb: str, args: Mapping[str, Any], on_event: OnEvent | None, *, start: bool
) -> _Connection:
    message = {
        "protocol": protocol.PROTOCOL,
        "version": code_version(),
        "settings": settings_digest(home),
        "verb": verb,
        "args": {**args},
    }
    deaf = 0
    for _ in range(_ATTEMPTS):
        connection = _Connection(connect(home, start=start))
        try:
            _converse(connection, message, on_event)
            return connection
        except _Skew:
            connection.sock.close()
            retire(home)
        except _NeverHeard as error:
            # We caught one that was just ending, perhaps twice: the next one answers.
            connection.sock.close()
            deaf += 1
            if not start or deaf > _DEAF:
                raise KeeperGone(_GONE, hint="bugbox logs --keeper") from error
        except KeyboardInterrupt:
            _let_it_take_back(connection.sock)
            raise
        except BaseException:
            connection.sock.close()
            raise
    raise HostError("two commands of other versions or settings keep replacing the keeper")


def _converse(connection: _Connection, message: dict[str, Any], on_event: OnEvent | None) -> None:
    held, heard = b"", False
    try:
        connection.sock.sendall(protocol.line(message))
        while True:
            while b"\n" not in held:
                data = connection.sock.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError
                heard = True
                held += data
            text, held = held.split(b"\n", 1)
            answer = json.loads(text)
            if "event" not in answer:
                break
            if on_event is not None:
                on_event(answer["event"])
    except (BrokenPipeError, ConnectionResetError) as error:
        if not heard:
            raise _NeverHeard from error
        raise KeeperGone(_GONE, hint="bugbox logs --keeper") from error
    if "error" in answer:
        if answer["error"].get("kind") == "VersionSkew":
            raise _Skew
        raise error_of(answer["error"])
    connection.answer, connection.rest = answer, held


def _let_it_take_back(sock: socket.socket) -> None:
    # Half a hang-up cancels the verb; the keeper closes when all is taken back.
    with sock, contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(_TAKE_BACK_TIMEOUT)
        while sock.recv(_CHUNK):
            pass
