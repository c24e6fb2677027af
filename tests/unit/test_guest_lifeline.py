# SPDX-License-Identifier: Apache-2.0
"""The lifeline's agent, run on this host: the real binary, real frames, no machine."""

import os
import pty
import random
import shutil
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_speaker import (
    ANSWER,
    ASK,
    CALL,
    CLOSE,
    DATA,
    EOF,
    EXIT,
    FAILED,
    HELLO,
    MILESTONE,
    OPEN,
    OPENED,
    RESIZE,
    RESULT,
    SIGNAL,
    SYNC,
    WINDOW,
    Agent,
    Speaker,
    build,
    fields,
    frame,
    make_root,
    number,
    running,
)

from bugbox.host.proc import start_time

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent's chroot needs root")


@pytest.fixture(scope="session", params=["release", "sanitized"])
def binaries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guest")
    return build(out, sanitize=request.param == "sanitized")


@pytest.fixture
def agent(binaries: Path, tmp_path: Path) -> Iterator[Agent]:
    make_root(tmp_path / "root", binaries / "bugbox")
    with running(binaries / "lifeline", tmp_path / "root", tmp_path / "port") as agent:
        yield agent


@pytest.fixture
def host(agent: Agent) -> Iterator[Speaker]:
    speaker = agent.connect()
    speaker.synchronize()
    yield speaker
    speaker.sock.close()


def test_hello_and_milestones(host: Speaker) -> None:
    assert host.hello is not None
    assert host.hello.number("version") == 1
    assert host.hello.text("started") == "boot"
    assert host.hello.text("boot_id") == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert "terminal" not in host.hello.fields
    names = [host.next(MILESTONE).text("name") for _ in range(4)]
    assert names == ["lifeline", "modules", "root", "init"]


def test_says_nothing_before_a_sync(agent: Agent) -> None:
    host = agent.connect()
    host.send(CALL, 0, fields(id=1, kind="ping"))
    host.sock.sendall(os.urandom(5000))
    assert host.receive(timeout=0.5) is None


@pytest.mark.parametrize(
    "before",
    [
        b"",
        frame(OPEN, 1, fields(kind="exec", arg=["true"]))[:-3],
        struct.pack("<BBHII", OPEN, 0, 0xB09B, 1, 65536),
        struct.pack("<BBHII", OPEN, 0, 0xB09B, 1, 65537) + b"xxxx",
        b"\x01" * 31,
        b"\x01\x00\x9b\xb0",
        bytes(range(256)) * 300,
    ],
    ids=["nothing", "cut", "longest-head", "too-long", "ones", "sync-head", "noise"],
)
def test_synchronizes_after(host: Speaker, before: bytes) -> None:
    """Half a frame, or anything, lies on the line; the start of a conversation clears it."""
    host.synchronize(before=before)
    assert host.run("echo", "here").out == b"here\n"


def test_a_bad_crc_makes_it_hunt_until_the_next_sync(host: Speaker) -> None:
    bad = bytearray(frame(CALL, 0, fields(id=1, kind="ping")))
    bad[12] ^= 1
    host.sock.sendall(bytes(bad) + frame(CALL, 0, fields(id=2, kind="ping")))
    assert not [f for f in iter(lambda: host.receive(0.3), None) if f.kind == RESULT]
    host.synchronize()
    assert "time" in host.call("ping").fields


def test_frames_in_single_bytes_and_padding_between(host: Speaker) -> None:
    for byte in bytes(3) + frame(CALL, 0, fields(id=4711, kind="ping")):
        host.sock.sendall(bytes([byte]))
    assert host.next(RESULT).number("time") > 0
    host.sock.sendall(bytes(100000))
    assert "time" in host.call("ping").fields


def test_streams_apart_and_status(host: Speaker) -> None:
    done = host.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.out, done.err, done.code) == (b"out\n", b"err\n", 7)
    assert sorted(done.ended) == [1, 2]
    assert done.opened is not None and done.opened.number("pid") > 1


def test_binary_input_comes_back_whole(host: Speaker) -> None:
    sent = random.Random(3).randbytes(300_000)
    channel = host.open("exec", arg=["cat"])
    got, credit, at, closed = b"", 65536, 0, False
    while True:
        while credit >= 16384 and at < len(sent):
            host.send(DATA, channel, sent[at : at + 16384])
            credit, at = credit - 16384, at + 16384
        if at >= len(sent) and not closed:
            host.eof(channel)
            closed = True
        told = host.next(DATA, WINDOW, EXIT, channel=channel)
        if told.kind == DATA:
            got += told.payload
            host.grant(channel, len(told.payload))
        elif told.kind == WINDOW:
            count = struct.unpack("<I", told.payload)[0]
            assert count >= 16384
            credit += count
        else:
            break
    assert got == sent and told.number("code") == 0


def test_user_groups_and_environment(host: Speaker) -> None:
    done = host.run("sh", "-c", "id; pwd; env", user="learner", env=["LANG=de", "MINE=a b"])
    text = done.out.decode()
    assert "uid=1000(learner) gid=1000(learner) groups=27(sudo),1000(learner)" in text
    lines = text.splitlines()
    assert lines[1] == "/home/learner"
    for wanted in ("HOME=/home/learner", "USER=learner", "LOGNAME=learner", "SHELL=/bin/sh"):
        assert wanted in lines
    assert "LANG=de" in lines and "LANG=C.UTF-8" not in lines and "MINE=a b" in lines
    assert "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games" in lines
    assert host.run("pwd", cwd="/etc").out == b"/etc\n"


def test_what_cannot_be_run(host: Speaker, agent: Agent) -> None:
    done = host.run("nosuch")
    assert done.code == 127 and b"nosuch: No such file" in done.err
    (agent.root / "bin/plain").write_text("echo no shell is involved\n")
    (agent.root / "bin/plain").chmod(0o755)
    (agent.root / "bin/shut").write_text("")
    assert host.run("plain").code == 126
    assert host.run("/bin/shut").code == 126
    assert host.run("/bin/nosuch").code == 127
    assert host.run("true", user="nobody-here").failed == (
        "look up the user: nobody-here: No such file or directory"
    )
    assert "enter the folder: /nowhere" in str(host.run("true", cwd="/nowhere").failed)
    assert "read the command" in str(host.run().failed)


def test_accounts_without_a_readable_passwd(host: Speaker, agent: Agent) -> None:
    table = agent.root / "etc/passwd"
    table.unlink()
    os.mkfifo(table)
    assert host.run("sh", "-c", "echo $HOME; echo > /tmp/root").out == b"/root\n"
    done = host.run("sh", "-c", "echo > /tmp/learner", user="learner")
    assert b"cannot be read" in done.err and done.code == 0
    assert (agent.root / "tmp/root").stat().st_uid == 0
    assert (agent.root / "tmp/learner").stat().st_uid == 1000
    assert "look up the user" in str(host.run("id", user="other").failed)


def test_signals(host: Speaker) -> None:
    channel = host.open("exec", arg=["sleep", "1000"])
    assert host.next(OPENED, channel=channel)
    host.send(SIGNAL, channel, fields(signo=15))
    assert host.finish(channel).signo == 15
    trap = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    channel = host.open("exec", arg=["sh", "-c", trap])
    host.output_until(channel, b"ready\n")
    host.send(SIGNAL, channel, fields(signo=2))
    done = host.finish(channel)
    assert (done.out, done.code) == (b"caught\n", 3)


def test_close_kills_the_group(host: Speaker, agent: Agent) -> None:
    channel = host.open("exec", arg=["sh", "-c", "sleep 1000 & echo $!; wait"])
    pid = int(host.output_until(channel, b"\n"))
    host.send(CLOSE, channel)
    assert host.finish(channel).signo == 9
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        if ") Z " in Path(f"/proc/{pid}/stat").read_text():
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{pid}").exists()


def test_a_left_background_process_does_not_hold_the_end(host: Speaker) -> None:
    # It gives up by itself where this test is killed before it says go.
    wait = "n=0; while [ ! -e /tmp/go ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done"
    done = host.run("sh", "-c", f"({wait}; echo late; echo $? > /tmp/survived) & echo now")
    assert done.out == b"now\n" and done.code == 0
    assert host.run("sh", "-c", ": > /tmp/go").code == 0
    end = time.monotonic() + 20
    while not (out := host.run("cat", "/tmp/survived").out) and time.monotonic() < end:
        time.sleep(0.2)
    assert out == b"0\n"  # no broken pipe


def test_a_stalled_reader_stops_the_writer(host: Speaker, agent: Agent) -> None:
    """50 MB are written and nobody reads: credit holds them back, memory stays."""
    before = agent.memory_kib()
    channel = host.open("exec", arg=["sh", "-c", "head -c 50000000 /dev/zero | tr '\\0' x"])
    end, held = time.monotonic() + 20, 0
    while held < 65536 and time.monotonic() < end:
        assert host.call("ping")
        held = sum(len(f.payload) for f in host.queue if f.kind == DATA and f.channel == channel)
    time.sleep(0.5)  # for what must not come
    assert host.call("ping")
    held = sum(len(f.payload) for f in host.queue if f.kind == DATA and f.channel == channel)
    assert held == 65536
    assert agent.memory_kib() - before < 4096
    ticks = agent.ticks()
    time.sleep(1)
    assert agent.ticks() - ticks <= 1
    done = host.finish(channel, timeout=60)
    assert len(done.out) == 50_000_000 and done.code == 0 and set(done.out) == {ord("x")}


def test_a_host_that_reads_nothing(host: Speaker, agent: Agent) -> None:
    """With the wire itself full, the agent waits, and uses neither memory nor time."""
    for _ in range(40):
        channel = host.open("exec", arg=["cat", "/dev/zero"])
    for _ in range(3000):
        host.sock.setblocking(False)
        try:
            host.send(CALL, 0, fields(id=1, kind="ping"))
        except BlockingIOError:
            break
        finally:
            host.sock.setblocking(True)
    end, ticks = time.monotonic() + 20, agent.ticks()
    while time.sleep(1) or agent.ticks() - ticks > 2:
        assert time.monotonic() < end, "it never comes to rest"
        ticks = agent.ticks()
    assert agent.memory_kib() < 60000
    host.sock.close()
    again = agent.connect()
    again.synchronize()
    assert again.run("echo", "fine").out == b"fine\n"
    assert channel == 40


def test_more_than_the_credit_ends_the_channel(host: Speaker) -> None:
    channel = host.open("exec", arg=["sleep", "1000"])
    for _ in range(9):  # more than the credit and what a pipe holds together
        host.send(DATA, channel, bytes(16384))
    assert "take data" in str(host.finish(channel).failed)
    channel = host.open("exec", arg=["sleep", "1000"])
    host.send(DATA, channel, bytes(16385))
    assert "take data" in str(host.finish(channel).failed)


def test_input_that_nobody_reads_is_granted_again(host: Speaker) -> None:
    channel = host.open("exec", arg=["sh", "-c", "exec <&-; sleep 2"])
    sent, credit = 0, 65536
    while sent < 300_000:
        if credit < 16384:
            credit += struct.unpack("<I", host.next(WINDOW, channel=channel).payload)[0]
            continue
        host.send(DATA, channel, bytes(16384))
        sent, credit = sent + 16384, credit - 16384
    assert host.finish(channel).code == 0


def test_64_channels_at_once(host: Speaker) -> None:
    channels = [host.open("exec", arg=["cat"]) for _ in range(64)]
    over = host.open("exec", arg=["true"])
    assert "too many channels" in str(host.finish(over).failed)
    for channel in channels:
        host.data(channel, f"number {channel}".encode())
    for channel in reversed(channels):
        host.eof(channel)
    for channel in channels:
        assert host.finish(channel).out == f"number {channel}".encode()
    assert host.run("echo", "again").out == b"again\n"


def test_a_taken_channel_number_is_refused(host: Speaker) -> None:
    channel = host.open("exec", arg=["sleep", "5"])
    host.send(OPEN, channel, fields(kind="exec", arg=["true"]))
    refused = host.next(FAILED)
    assert refused.channel == 0 and "taken" in refused.text("message")
    host.send(OPEN, 999, fields(kind="nosuch"))
    assert host.next(FAILED).channel == 999


def test_leaves_no_descriptor_and_no_child(host: Speaker, agent: Agent) -> None:
    host.run("true")
    before = agent.descriptors()
    for _ in range(30):
        host.run("sh", "-c", "echo x; exit 1")
        host.run("nosuch")
        host.run("true", user="nosuch")
        channel = host.open("terminal", arg=["true"], rows=24, cols=80)
        host.finish(channel)
    # The end of a channel is told before the last of what it took is given back.
    patience = time.monotonic() + 10
    while (agent.descriptors(), agent.children()) != (before, []) and time.monotonic() < patience:
        time.sleep(0.05)
    assert agent.descriptors() == before
    assert agent.children() == []


# --- scripts ---


def test_script_runs_under_our_own_shell(host: Speaker, agent: Agent) -> None:
    (agent.root / "bin/sh").unlink()
    done = host.script(
        '#!/usr/bin/nosuch\necho "$0" "$1"; echo "$PATH"; ls -l "$0"; exit 5',
        "look.sh",
        arg=["a b"],
    )
    lines = done.out.decode().splitlines()
    assert lines[0] == "/run/bugbox/script/look.sh a b"
    assert lines[1].startswith("/run/bugbox/tools:/usr/local/sbin")
    assert lines[2].startswith("-r--------")
    assert done.code == 5
    assert not list((agent.root / "run/bugbox/script").iterdir())
    for mount in Path("/proc/self/mountinfo").read_text().splitlines():
        assert "run/bugbox" not in mount.split()[4]


def test_script_as_another_user_is_readable_by_it_alone(host: Speaker) -> None:
    done = host.script('id -u; cat "$0" | head -n 1', user="learner")
    assert done.out == b'1000\nid -u; cat "$0" | head -n 1'


def test_script_without_our_folder_in_the_guest(host: Speaker, agent: Agent) -> None:
    """Somebody removed /run/bugbox: the tools come from the descriptor that is still open."""
    host.script("true")
    subprocess.run(["rm", "-rf", agent.root / "run", agent.root / "bin"], check=True)
    done = host.script("ls /run/bugbox/tools | head -n 1; seq 2")
    assert done.code == 0 and done.out.endswith(b"1\n2\n")
    assert not (agent.root / "run/bugbox/tools").exists()


def test_script_leaves_no_process(host: Speaker, agent: Agent) -> None:
    done = host.script("sleep 1000 & echo $!")
    pid = int(done.out)
    deadline = time.monotonic() + 10
    while start_time(pid) is not None:  # killed, and on a busy host not dead at once
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fault_outlives_its_channel_and_hides_its_text(host: Speaker, agent: Agent) -> None:
    text = (
        "echo line 1\n(while :; do echo alive; sleep 0.1; done) & echo $!\ntest -e $0 || exit 4\n"
    )
    done = host.script(text, "break.sh", flag=["unit"])
    pid = int(done.out.splitlines()[1])
    assert done.code == 4
    try:
        host.synchronize()
        time.sleep(0.5)
        assert Path(f"/proc/{pid}").exists()
        assert not list(Path(f"/proc/{pid}/root/run/bugbox/script").iterdir())
    finally:
        os.kill(pid, 9)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "-x", "a b", "x" * 101])
def test_script_names_that_are_refused(host: Speaker, name: str) -> None:
    assert "read the script" in str(host.script("true", name).failed)


def test_what_a_script_mounts(host: Speaker) -> None:
    """Each script has its own /tmp/seen of nothing: mounts stay in the namespace of the trial."""
    done = host.script("mount -t tmpfs none /tmp && cat /proc/mounts; ls /tmp; exit 0")
    assert done.code == 0


# --- terminals ---


def terminal(host: Speaker, *argv: str, **more: object) -> tuple[int, str]:
    values = {"rows": 24, "cols": 80, "term": "xterm", "arg": list(argv), **more}
    channel = host.open("terminal", **values)
    opened = host.next(OPENED, FAILED, channel=channel)
    assert opened.kind == OPENED, opened.fields
    return channel, opened.text("terminal")


@pytest.fixture
def devpts(host: Speaker, agent: Agent) -> Iterator[None]:
    """A devpts in the agent's mount namespace, which it has of its own once it has answered."""
    pts = agent.root / "dev/pts"
    pts.mkdir()
    subprocess.run(
        ["nsenter", "-t", str(agent.process.pid), "-m", "mount", "-t", "devpts", "none", str(pts)],
        check=True,
    )
    yield


@pytest.mark.usefixtures("devpts")
def test_terminal_size_signals_and_end(host: Speaker) -> None:
    channel, _ = terminal(host, "sh")
    host.data(channel, b"stty size; echo $TERM; tty\n")
    seen = host.output_until(channel, b"/dev/pts/")
    assert b"24 80" in seen
    assert b"xterm-256color" in seen  # this root has no terminfo at all
    host.send(RESIZE, channel, fields(rows=50, cols=132))
    host.data(channel, b"stty size\n")
    host.output_until(channel, b"50 132")
    asleep = b"sh -c 'echo asleep-$((1+1)); exec sleep 1000'\n"
    host.data(channel, asleep)
    host.output_until(channel, b"asleep-2")
    host.data(channel, b"\x03")
    host.data(channel, b"echo int=$?\n")
    host.output_until(channel, b"int=130")
    host.data(channel, asleep)
    host.output_until(channel, b"asleep-2")
    host.send(SIGNAL, channel, fields(signo=15))
    host.data(channel, b"echo term=$?\n")
    host.output_until(channel, b"term=143")
    host.data(channel, b"exit 9\n")
    assert host.finish(channel).code == 9


@pytest.mark.usefixtures("devpts")
def test_terminal_outlives_the_conversation(host: Speaker, agent: Agent) -> None:
    channel, name = terminal(host, "sh")
    host.data(channel, b"x=kept; PS1=; stty -echo; echo ready\n")
    host.output_until(channel, b"ready\r\n")
    host.data(channel, b"sleep 0.5; seq 20000; echo end\n")
    host.sock.close()
    time.sleep(1.5)
    host = agent.connect()
    hello = host.synchronize()
    assert hello.fields["terminal"] == [name.encode()]
    assert host.call("terminals").fields["terminal"] == [name.encode()]
    channel = host.open("attach", terminal=name, rows=30, cols=100)
    assert host.next(OPENED, channel=channel).text("terminal") == name
    seen = host.output_until(channel, b"end\r\n")
    assert len(seen) == 65536 and seen.endswith(b"19999\r\n20000\r\nend\r\n")
    host.data(channel, b"echo $x; stty size\n")
    host.output_until(channel, b"kept\r\n30 100\r\n")
    host.data(channel, b"exit\n")
    assert host.finish(channel).code == 0
    assert "terminal" not in host.call("terminals").fields


@pytest.mark.usefixtures("devpts")
def test_second_attachment_takes_over(host: Speaker) -> None:
    first, name = terminal(host, "sh")
    second = host.open("attach", terminal=name, rows=24, cols=80)
    assert str(host.finish(first).failed).startswith("taken over")
    host.next(OPENED, channel=second)
    host.data(second, b"echo mi'n'e\n")
    host.output_until(second, b"mine\r\n")
    host.send(CLOSE, second)
    assert host.next(EXIT, channel=second)
    third = host.open("attach", terminal=name, rows=24, cols=80)
    host.data(third, b"exit 3\n")
    assert host.finish(third).code == 3
    assert "no such terminal" in str(
        host.finish(host.open("attach", terminal=name, rows=1, cols=1)).failed
    )


@pytest.mark.usefixtures("devpts")
def test_hang_up_ends_what_ignores_it(host: Speaker) -> None:
    channel, name = terminal(host, "sh", "-c", "trap '' HUP; echo set; while :; do sleep 1; done")
    host.output_until(channel, b"set")
    assert "errno" not in host.call("hangup", terminal=name).fields
    assert host.finish(channel).signo == 9
    assert "errno" in host.call("hangup", terminal=name).fields


def test_terminal_without_devpts_names_the_step(host: Speaker) -> None:
    done = host.finish(host.open("terminal", flag=["login"], rows=24, cols=80))
    assert str(done.failed).startswith("open /dev/ptmx: ")


@pytest.mark.usefixtures("devpts")
def test_login_that_is_not_there_names_the_step(host: Speaker) -> None:
    done = host.finish(host.open("terminal", flag=["login"], user="root", rows=24, cols=80))
    assert done.failed == "run /bin/login: /bin/login: No such file or directory"


def test_rescue_needs_nothing_of_the_guest(host: Speaker, agent: Agent) -> None:
    host.script("true")
    for item in agent.root.iterdir():
        shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink()
    channel = host.open("terminal", flag=["rescue"], rows=24, cols=80, term="xterm")
    host.data(channel, b"echo still $((1+1)); seq 3; tty\n")
    host.output_until(channel, b"1\r\n2\r\n3\r\n")
    host.data(channel, b"exit 6\n")
    assert host.finish(channel).code == 6


# --- files ---


def test_put_and_get(host: Speaker, agent: Agent) -> None:
    content = random.Random(5).randbytes(150_000)
    channel = host.open(
        "put", path="/deep/er/file", size=len(content), mode=0o640, user="learner", flag=["parents"]
    )
    host.next(OPENED, channel=channel)
    credit, at = 65536, 0
    while at < len(content):
        if credit < 16384:
            credit += struct.unpack("<I", host.next(WINDOW, channel=channel).payload)[0]
            continue
        host.send(DATA, channel, content[at : at + 16384])
        at, credit = at + 16384, credit - 16384
    host.eof(channel)
    assert host.finish(channel).code == 0
    target = agent.root / "deep/er/file"
    assert target.read_bytes() == content
    status = target.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 1000, 0o640)
    done = host.finish(host.open("get", path="/deep/er/file"))
    assert done.out == content and done.code == 0 and done.opened is not None
    assert (done.opened.number("size"), done.opened.number("mode")) == (150_000, 0o640)


def test_put_that_fails_leaves_nothing(host: Speaker, agent: Agent) -> None:
    target = agent.root / "tmp/file"
    target.write_text("old")
    assert "create" in str(host.finish(host.open("put", path="/no/where", size=1)).failed)
    channel = host.open("put", path="/tmp/file", size=10)
    host.data(channel, b"short")
    host.eof(channel)
    assert "ended too early" in str(host.finish(channel).failed)
    channel = host.open("put", path="/tmp/file", size=2)
    host.data(channel, b"long")
    host.eof(channel)
    assert "more than was announced" in str(host.finish(channel).failed)
    channel = host.open("put", path="/tmp/file", size=10)
    host.next(OPENED, channel=channel)
    host.data(channel, b"given up")
    host.send(CLOSE, channel)
    assert host.finish(channel).failed is not None
    channel = host.open("put", path="/tmp/file", size=10)
    host.next(OPENED, channel=channel)
    host.synchronize()
    end = time.monotonic() + 20
    while len(names := [entry.name for entry in (agent.root / "tmp").iterdir()]) > 1:
        assert time.monotonic() < end, names
        time.sleep(0.02)
    assert names == ["file"]
    assert target.read_text() == "old"


def test_get_refuses_what_is_no_file(host: Speaker, agent: Agent) -> None:
    os.mkfifo(agent.root / "tmp/pipe")
    for path in ("/tmp", "/tmp/pipe", "/nosuch"):
        assert str(host.finish(host.open("get", path=path)).failed).startswith("open: "), path


def test_paths_stay_in_the_guest(host: Speaker, agent: Agent) -> None:
    (agent.root / "tmp/link").symlink_to("/etc/passwd")
    assert b"broken line" in host.finish(host.open("get", path="/tmp/link")).out
    assert b"broken line" in host.finish(host.open("get", path="/../../../etc/passwd")).out


# --- dial ---


def test_dial_both_ways(host: Speaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        channel = host.open("dial", port=port)
        host.data(channel, b"before it is open")
        peer, _ = server.accept()
        with peer:
            host.next(OPENED, channel=channel)
            peer.sendall(b"hello" * 30000)
            host.eof(channel)
            got = b""
            while chunk := peer.recv(65536):
                got += chunk
            assert got == b"before it is open"
        done = host.finish(channel)
        assert done.out == b"hello" * 30000 and done.code == 0
    assert str(host.finish(host.open("dial", port=port)).failed).startswith("connect")
    assert "read the port" in str(host.finish(host.open("dial", port=70000)).failed)


# --- calls and questions ---


def test_calls(host: Speaker, agent: Agent) -> None:
    assert host.call("ping").number("time") > 0
    assert "errno" not in host.call("sync").fields
    assert host.call("nosuch").number("errno") == 38
    assert host.call("shutdown", name="poweroff").number("errno") == 1  # a trial stays up
    assert "errno" not in host.call("guest-client", flag="off").fields
    assert not (agent.root / "run/bugbox/bin/bugbox").exists()


def ask(agent: Agent, *argv: str) -> subprocess.Popen[bytes]:
    argv = ("chroot", str(agent.root), "/run/bugbox/bin/bugbox", *argv)
    client = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return agent.closing.enter_context(client)


def test_ask_and_answer(host: Speaker, agent: Agent) -> None:
    client = ask(agent, "hint", "2")
    question = host.next(ASK)
    assert question.text("name") == "hint" and question.fields["arg"] == [b"2"]
    number_ = question.number("id")
    host.send(ANSWER, 0, fields(id=number_, data=b"look at \0 the "), 0)
    host.send(ANSWER, 0, fields(id=number_, data=b"log\n", code=3), 1)
    out, _ = client.communicate(timeout=10)
    assert out == b"look at \0 the log\n" and client.returncode == 3


def test_a_question_from_a_terminal_tells_its_width(host: Speaker, agent: Agent) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 73))
    argv = ("chroot", str(agent.root), "/run/bugbox/bin/bugbox", "hint", "2")
    client = subprocess.Popen(argv, stdout=theirs, stderr=subprocess.DEVNULL)
    agent.closing.enter_context(client)
    os.close(theirs)
    question = host.next(ASK)
    assert question.fields["arg"] == [b"2", b"--width=73"]
    host.send(ANSWER, 0, fields(id=question.number("id"), data=b"wide\n", code=0), 1)
    assert client.wait(10) == 0
    assert os.read(ours, 100) == b"wide\r\n"
    os.close(ours)


def test_ask_is_refused(host: Speaker, agent: Agent) -> None:
    client = ask(agent, "reboot")
    out, _ = client.communicate(timeout=10)
    assert client.returncode == 2 and b"check, hint and story" in out
    client = ask(agent, "check", "x" * 2000)
    assert client.wait(10) == 2
    assert ask(agent).wait(10) == 2


def test_ask_is_limited(host: Speaker, agent: Agent) -> None:
    waiting = [ask(agent, "check") for _ in range(4)]
    questions = [host.next(ASK) for _ in waiting]
    fifth = ask(agent, "check")
    out, _ = fifth.communicate(timeout=10)
    assert fifth.returncode == 75 and b"too many questions" in out
    for question in questions:
        host.send(ANSWER, 0, fields(id=question.number("id"), code=0), 1)
    assert [client.wait(10) for client in waiting] == [0] * 4
    codes = []
    for _ in range(4):
        client = ask(agent, "check")
        asked = client.poll()
        while asked is None and not (got := host.receive(0.1)):
            asked = client.poll()
        if asked is None and got and got.kind == ASK:
            host.send(ANSWER, 0, fields(id=got.number("id"), code=0), 1)
        codes.append(client.wait(10))
    assert 75 in codes


def test_ask_without_a_host(agent: Agent) -> None:
    deadline = time.monotonic() + 20
    while not (agent.root / "run/bugbox/ask").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client = ask(agent, "check")
    out, _ = client.communicate(timeout=10)
    assert client.returncode == 75 and b"nobody outside" in out


def test_ask_when_the_line_is_cut(host: Speaker, agent: Agent) -> None:
    client = ask(agent, "check")
    host.next(ASK)
    host.sock.close()
    out, _ = client.communicate(timeout=10)
    assert client.returncode == 75 and b"cut" in out


# --- endurance ---


def test_idle_uses_no_time(host: Speaker, agent: Agent) -> None:
    host.run("true")
    ticks = agent.ticks()
    time.sleep(1.5)
    assert agent.ticks() == ticks
    host.sock.close()
    time.sleep(1.5)
    assert agent.ticks() - ticks <= 1


def test_random_frames(host: Speaker, agent: Agent) -> None:
    """The host is trusted, and still no frame may hurt: noise in every type, with a right crc."""
    noise = random.Random(11)
    harmless = [t for t in range(1, 40) if t != OPEN]
    stop = threading.Event()

    def drain() -> None:
        while not stop.is_set():
            host.sock.settimeout(0.2)
            try:
                if not host.sock.recv(1 << 16):
                    return
            except TimeoutError:
                continue

    reader = threading.Thread(target=drain)
    reader.start()
    kinds = [
        "exec",
        "script",
        "terminal",
        "attach",
        "put",
        "get",
        "dial",
        "nosuch",
        "ping",
        "clock",
    ]
    for count in range(4000):
        channel = noise.randrange(0, 70)
        if count % 3 == 0:
            payload = fields(kind=noise.choice(kinds), path="/tmp/x", id=1, size=noise.randrange(9))
            payload += noise.randbytes(noise.randrange(3)) if count % 2 else b""
            host.send(noise.choice([OPEN, CALL]), channel, payload)
        else:
            payload = noise.randbytes(noise.randrange(60))
            host.send(noise.choice(harmless), channel, payload, noise.randrange(4))
    stop.set()
    reader.join()
    host.sock.close()
    again = agent.connect()
    again.synchronize(timeout=30)
    assert again.run("echo", "alive").out == b"alive\n"
    assert again.hello is not None and again.hello.kind == HELLO
    assert SYNC == 1 and EOF == 7 and number(struct.pack("<q", -1)) == -1
