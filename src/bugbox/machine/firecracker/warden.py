# SPDX-License-Identifier: Apache-2.0
"""The process that a Firecracker machine lives in: it starts Firecracker, and starts it again.

Firecracker ends when its guest reboots, and is a single command's child with a console on its
standard streams. A warden makes of it what a machine is to the rest of bugbox: one process that
outlives every keeper, through reboots and poweroffs. It holds the console, tells a reboot from a
poweroff and from a death, and takes these words on its control socket, one JSON line each:

    {"do": "reset"}    end Firecracker, if it runs, and boot
    {"do": "halt"}     end it, and stay
    {"do": "freeze"}   stop its process where it is
    {"do": "thaw"}     let it run on
    {"do": "quit"}     end it, and ourselves

It says `{"is": "running"|"frozen"|"off"}` to whoever connects, and then what happens: `reset` (with
`by`: "guest" or "host"), `off`, `halted`, `frozen`, `thawed`, `died`. When it is killed an unjailed
Firecracker is, too; a jailed one runs on until whoever finds that out ends it by its user.

Standard library only, and little of it: there is one for each machine.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bugbox.machine.verdict import has_halted

__all__ = ["Warden", "main"]

_READ = 16384
#: Console output kept for the next client while there is none, or while it does not read.
_BACKLOG = 65536
_LINE = 4096
#: What Firecracker itself may write into our log.
_LOG_BYTES = 1 << 20
#: A guest that reboots at once, over and over, does so once a second.
_SHORTEST_BOOT = 1.0
#: What is read at most of a Firecracker that has ended: a pipe holds no more, and whoever it left
#: behind may write for ever.
_LAST_BYTES = 1 << 20
_GONE_SECONDS = 10.0


class Warden:
    """One machine: Firecracker's command line, and what it leaves behind, by folder and names."""

    def __init__(
        self,
        argv: list[str],
        folder: str,
        stale: list[str],
        control: socket.socket,
        console: socket.socket,
        uid: int | None = None,
    ) -> None:
        self.argv, self.folder, self.stale = argv, folder, stale
        #: The user of its jail, who has no process but what Firecracker started.
        self.uid = uid
        self.state = "off"
        self.status: int | None = None
        self._select = selectors.DefaultSelector()
        self._controls: dict[socket.socket, bytearray] = {}
        self._client: socket.socket | None = None
        self._backlog = bytearray()
        self._line = bytearray()
        self._logged = 0
        self._pid = 0
        self._fds: list[int] = []
        self._input = -1
        #: What to do once Firecracker is gone: nothing of ours, "reset", "halt", "off", "quit".
        self._then = ""
        self._began = 0.0
        #: When to start it again; 0: not at all.
        self._due = 0.0
        self._watch(control.fileno(), lambda: self._accept_control(control.accept()[0]))
        self._watch(console.fileno(), lambda: self._accept_console(console.accept()[0]))

    def run(self) -> int:
        """Start it, and go on until told to end, or until it dies; return our own exit status."""
        self._start()
        while self.status is None:
            wait = max(0.0, self._due - time.monotonic()) if self._due else None
            for key, _ in self._select.select(wait):
                # One handler may have closed what the next one was ready for.
                if key.fd in self._select.get_map():
                    key.data()
            if self._due and time.monotonic() >= self._due:
                self._due = 0.0
                if self._start():
                    self._say({"event": "reset", "by": "guest"})
        return self.status

    def read_log(self, fifo: str) -> None:
        """Take Firecracker's log from a FIFO, where it has no other way out of its jail."""
        # Open for both: there is always somebody who writes, and it never ends.
        fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        self._watch(fd, lambda: self._read(fd, self._log))

    def end_when_readable(self, wake: socket.socket) -> None:
        """End Firecracker and then ourselves when `wake` has something to read."""

        def end() -> None:
            self._forget(wake.fileno())
            self._stop("quit")

        self._watch(wake.fileno(), end)

    # Firecracker's process.

    def _start(self) -> bool:
        # The next one has the same user: nothing of the last may be there, or be in its way.
        if self.uid is not None and (left := _end_all_of(self.uid)):
            self._die(f"process {left[0]} of an earlier boot does not end", 1)
            return False
        for name in self.stale:
            _remove(self.folder, name)
        stdin, self._input = os.pipe()
        output, stdout = os.pipe()
        errors, stderr = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((stdin, stdout, stderr))]
        self._pid = os.posix_spawn(self.argv[0], self.argv, os.environ, file_actions=actions)
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        for fd in (self._input, output, errors):
            os.set_blocking(fd, False)
        pidfd = os.pidfd_open(self._pid)
        self._fds = [self._input, output, errors, pidfd]
        self._watch(output, lambda: self._read(output, self._console))
        self._watch(errors, lambda: self._read(errors, self._log))
        self._watch(pidfd, self._ended)
        self.state, self._then, self._began = "running", "", time.monotonic()
        return True

    def _stop(self, then: str) -> None:
        self._then, self._due = then, 0.0
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        else:
            self._gone(0)

    def _ended(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        _, output, errors, _ = self._fds
        for fd, take in ((output, self._console), (errors, self._log)):
            for _ in range(_LAST_BYTES // _READ):
                if not self._read(fd, take):
                    break
        for fd in self._fds:
            self._forget(fd)
            os.close(fd)
        self._fds, self._input = [], -1
        self._gone(os.waitstatus_to_exitcode(status))

    def _gone(self, status: int) -> None:
        self.state, then, self._then = "off", self._then, ""
        if then == "quit":
            self.status = 0
        elif then in ("off", "halt"):
            self._say({"event": "off" if then == "off" else "halted"})
        elif then == "reset":
            if self._start():
                self._say({"event": "reset", "by": "host"})
        elif status == 0:
            # A reboot, or a panic, which ends in one.
            self._due = max(time.monotonic(), self._began + _SHORTEST_BOOT)
        else:
            self._die(f"Firecracker ended with status {status}", status)

    def _die(self, why: str, status: int) -> None:
        self._log(f"{why}\n".encode())
        self._say({"event": "died", "status": status})
        self.status = 1

    # What it prints.

    def _read(self, fd: int, take: Callable[[bytes], None]) -> bool:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if not data:
            self._forget(fd)
            return False
        take(data)
        return True

    def _log(self, data: bytes) -> None:
        left = _LOG_BYTES - self._logged
        if left > 0:
            self._logged += os.write(1, data[:left])

    def _console(self, data: bytes) -> None:
        self._backlog += data
        del self._backlog[:-_BACKLOG]
        self._pass_on()
        self._line += data
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest[-_LINE:])
        for line in lines:
            if has_halted(line[-_LINE:].decode(errors="replace")) and not self._then:
                self._stop("off")

    def _pass_on(self) -> None:
        """Give the client what it takes now; the rest waits, and the oldest of it may be lost."""
        if self._client is None or not self._backlog:
            return
        try:
            sent = self._client.send(self._backlog)
            del self._backlog[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop_client()
        self._wait_for_client()

    def _wait_for_client(self) -> None:
        if self._client is not None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._backlog else 0)
            self._select.modify(self._client.fileno(), wanted, self._serve_console)

    def _serve_console(self) -> None:
        if self._client is None:
            return
        try:
            typed = self._client.recv(4096)
            if not typed:
                self._drop_client()
                return
            if self._input >= 0:
                os.write(self._input, typed)
        except BlockingIOError:
            pass  # nothing was typed, or the guest does not read it
        except OSError:
            self._drop_client()
        self._pass_on()

    def _accept_console(self, client: socket.socket) -> None:
        self._drop_client()
        client.setblocking(False)
        self._client = client
        self._watch(client.fileno(), self._serve_console)
        self._pass_on()

    def _drop_client(self) -> None:
        if self._client is not None:
            self._forget(self._client.fileno())
            self._client.close()
            self._client = None

    # What we are told.

    def _accept_control(self, client: socket.socket) -> None:
        client.setblocking(False)
        self._controls[client] = bytearray()
        self._watch(client.fileno(), lambda: self._serve_control(client))
        self._say({"is": self.state}, client)

    def _serve_control(self, client: socket.socket) -> None:
        try:
            data = client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop_control(client)
            return
        *lines, rest = (bytes(self._controls[client]) + data).split(b"\n")
        self._controls[client] = bytearray(rest[-_LINE:])
        for line in lines:
            word = json.loads(line)["do"]
            if word in ("reset", "halt", "quit"):
                self._stop(word)
            elif word in ("freeze", "thaw") and self._pid:
                self._freeze(word == "freeze")

    def _freeze(self, on: bool) -> None:
        os.kill(self._pid, signal.SIGSTOP if on else signal.SIGCONT)
        self.state = "frozen" if on else "running"
        self._say({"event": "frozen" if on else "thawed"})

    def _say(self, what: dict[str, object], to: socket.socket | None = None) -> None:
        line = json.dumps(what).encode() + b"\n"
        for client in [to] if to is not None else list(self._controls):
            try:
                client.sendall(line)
            except OSError:
                self._drop_control(client)

    def _drop_control(self, client: socket.socket) -> None:
        if self._controls.pop(client, None) is not None:
            self._forget(client.fileno())
            client.close()

    # The loop.

    def _watch(self, fd: int, then: Callable[[], object]) -> None:
        self._select.register(fd, selectors.EVENT_READ, then)

    def _forget(self, fd: int) -> None:
        if fd in self._select.get_map():
            self._select.unregister(fd)


def _remove(folder: str, name: str) -> None:
    """Remove `name` below a folder in which the one that has ended may have made links of any kind.

    No link is followed: it would lead out of a jail. What cannot be removed is what the next start
    complains of.
    """
    *above, last = name.split("/")
    try:
        at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return
    try:
        for part in above:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        os.unlink(last, dir_fd=at)
    except OSError:
        pass
    finally:
        os.close(at)


def _end_all_of(uid: int) -> list[int]:
    """Kill every process of a user, again until there is none; return those that do not end."""
    until = time.monotonic() + _GONE_SECONDS
    while (left := _all_of(uid)) and time.monotonic() < until:
        for pid in left:
            # It may be another's by now, whom only a handle tells from the one that we saw.
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                if _runs_as(pid, uid):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(pidfd)
        time.sleep(0.005)
    return left


def _all_of(uid: int) -> list[int]:
    pids = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
    return [pid for pid in pids if _runs_as(pid, uid)]


def _runs_as(pid: int, uid: int) -> bool:
    """Whether a process has the user in any way, and is no zombie."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return False
    facts = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return str(uid) in facts.get("Uid", ()) and facts.get("State", ["X"])[0] not in "ZX"


def main(argv: list[str]) -> int:
    """Run `warden FILE CONTROL CONSOLE`: what to start, and two listening sockets."""
    told = json.loads(Path(argv[0]).read_text())
    for number in argv[1:3]:
        os.set_inheritable(int(number), False)
    control, console = (socket.socket(fileno=int(number)) for number in argv[1:3])
    warden = Warden(told["argv"], told["folder"], told["stale"], control, console, told["uid"])
    if told["log"]:
        warden.read_log(told["log"])
    # A signal is seen between two events, so it must make one.
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    warden.end_when_readable(wake)
    return warden.run()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
