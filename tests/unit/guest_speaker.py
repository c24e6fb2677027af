# SPDX-License-Identifier: Apache-2.0
"""A frame speaker of its own for the tests of the lifeline: nothing of bugbox's host side."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SYNC, HELLO, OPEN, OPENED, FAILED, DATA, EOF, WINDOW = 1, 2, 3, 4, 5, 6, 7, 8
SIGNAL, RESIZE, EXIT, CLOSE, MILESTONE, CALL, RESULT, ASK, ANSWER = (
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
)
TAGS = [
    "KIND",
    "ARG",
    "ENV",
    "USER",
    "CWD",
    "ROWS",
    "COLS",
    "TERM",
    "TERMINAL",
    "PATH",
    "SCRIPT",
    "NAME",
    "FLAG",
    "SIZE",
    "PID",
    "MODE",
    "ERRNO",
    "STEP",
    "MESSAGE",
    "CODE",
    "SIGNO",
    "TIME",
    "NONCE",
    "VERSION",
    "BOOT_ID",
    "STARTED",
    "SECRET",
    "PORT",
    "ID",
    "DATA",
]
GUEST = Path(__file__).parents[2] / "guest"


def frame(kind: int, channel: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    head = struct.pack("<BBHII", kind, flags, 0xB09B, channel, len(payload))
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def fields(**values: object) -> bytes:
    """Fields by their tag's name in small letters; a list repeats the tag."""
    out = b""
    for name, given in values.items():
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, int):
                value = struct.pack("<q", value)
            elif isinstance(value, str):
                value = value.encode()
            assert isinstance(value, bytes)
            out += struct.pack("<BI", TAGS.index(name.upper()) + 1, len(value)) + value
    return out


def parse(payload: bytes) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    while payload:
        tag, length = struct.unpack_from("<BI", payload)
        found.setdefault(TAGS[tag - 1].lower(), []).append(payload[5 : 5 + length])
        payload = payload[5 + length :]
    return found


def number(value: bytes) -> int:
    return int(struct.unpack("<q", value)[0])


@dataclass
class Frame:
    kind: int
    flags: int
    channel: int
    payload: bytes

    @property
    def fields(self) -> dict[str, list[bytes]]:
        return parse(self.payload)

    def text(self, name: str) -> str:
        return self.fields[name][0].decode()

    def number(self, name: str) -> int:
        return number(self.fields[name][0])


@dataclass
class Done:
    """What a command came to."""

    out: bytes = b""
    err: bytes = b""
    code: int | None = None
    signo: int | None = None
    failed: str | None = None
    opened: Frame | None = None
    ended: list[int] = field(default_factory=list)


class Speaker:
    """The host's end of one conversation."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = b""
        self.queue: list[Frame] = []
        self.hello: Frame | None = None
        self.channel = 0

    def send(self, *args: object, **more: object) -> None:
        self.sock.sendall(frame(*args, **more))  # type: ignore[arg-type]

    def synchronize(self, timeout: float = 10, before: bytes = b"") -> Frame:
        nonce = os.urandom(16)
        wanted = frame(SYNC, 0, b"bugbox lifeline1" + nonce)
        self.sock.sendall(before + bytes(65552) + wanted)
        self.queue.clear()
        end = time.monotonic() + timeout
        while wanted not in self.held:
            assert self._fill(end - time.monotonic()), "no SYNC came back"
        self.held = self.held.split(wanted, 1)[1]
        self.hello = self.next(HELLO, timeout=timeout)
        return self.hello

    def _fill(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.sock], [], [], max(timeout, 0))
        if not ready:
            return False
        got = self.sock.recv(1 << 20)
        self.held += got
        return bool(got)

    def receive(self, timeout: float = 10) -> Frame | None:
        """The next frame whatever it is; every byte must belong to a right one."""
        end = time.monotonic() + timeout
        while True:
            if len(self.held) >= 16:
                kind, flags, magic, channel, length, crc = struct.unpack_from("<BBHIII", self.held)
                assert magic == 0xB09B and length <= 65536
                if len(self.held) >= 16 + length:
                    payload = self.held[16 : 16 + length]
                    assert crc == zlib.crc32(self.held[:12] + payload)
                    self.held = self.held[16 + length :]
                    return Frame(kind, flags, channel, payload)
            if not self._fill(end - time.monotonic()):
                return None

    def next(self, *kinds: int, channel: int | None = None, timeout: float = 10) -> Frame:
        """The next frame of one of these kinds; others wait their turn."""
        end = time.monotonic() + timeout
        for held in self.queue:
            if held.kind in kinds and channel in (None, held.channel):
                self.queue.remove(held)
                return held
        while True:
            got = self.receive(end - time.monotonic())
            assert got is not None, f"no frame of {kinds} on {channel}; held: {self.queue}"
            if got.kind in kinds and channel in (None, got.channel):
                return got
            self.queue.append(got)

    def open(self, kind: str, **values: object) -> int:
        self.channel += 1
        self.send(OPEN, self.channel, fields(kind=kind, **values))
        return self.channel

    def data(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data), 16384):
            self.send(DATA, channel, data[start : start + 16384])

    def eof(self, channel: int) -> None:
        self.send(EOF, channel)

    def grant(self, channel: int, count: int) -> None:
        self.send(WINDOW, channel, struct.pack("<I", count))

    def finish(self, channel: int, timeout: float = 20) -> Done:
        """Reads a channel to its end, granting as it goes."""
        done, out = Done(), bytearray()
        end = time.monotonic() + timeout
        while done.code is None and done.signo is None and done.failed is None:
            got = self.next(
                OPENED, FAILED, DATA, EOF, EXIT, channel=channel, timeout=end - time.monotonic()
            )
            if got.kind == DATA:
                if got.flags == 1:
                    out += got.payload
                else:
                    done.err += got.payload
                self.grant(channel, len(got.payload))
            elif got.kind == EOF:
                done.ended.append(got.flags)
            elif got.kind == OPENED:
                done.opened = got
            elif got.kind == FAILED:
                done.failed = f"{got.text('step')}: {got.text('message')}"
            else:
                told = got.fields
                done.code = number(told["code"][0]) if "code" in told else None
                done.signo = number(told["signo"][0]) if "signo" in told else None
        done.out = bytes(out)
        return done

    def run(self, *argv: str, input: bytes = b"", timeout: float = 20, **values: object) -> Done:
        channel = self.open("exec", arg=list(argv), **values)
        if input:
            self.data(channel, input)
        self.eof(channel)
        return self.finish(channel, timeout)

    def script(self, text: str, name: str = "try.sh", timeout: float = 20, **more: object) -> Done:
        channel = self.open("script", script=text, name=name, **more)
        self.eof(channel)
        return self.finish(channel, timeout)

    def call(self, kind: str, timeout: float = 20, **values: object) -> Frame:
        self.send(CALL, 0, fields(id=4711, kind=kind, **values))
        result = self.next(RESULT, timeout=timeout)
        assert result.number("id") == 4711
        return result

    def output_until(self, channel: int, mark: bytes, timeout: float = 20) -> bytes:
        """A terminal's output up to a mark."""
        seen = b""
        end = time.monotonic() + timeout
        while mark not in seen:
            got = self.next(DATA, FAILED, EXIT, channel=channel, timeout=end - time.monotonic())
            assert got.kind == DATA, (got, seen)
            seen += got.payload
            self.grant(channel, len(got.payload))
        return seen


@dataclass
class Agent:
    """A lifeline that runs on this host, in a root of its own where we may make one."""

    process: subprocess.Popen[bytes]
    path: Path
    root: Path
    closing: contextlib.ExitStack

    def connect(self) -> Speaker:
        sock = self.closing.enter_context(socket.socket(socket.AF_UNIX))
        end = time.monotonic() + 10
        while True:
            try:
                sock.connect(str(self.path))
                return Speaker(sock)
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None
                time.sleep(0.01)

    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def ticks(self) -> int:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(stat[11]) + int(stat[12])

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def children(self) -> list[int]:
        done = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, check=False
        )
        return [int(pid) for pid in done.stdout.split()]


def build(out: Path, *, sanitize: bool = False) -> Path:
    argv = ["make", "-s", "-C", str(GUEST), f"OUT={out}"] + (["SANITIZE=1"] if sanitize else [])
    subprocess.run(argv, check=True, timeout=300)
    return out


def make_root(root: Path, client: Path) -> None:
    """A guest's root of a few files: busybox, accounts, and a /run/bugbox as init makes it."""
    for folder in [
        "bin",
        "etc",
        "tmp",
        "proc",
        "dev",
        "home/learner",
        "root",
        "run/bugbox/tools",
        "run/bugbox/bin",
    ]:
        (root / folder).mkdir(parents=True)
    (root / "run/bugbox/script").mkdir()
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    shutil.copy(busybox, root / "bin/busybox")
    shutil.copy(busybox, root / "run/bugbox/tools/busybox")
    shutil.copy(client, root / "run/bugbox/bin/bugbox")
    for applet in [
        "sh",
        "cat",
        "echo",
        "sleep",
        "id",
        "env",
        "pwd",
        "head",
        "tail",
        "stty",
        "kill",
        "true",
        "seq",
        "tr",
        "yes",
        "ls",
    ]:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "broken line\nroot:x:0:0:root:/root:/bin/sh\n"
        "learner:x:1000:1000:Learner,,,:/home/learner:/bin/sh\nodd:x:nan:1::/:\n"
    )
    (root / "etc/group").write_text("root:x:0:\nsudo:x:27:someone,learner\nlearner:x:1000:\n")
    (root / "tmp").chmod(0o1777)
    for name, minor in (("null", 3), ("zero", 5)):
        os.mknod(root / "dev" / name, 0o20666, os.makedev(1, minor))
        (root / "dev" / name).chmod(0o666)


@contextlib.contextmanager
def running(lifeline: Path, root: Path, path: Path) -> Iterator[Agent]:
    argv = [str(lifeline), "--agent-test", str(path), "--root", str(root)]
    with contextlib.ExitStack() as closing, path.with_name("stderr").open("wb") as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=said)
        closing.callback(process.wait, 10)
        closing.callback(process.send_signal, signal.SIGKILL)
        yield Agent(process, path, root, closing)
        assert process.poll() is None, path.with_name("stderr").read_text()
