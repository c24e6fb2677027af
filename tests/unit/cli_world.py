# SPDX-License-Identifier: Apache-2.0
"""A keeper that is none: speaks the protocol on the socket, and says what a test wants said."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bugbox.keeper import protocol
from bugbox.keeper.protocol import FrameDecoder
from bugbox.paths import Home

SOURCE = Path(__file__).parents[2]
Handler = Callable[["Conversation", dict[str, Any]], None]
TIMEOUT = 30.0

STORY = {
    "id": "read-me-3f9k",
    "puzzle": "read-me",
    "title": "A letter you cannot open",
    "goal": "Read it.",
    "text": "You are back from holiday.",
    "state": "ready",
    "solved": False,
    "elapsed_s": 61.0,
    "hints_used": 1,
    "hints_of": 3,
    "checks_run": 2,
    "debrief": "",
    "next": [],
}


def report(solved: bool | None, *statuses: str, message: str = "") -> dict[str, Any]:
    checks = [
        {"id": f"c{n}", "title": f"Check {n}", "status": s, "message": message, "seconds": 0.1}
        for n, s in enumerate(statuses)
    ]
    return {"solved": solved, "checks": checks}


class Conversation:
    """One connection, the keeper's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._decoder = FrameDecoder()

    def line(self, value: dict[str, Any]) -> None:
        self.sock.sendall(protocol.line(value))

    def event(self, **event: Any) -> None:
        self.line({"event": event})

    def result(self, value: Any) -> None:
        self.line({"result": value})

    def error(self, kind: str, message: str, exit: int, hint: str | None = None) -> None:
        self.line(
            {
                "error": {
                    "kind": kind,
                    "message": message,
                    "hint": hint,
                    "detail": None,
                    "exit": exit,
                }
            }
        )

    def stream(self, **info: Any) -> None:
        self.line({"stream": {"id": "read-me-3f9k", **info}})

    def frame(self, kind: int, payload: bytes | dict[str, Any] = b"") -> None:
        self.sock.sendall(protocol.pack(kind, payload))

    def frames(self) -> Iterator[protocol.Frame]:
        """Yield what the client sends until it hangs up."""
        while data := self.sock.recv(65536):
            yield from self._decoder.feed(data)


class FakeKeeper:
    """Listens where the real one would; `verbs` say what is answered."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.verbs: dict[str, Handler] = {
            "story": lambda talk, _: talk.result(STORY),
            "ps": lambda talk, _: talk.result([]),
        }
        home.prepare()
        self._lock = os.open(home.keeper_lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._listen()

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.home.keeper_socket))
        self._listener.listen(8)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def die_and_come_back(self) -> None:
        """Every connection breaks, as after `kill -9`; another one listens."""
        self.home.keeper_socket.unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listen()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.close(self._lock)
        shutil.rmtree(self.home.runtime)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        held = b""
        with sock, contextlib.suppress(OSError):
            while b"\n" not in held:
                data = sock.recv(65536)
                if not data:
                    return
                held += data
            asked = json.loads(held.split(b"\n", 1)[0])
            self.asked.append((asked["verb"], asked["args"]))
            self.verbs[asked["verb"]](Conversation(sock), asked["args"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("BUGBOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("NO_COLOR", "BUGBOX_ESCAPE", "BUGBOX_PUZZLES"):
        monkeypatch.delenv(name, raising=False)
    made = Home()
    yield made
    shutil.rmtree(made.runtime, ignore_errors=True)  # the commands were processes of their own


@pytest.fixture
def keeper(home: Home) -> Iterator[FakeKeeper]:
    fake = FakeKeeper(home)
    yield fake
    fake.close()


def bugbox(
    *words: str,
    input: bytes | None = b"",
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a user would, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "bugbox", *words],
        input=input,
        capture_output=True,
        timeout=TIMEOUT,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        check=False,
    )


class Typist:
    """A person at a terminal in which the command runs."""

    def __init__(self, *words: str, rows: int = 24, columns: int = 80, **env: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bugbox", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **env},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: bytes, timeout: float = TIMEOUT) -> bytes:
        """Read until `text` was printed after what was read last; return what came before it."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come; there is {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    data = b""
                assert data, f"{text!r} did not come before the end; there is {self.seen!r}"
                self.seen += data
        before, self.seen = self.seen.split(text, 1)
        return before

    def rest(self) -> bytes:
        """Wait for the end of the program; return what it printed that nobody has read."""
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; there is {self.seen!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0.1)[0]:
            self.seen += os.read(self.master, 65536)
        return self.seen

    @property
    def status(self) -> int:
        return self.process.wait(TIMEOUT)

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def kill(self, signo: int = signal.SIGTERM) -> None:
        self.process.send_signal(signo)
