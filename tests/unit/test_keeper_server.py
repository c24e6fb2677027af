# SPDX-License-Identifier: Apache-2.0
"""A real keeper process on its socket, with machines of the fake driver."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from session_world import World, eventually, keeper_argv, world

from bugbox.errors import HostError, NotFound, UserError
from bugbox.host.proc import Process, start_time
from bugbox.keeper import client, protocol, start
from bugbox.keeper.client import KeeperGone, Terminal, relay, request, stream
from bugbox.keeper.identity import code_version
from bugbox.keeper.server import serve
from bugbox.keeper.streams import _known
from bugbox.machine.lifeline.shell import Refused


class Keepers:
    """Starts keepers as the client would, and knows which ones it started."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.started: list[subprocess.Popen[bytes]] = []

    def spawn(self, home: Any = None) -> int:
        with self.world.home.keeper_log.open("ab") as log:
            child = subprocess.Popen(
                keeper_argv(self.world), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.started.append(child)
        return child.pid

    @property
    def pid(self) -> int:
        return int(request(self.world.home, "ping")["pid"])

    def kill(self) -> None:
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        for child in self.started:
            if child.pid == pid:
                child.wait()

    def end(self) -> None:
        for child in self.started:
            if child.poll() is None:
                child.terminate()
        for child in self.started:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def keepers(made: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keepers]:
    keepers = Keepers(made)
    monkeypatch.setattr(start, "_spawn", keepers.spawn)
    monkeypatch.setattr(start, "_reap", lambda pid: _reap(keepers, pid))
    yield keepers
    keepers.end()


def _reap(keepers: Keepers, pid: int) -> int | None:
    return next(child for child in keepers.started if child.pid == pid).poll()


@pytest.fixture
def id(made: World, keepers: Keepers) -> str:
    return str(request(made.home, "start", {"puzzle": str(made.puzzle)})["id"])


def run(made: World, id: str, *argv: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """`bugbox shell ID -- ARGV`: status, standard output, standard error."""
    pipes = [os.pipe() for _ in range(3)]
    feeder = threading.Thread(target=_feed, args=(pipes[0][1], stdin))
    output: dict[int, bytes] = {}
    readers = [threading.Thread(target=_read, args=(pipes[n][0], output, n)) for n in (1, 2)]
    for thread in (feeder, *readers):
        thread.start()
    with stream(made.home, "exec", {"id": id, "argv": list(argv)}) as link:
        status = relay(link, stdin=pipes[0][0], stdout=pipes[1][1], stderr=pipes[2][1])
    for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
        os.close(fd)
    for thread in (feeder, *readers):
        thread.join()
    os.close(pipes[1][0])
    os.close(pipes[2][0])
    return status, output[1], output[2]


def _feed(fd: int, data: bytes) -> None:
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass


def _read(fd: int, into: dict[int, bytes], key: int) -> None:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    into[key] = b"".join(parts)


def until(link: Any, wanted: bytes, timeout: float = 20.0) -> bytes:
    """Read a terminal until it has shown `wanted`."""
    seen = b""
    deadline = time.monotonic() + timeout
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        frames = link.receive()
        assert frames is not None, seen
        for kind, payload in frames:
            if kind == protocol.STDOUT:
                seen += payload
            elif kind == protocol.NOTICE:
                seen += b"<" + str(json.loads(payload)["text"]).encode() + b">"
            else:
                raise AssertionError((kind, payload, seen))
        time.sleep(0.01)
    return seen


def terminal_of(made: World, id: str) -> Terminal:
    return Terminal(made.home, {"id": id, "rows": 24, "cols": 80, "term": "xterm"})


def test_start_check_stop(made: World, keepers: Keepers) -> None:
    events: list[dict[str, Any]] = []
    home = made.home
    answer = request(home, "start", {"puzzle": str(made.puzzle)}, events.append)
    assert answer["state"] == "ready"
    assert answer["clone"] is False
    assert set(answer["timings_ms"]) >= {"total", "vmm", "kernel", "systemd", "login"}
    assert ("StepStarted", "Boot") in [(event["type"], event["title"]) for event in events]
    assert [row["id"] for row in request(home, "ps")] == [answer["id"]]
    assert request(home, "check", {"id": "tiny"})["solved"] is False
    assert run(made, answer["id"], "sh", "-c", "touch $FAKE_ROOT/made")[0] == 0
    assert request(home, "check")["solved"] is True
    assert json.loads(home.progress.read_text())["puzzle"] == "tiny"
    assert request(home, "stop", {"all": True}) == {"stopped": [answer["id"]]}
    assert made.leftovers() == []


def test_streams_are_kept_apart_and_the_status_is_the_commands(made: World, id: str) -> None:
    assert run(made, id, "sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert run(made, id, "sh", "-c", "kill -9 $$")[0] == 128 + 9
    assert run(made, id, "no-such-program")[0] == 127


def test_four_mebibytes_through_cat(made: World, id: str) -> None:
    """Neither side may wait for the other: input and output are far larger than any buffer."""
    data = os.urandom(4 << 20)
    status, output, _ = run(made, id, "cat", stdin=data)
    assert status == 0
    assert output == data


def test_a_signal_passes_input_that_nobody_reads(made: World, id: str) -> None:
    with stream(made.home, "exec", {"id": id, "argv": ["sleep", "100"]}) as link:
        while not link.full:
            link.stdin(b"x" * 65536)
            link.flush()
        link.signal(signal.SIGTERM)
        frames = eventually(lambda: link.flush() or link.receive())
    assert frames[-1][0] == protocol.EXIT
    assert json.loads(frames[-1][1]) == {"signal": signal.SIGTERM}


def test_hanging_up_kills_the_command(made: World, id: str) -> None:
    folder = made.home.session(id).root / "fake"
    argv = ["sh", "-c", "echo $$ > $FAKE_ROOT/pid; exec sleep 1000"]
    with stream(made.home, "exec", {"id": id, "argv": argv}):
        pid = int(eventually(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))
        assert start_time(pid) is not None
    eventually(lambda: start_time(pid) is None)


def test_a_terminal_survives_the_keeper(made: World, keepers: Keepers, id: str) -> None:
    with terminal_of(made, id) as link:
        link.stdin(b"cd /; here=we-are; echo one-$((1+1))\n")
        until(link, b"one-2")
        keepers.kill()
        assert until(link, b"<the keeper was restarted>")
        link.stdin(b"echo $here-$PWD-still\n")
        until(link, b"we-are-/-still")
        link.stdin(b"exit 3\n")
        while (frames := link.receive()) is not None and not any(
            kind == protocol.EXIT for kind, _ in frames
        ):
            time.sleep(0.01)
    assert request(made.home, "ps")[0]["state"] == "ready"


def test_the_next_keeper_adopts(made: World, keepers: Keepers, id: str) -> None:
    machines = made.processes()
    first = keepers.pid
    keepers.kill()
    assert [row["state"] for row in request(made.home, "ps")] == ["ready"]
    assert keepers.pid != first
    assert made.processes() == machines
    assert request(made.home, "check")["solved"] is False
    assert request(made.home, "stop", {"ids": [id]}) == {"stopped": [id]}
    assert made.leftovers() == []


def test_two_keepers_never(made: World, keepers: Keepers) -> None:
    request(made.home, "ping")
    second = subprocess.run(keeper_argv(made), timeout=30, check=False)
    assert second.returncode == 0
    pids = {keepers.spawn() for _ in range(4)}
    assert keepers.pid not in pids
    for child in keepers.started[1:]:
        assert child.wait(30) == 0


def test_two_clients_start_one_keeper(made: World, keepers: Keepers) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(keepers.pid)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1


def test_another_version_takes_over_without_touching_machines(
    made: World, keepers: Keepers, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines, first = made.processes(), keepers.pid
    with monkeypatch.context() as patch:
        patch.setattr(client, "code_version", lambda: "0.0.0-other")
        with pytest.raises(Exception, match="keep replacing"):  # the new keeper is of this version
            request(made.home, "ps")
    assert keepers.pid != first
    assert request(made.home, "ps")[0]["state"] == "ready"
    assert made.processes() == machines


def test_a_start_with_other_settings_gets_a_keeper_that_has_them(
    made: World, keepers: Keepers, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other verb is answered by whichever keeper there is."""
    machines, first = made.processes(), keepers.pid
    monkeypatch.setenv("BUGBOX_QEMU", "another-qemu")
    assert [row["id"] for row in request(made.home, "ps")] == [id]
    assert keepers.pid == first
    second = request(made.home, "start", {"puzzle": str(made.puzzle)})["id"]
    assert keepers.pid != first
    assert set(machines) < set(made.processes())
    assert {row["id"]: row["state"] for row in request(made.home, "ps")} == {
        id: "ready",
        second: "ready",
    }


@pytest.mark.parametrize("verb", ["reset", "resume"])
def test_so_does_whatever_else_boots(
    made: World, keepers: Keepers, id: str, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    first = keepers.pid
    monkeypatch.setenv("BUGBOX_TIMEOUT_FACTOR", "3")
    assert request(made.home, verb, {"id": id})["state"] == "ready"
    assert keepers.pid != first


def test_protocol_skew_is_told(made: World, keepers: Keepers) -> None:
    request(made.home, "ping")
    message = {"protocol": 99, "version": code_version(), "verb": "ps", "args": {}}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(made.home.keeper_socket))
        sock.sendall(protocol.line(message))
        assert json.loads(sock.makefile().readline())["error"]["kind"] == "VersionSkew"


@pytest.mark.parametrize("sent", [b"no json\n", b"[]\n", b'{"args": 3}\n', b"\xff\n"])
def test_nonsense_gets_an_answer(made: World, keepers: Keepers, sent: bytes) -> None:
    pid = keepers.pid
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(made.home.keeper_socket))
        sock.sendall(sent)
        assert "error" in json.loads(sock.makefile().readline())
    assert keepers.pid == pid


def test_the_socket_is_for_us_alone(made: World, keepers: Keepers) -> None:
    request(made.home, "ping")
    assert made.home.keeper_socket.stat().st_mode & 0o777 == 0o600


def test_somebody_elses_keeper_is_not_asked(
    made: World, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    request(made.home, "ping")
    monkeypatch.setattr(start, "_owner", lambda sock: os.geteuid() + 1)
    with pytest.raises(HostError, match="somebody else's keeper"):
        request(made.home, "ping")


def _asks(verb: str, **args: Any) -> bytes:
    asked = {"protocol": protocol.PROTOCOL, "version": code_version(), "verb": verb, "args": args}
    return protocol.line(asked)


def test_one_that_retires_sends_new_questions_to_the_next(made: World, keepers: Keepers) -> None:
    """It still has an answer to finish; who asks now must not be told to try again."""
    made.write("ready.sh", "#!/bin/sh\nexit 1\n")
    request(made.home, "ping")
    busy, late, last = (socket.socket(socket.AF_UNIX) for _ in range(3))
    with busy, late, last:
        for sock in (busy, late, last):
            sock.connect(str(made.home.keeper_socket))
        busy.sendall(_asks("start", puzzle=str(made.puzzle)))
        eventually(made.processes)
        last.sendall(_asks("retire"))
        assert json.loads(last.makefile().readline()) == {"result": {}}
        late.sendall(_asks("ps"))
        assert late.makefile().read() == ""
        assert made.processes(), "it did not wait for its answer"
        busy.shutdown(socket.SHUT_WR)
        assert json.loads(busy.makefile().readlines()[-1])["error"]["kind"] == "Interrupted"
    assert request(made.home, "ps") == []


def test_a_keeper_inherits_no_open_file(made: World) -> None:
    """A script's lock must not be held for as long as the keeper lives."""
    script = made.folder / "lock"
    fd = os.open(script, os.O_RDWR | os.O_CREAT)
    os.set_inheritable(fd, True)
    pid = start._spawn(made.home)
    try:
        eventually(lambda: start.locked(made.home))
        held = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert script not in held
    finally:
        os.close(fd)
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_hanging_up_during_start_takes_all_back(made: World, keepers: Keepers) -> None:
    made.write("ready.sh", "#!/bin/sh\nexit 1\n")
    request(made.home, "ping")
    message = {
        "protocol": protocol.PROTOCOL,
        "version": code_version(),
        "verb": "start",
        "args": {"puzzle": str(made.puzzle)},
    }
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(made.home.keeper_socket))
        sock.sendall(protocol.line(message))
        eventually(made.processes)
        sock.shutdown(socket.SHUT_WR)
        answer = json.loads(sock.makefile().readlines()[-1])
    assert answer["error"]["kind"] == "Interrupted"
    assert answer["error"]["exit"] == 130
    assert made.leftovers() == []
    assert request(made.home, "ps") == []


def test_errors_keep_their_kind(made: World, keepers: Keepers) -> None:
    with pytest.raises(NotFound, match="no session runs"):
        request(made.home, "check")
    with pytest.raises(UserError, match="knows no verb"):
        request(made.home, "dance")
    with pytest.raises(NotFound):
        request(made.home, "start", {"puzzle": "tinny"})


def test_clients_that_die_before_their_terminal_is_there_leave_none(
    made: World, keepers: Keepers, id: str
) -> None:
    """More of them than a machine has channels."""
    request(made.home, "ping")
    message = {
        "protocol": protocol.PROTOCOL,
        "version": code_version(),
        "verb": "terminal",
        "args": {"id": id, "rows": 24, "cols": 80},
    }
    for _ in range(80):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(made.home.keeper_socket))
            sock.sendall(protocol.line(message))
    assert run(made, id, "true")[0] == 0


def test_many_at_once_on_one_machine(made: World, keepers: Keepers, id: str) -> None:
    """Two terminals, checks and commands, all on one machine."""
    failures: list[BaseException] = []

    def guarded(work: Any) -> threading.Thread:
        def target() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=target)
        thread.start()
        return thread

    def type_and_read(word: str) -> None:
        with terminal_of(made, id) as link:
            for n in range(10):
                link.stdin(f"echo {word}-$(({n}+100))\n".encode())
                until(link, f"{word}-{n + 100}".encode())
            link.detach()

    threads = [guarded(lambda word=word: type_and_read(word)) for word in ("red", "blue")]
    threads += [guarded(lambda: request(made.home, "check", {"id": id})) for _ in range(3)]
    threads += [guarded(lambda: run(made, id, "true")) for _ in range(3)]
    threads.append(guarded(lambda: request(made.home, "start", {"puzzle": str(made.puzzle)})))
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(request(made.home, "ps")) == 2


def test_a_reboot_keeps_the_terminal(made: World, keepers: Keepers, id: str) -> None:
    with terminal_of(made, id) as link:
        link.stdin(b"echo before\n")
        until(link, b"before")
        link.stdin(b"reboot\n")
        until(link, "<rebooting…>".encode())
        until(link, b"<the machine is back>")
        link.stdin(b"echo after-$((1+1))\n")
        until(link, b"after-2")
        new = link.terminal
        keepers.kill()
        until(link, b"<the keeper was restarted>")
        assert link.terminal == new
    assert made.log(id) == ["boot", "break", "session", "ready", "boot"]


def test_poweroff_ends_the_terminal_and_resume_boots(
    made: World, keepers: Keepers, id: str
) -> None:
    with terminal_of(made, id) as link:
        link.stdin(b"poweroff\n")
        while True:
            frames = link.receive()
            assert frames is not None
            if any(kind == protocol.EXIT for kind, _ in frames):
                break
            time.sleep(0.01)
    assert request(made.home, "ps")[0]["state"] == "off"
    with pytest.raises(Exception, match="is off"):
        request(made.home, "check")
    assert request(made.home, "resume")["state"] == "ready"
    assert request(made.home, "check")["solved"] is False


def test_a_killed_vmm_is_told_and_can_be_resumed(made: World, keepers: Keepers, id: str) -> None:
    with terminal_of(made, id) as link:
        link.stdin(b"echo up\n")
        until(link, b"up")
        (pid,) = made.processes()
        Process(pid=pid, started=start_time(pid) or 0).kill()
        error = None
        while error is None:
            frames = link.receive()
            assert frames is not None
            error = next((payload for kind, payload in frames if kind == protocol.ERROR), None)
            time.sleep(0.01)
    assert json.loads(error)["kind"] == "MachineLost"
    assert request(made.home, "ps")[0]["state"] == "failed"
    assert request(made.home, "resume")["state"] == "ready"
    assert len(made.processes()) == 1


def test_put_and_get(made: World, keepers: Keepers, id: str) -> None:
    data = os.urandom(300_000)
    args = {"id": id, "path": "/some/file", "size": len(data), "mode": 0o600, "parents": True}
    source, sink = os.pipe()
    feeder = threading.Thread(target=_feed, args=(sink, data))
    feeder.start()
    with stream(made.home, "put", args) as link:
        assert relay(link, stdin=source) == 0
    feeder.join()
    os.close(source)
    received = b""
    with stream(made.home, "get", {"id": id, "path": "/some/file"}) as link:
        while not received or len(received) < len(data):
            for kind, payload in link.receive() or []:
                assert kind in (protocol.STDOUT, protocol.EXIT)
                received += payload if kind == protocol.STDOUT else b""
            time.sleep(0.001)
    assert received == data


def test_it_ends_when_there_is_nothing_to_keep(made: World, keepers: Keepers) -> None:
    pid = keepers.pid
    started = start_time(pid)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: start_time(pid) != started)
    assert not made.home.keeper_socket.exists()
    with pytest.raises(KeeperGone):
        request(made.home, "ps", start=False)


def test_sigterm_leaves_the_machines_running(made: World, keepers: Keepers, id: str) -> None:
    machines = made.processes()
    os.kill(keepers.pid, signal.SIGTERM)
    eventually(lambda: not start.locked(made.home))
    assert made.processes() == machines
    assert request(made.home, "check")["solved"] is False


def test_the_log_is_capped(made: World, tmp_path: Path) -> None:
    import logging

    from bugbox.keeper import log

    before = logging.getLogger().handlers[:]
    stderr = os.dup(2)
    try:
        log.set_up(made.home)
        for _ in range(30_000):
            logging.getLogger("bugbox.test").info("x" * 100)
        size = sum(path.stat().st_size for path in made.home.root.glob("keeper.log*"))
        assert (1 << 20) < size < (3 << 20)
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        logging.getLogger().handlers[:] = before
        logging.captureWarnings(False)
        os.dup2(stderr, 2)
        os.close(stderr)


def test_a_user_that_the_guest_does_not_have() -> None:
    session: Any = SimpleNamespace(id="tiny-3f9k")
    with pytest.raises(UserError, match=r"tiny-3f9k has no user nosuch"), _known("nosuch", session):
        raise Refused("the guest refused: look up the user: nosuch", step="look up the user")
    with pytest.raises(Refused), _known("learner", session):
        raise Refused("the guest refused: fork", step="fork")


def test_a_keeper_leaves_no_empty_folder(made: World, keepers: Keepers) -> None:
    request(made.home, "ping")
    start.retire(made.home)
    keepers.end()
    assert not made.home.runtime.exists()
    assert request(made.home, "ps") == []


def test_a_second_keeper_says_that_there_is_one(made: World, keepers: Keepers) -> None:
    request(made.home, "ping")
    assert serve(made.home, made.settings) is False
