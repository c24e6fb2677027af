# SPDX-License-Identifier: Apache-2.0
"""The host's half against the guest's half: the real lifeline, compiled and run on this host."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from bugbox.errors import GuestError, MachineLost
from bugbox.host.proc import start_time
from bugbox.machine.lifeline.channel import Refused
from bugbox.machine.lifeline.connection import Connection
from bugbox.machine.lifeline.shell import Command, Lifeline
from bugbox.machine.lifeline.wire import Frame, Tag, Type, encode, pack_fields
from bugbox.paths import guest_source

COMPILER = shutil.which("musl-gcc") or shutil.which("gcc")
BUSYBOX = shutil.which("busybox")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(COMPILER is None or shutil.which("make") is None, reason="no C compiler"),
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guest")
    subprocess.run(["make", "-s", "-C", guest_source(), f"OUT={out}"], check=True, timeout=300)
    return out / "lifeline"


class Agent:
    """The lifeline as a process of its own, and the line to it."""

    def __init__(self, binary: Path, socket: Path, root: Path) -> None:
        self.argv = [str(binary), "--agent-test", str(socket), "--root", str(root)]
        self.socket = socket
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def agent(binary: Path, tmp_path: Path) -> Iterator[Agent]:
    running = Agent(binary, tmp_path / "s", Path("/"))
    yield running
    running.kill()


@pytest.fixture
async def line(agent: Agent) -> AsyncIterator[Lifeline]:
    lifeline = Lifeline(agent.socket)
    await lifeline.connect(10)
    yield lifeline
    assert agent.process.poll() is None, "the lifeline ended by itself"
    await lifeline.aclose()


USER = pwd.getpwuid(os.geteuid()).pw_name


async def everything(command: Command) -> tuple[bytes, bytes]:
    streams: dict[int, bytes] = {1: b"", 2: b""}
    while (item := await command.receive()) is not None:
        streams[item[0]] += item[1]
    return streams[1], streams[2]


async def read_until(command: Command, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(20):
        while wanted not in seen:
            item = await command.receive()
            assert item is not None, seen
            seen += item[1]
    return seen


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def shell(line: Lifeline, text: str, **options: object) -> tuple[bytes, bytes, int]:
    result = await line.run(["sh", "-c", text], user=USER, **options)  # type: ignore[arg-type]
    return result.stdout, result.stderr, result.code


async def test_hello(line: Lifeline) -> None:
    assert line.hello is not None
    assert line.hello.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert line.hello.terminals == ()
    await line.ping()
    assert line.milestones == {"lifeline": 1, "modules": 2, "root": 3, "init": 4}


async def test_streams_status_signal(line: Lifeline) -> None:
    assert await shell(line, "echo out; echo err >&2; exit 7") == (b"out\n", b"err\n", 7)
    result = await line.run(["sh", "-c", "kill -9 $$"], user=USER)
    assert (result.status, result.signal) == (None, 9)
    result = await line.run(["no-such-program"], user=USER)
    assert (result.status, b"no-such-program" in result.stderr) == (127, True)
    result = await line.run(["/etc/passwd"], user=USER)
    assert result.status == 126


async def test_environment_folder_and_binary_input(line: Lifeline, tmp_path: Path) -> None:
    result = await line.run(
        ["sh", "-c", 'cat; echo "$X $LANG"; pwd'],
        user=USER,
        input=b"\0\xff",
        env={"X": "a=b"},
        cwd=str(tmp_path),
    )
    assert result.stdout == b"\0\xffa=b C.UTF-8\n" + str(tmp_path).encode() + b"\n"


async def test_a_wrong_user_is_refused(line: Lifeline) -> None:
    with pytest.raises(Refused, match="look up the user: nobody-here"):
        await line.run(["true"], user="nobody-here")


async def test_megabytes_both_ways(line: Lifeline) -> None:
    data = os.urandom(3 << 20)
    result = await line.run(["cat"], user=USER, input=data, limit=4 << 20)
    assert result.stdout == data


async def test_input_that_nobody_reads(line: Lifeline) -> None:
    assert (await line.run(["true"], user=USER, input=bytes(1 << 20))).status == 0


async def test_a_hundred_at_once(line: Lifeline) -> None:
    texts = [f"echo {n}; head -c 100000 /dev/zero >&2; exit {n}" for n in range(100)]
    results = await asyncio.gather(*(shell(line, text) for text in texts))
    assert [(int(out), len(err), code) for out, err, code in results] == [
        (n, 100000, n) for n in range(100)
    ]


async def test_a_time_out_kills_the_group(line: Lifeline, tmp_path: Path) -> None:
    text = f"echo before; sleep 100 & echo $! > {tmp_path}/pid; wait"
    result = await line.run(["sh", "-c", text], user=USER, timeout=3.0)
    assert (result.timed_out, result.stdout) == (True, b"before\n")
    pid = int((tmp_path / "pid").read_text())
    await eventually(lambda: start_time(pid) is None)
    assert (await shell(line, "echo on"))[0] == b"on\n"


async def test_what_is_left_behind_does_not_hold_the_channel(line: Lifeline) -> None:
    out, err, code = await shell(line, "sleep 60 & echo started; echo $! >&2")
    os.kill(int(err), signal.SIGKILL)
    assert (out, code) == (b"started\n", 0)


async def test_a_slow_reader_does_not_hold_up_others(line: Lifeline) -> None:
    flood = await line.command(["cat", "/dev/zero"], user=USER)
    await asyncio.sleep(0.3)
    assert (await shell(line, "echo quick", timeout=5))[0] == b"quick\n"
    await flood.close()
    assert (await shell(line, "echo after", timeout=5))[0] == b"after\n"


async def test_signals_reach_the_group(line: Lifeline) -> None:
    command = await line.command(["sh", "-c", "sleep 100; true"], user=USER)
    await asyncio.sleep(0.2)
    await command.signal(signal.SIGTERM)
    assert (await command.status()).signal == signal.SIGTERM


async def test_terminal_detach_attach_hangup(line: Lifeline) -> None:
    terminal = await line.terminal(user=USER, rows=33, cols=99, term="xterm", argv=["sh"])
    await terminal.send(b"stty size; echo $TERM-$((1+1)); X=kept\n")
    assert b"33 99" in await read_until(terminal, b"xterm-2")
    await terminal.resize(44, 55)
    await terminal.send(b"stty size\n")
    await read_until(terminal, b"44 55")
    await terminal.close()
    assert await line.terminals() == [terminal.id]
    again = await line.attach(terminal.id, 10, 40)
    await again.send(b"stty size; echo still-$X\n")
    assert b"10 40" in await read_until(again, b"still-kept")
    third = await line.attach(terminal.id, 10, 40)
    with pytest.raises(GuestError, match="taken over"):
        await everything(again)
    await third.send(b"sh -c 'echo asleep-$((1+1)); exec sleep 100'\n")
    await read_until(third, b"asleep-2")
    await third.send(b"\x03")
    await third.send(b"echo back-$((3+4))\n")
    await read_until(third, b"back-7")
    await line.hangup(third.id)
    await asyncio.wait_for(third.status(), 15)
    assert await line.terminals() == []


async def test_a_terminals_exit_comes_after_all_it_printed(line: Lifeline) -> None:
    terminal = await line.terminal(user=USER, argv=["sh", "-c", "seq 20000; echo end; exit 3"])
    out, _ = await everything(terminal)
    assert out.endswith(b"20000\r\nend\r\n")
    assert (await terminal.status()).code == 3


async def test_terminals_outlive_the_connection(line: Lifeline) -> None:
    terminal = await line.terminal(user=USER, argv=["sh"])
    await terminal.send(b"(sleep 0.5; echo late-$((2+2))) &\n")
    await line.aclose()
    await asyncio.sleep(1)
    await line.connect(10)
    assert line.hello is not None
    assert line.hello.terminals == (terminal.id,)
    again = await line.attach(terminal.id, 24, 80)
    await read_until(again, b"late-4")
    await line.hangup(terminal.id)


async def test_attach_and_hangup_of_nothing(line: Lifeline) -> None:
    with pytest.raises(Refused):
        await line.attach("none", 24, 80)
    with pytest.raises(Refused):
        await line.hangup("none")


async def test_put_and_get(line: Lifeline, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    path = tmp_path / "a" / "b" / "file"
    await line.put(str(path), data, mode=0o4640, user=USER, parents=True)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o7777 == 0o4640
    assert await line.get(str(path), limit=1 << 20) == data
    with pytest.raises(GuestError, match="larger than"):
        await line.get(str(path), limit=1000)
    with pytest.raises(Refused, match="No such file"):
        await line.get(str(path) + "x", limit=1000)
    with pytest.raises(Refused):
        await line.get(str(tmp_path), limit=1000)
    await line.put(str(path), b"", user=USER)
    assert await line.get(str(path), limit=10) == b""
    with pytest.raises(Refused):
        await line.put(str(tmp_path / "no" / "parent"), b"x", user=USER)
    if Path("/dev/full").exists():
        with pytest.raises(Refused):
            await line.get("/dev/full", limit=1000)


async def test_a_put_given_up_leaves_nothing(line: Lifeline, tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir()

    async def stuck() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        await asyncio.sleep(100)

    target = str(folder / "file")
    task = asyncio.ensure_future(line.put(target, stuck(), size=10**6, user=USER))
    await eventually(lambda: any(folder.iterdir()))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await eventually(lambda: not any(folder.iterdir()))


async def test_dial(line: Lifeline) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stream = await line.dial(port)
    await stream.send(b"hey" * 100_000)
    await stream.send_eof()
    assert await everything(stream) == (b"HEY" * 100_000, b"")
    await stream.status()
    server.close()
    with pytest.raises(Refused):
        await line.dial(port)
    await line.ping()


async def test_calls(line: Lifeline) -> None:
    assert 0 < await line.ping() < 5
    if os.geteuid() == 0:  # it needs chroot
        await line.sync()
    for refused in (line.clock(1), line.shutdown("poweroff"), line.identity("x", "0" * 32)):
        with pytest.raises(Refused):
            await refused
    connection = line._connection
    assert connection is not None
    with pytest.raises(Refused):
        await connection.call("no-such-call")
    with pytest.raises(Refused):
        await connection.open("no-such-kind", [])


async def test_after_a_kill_the_next_one_answers(line: Lifeline, agent: Agent) -> None:
    running = asyncio.ensure_future(line.run(["sleep", "100"], user=USER))
    await asyncio.sleep(0.2)
    agent.kill()
    # Told by the end of the connection, not by anybody's patience.
    with pytest.raises(MachineLost):
        await asyncio.wait_for(running, line.patience)
    agent.start()
    await line.connect(10)
    assert (await shell(line, "echo back"))[0] == b"back\n"


async def test_resynchronize_closes_channels_and_keeps_terminals(line: Lifeline) -> None:
    terminal = await line.terminal(user=USER, argv=["sh"])
    flood = await line.command(["cat", "/dev/zero"], user=USER)
    await asyncio.sleep(0.2)
    await line.resynchronize(10)
    with pytest.raises(MachineLost):
        await everything(flood)
    assert await line.terminals() == [terminal.id]
    assert (await shell(line, "echo on"))[0] == b"on\n"
    await line.hangup(terminal.id)


async def test_a_half_frame_of_an_earlier_conversation(line: Lifeline) -> None:
    connection = line._connection
    assert connection is not None
    assert connection._transport is not None
    for cut in (1, 11, 16, 40000):
        half = encode(Frame(Type.DATA, 0, 9, bytes(60000)))[:cut]
        connection._transport.write(half)
        await line.resynchronize(10)
        assert (await shell(line, "echo on"))[0] == b"on\n"


async def test_rubbish_does_not_kill_it(line: Lifeline, agent: Agent) -> None:
    connection = line._connection
    assert connection is not None
    assert connection._transport is not None
    connection._transport.write(os.urandom(1 << 20))
    await line.resynchronize(20)
    assert (await shell(line, "echo on"))[0] == b"on\n"


async def test_data_beyond_the_credit_fails_the_channel(line: Lifeline) -> None:
    connection = line._connection
    assert connection is not None
    fields: list[tuple[Tag, bytes | str | int]] = [(Tag.ARG, "sleep"), (Tag.ARG, "5")]
    channel = await connection.open("exec", [*fields, (Tag.USER, USER)])
    for _ in range(30):
        channel._may_send -= 16384
        connection._send(Frame(Type.DATA, 0, channel.id, bytes(16384)))
    with pytest.raises(Refused, match="credit"):
        await asyncio.wait_for(channel.wait(), 10)
    assert (await shell(line, "echo on"))[0] == b"on\n"


async def test_more_channels_than_it_keeps(agent: Agent) -> None:
    """The host's own limit taken away: the guest refuses the 65th and goes on."""
    await asyncio.sleep(0.3)
    connection = await Connection.connect(agent.socket)
    await connection.synchronize(10)
    await connection.call("ping")
    for number in range(100, 200):
        fields: list[tuple[Tag, bytes | str | int]] = [
            (Tag.KIND, "exec"), (Tag.USER, USER), (Tag.ARG, "sleep"), (Tag.ARG, "2"),
        ]  # fmt: skip
        connection._send(Frame(Type.OPEN, 0, number, pack_fields(fields)))
    # We never opened these, so the first answer to one ends the connection.
    with pytest.raises(GuestError, match="not open"):
        await connection.call("ping")
    await connection.aclose()
    lifeline = Lifeline(agent.socket)
    await lifeline.connect(10)
    assert (await shell(lifeline, "echo on"))[0] == b"on\n"
    await lifeline.aclose()


async def test_throughput(line: Lifeline, tmp_path: Path) -> None:
    size = 100 << 20
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    begun, received = time.monotonic(), 0
    async for part in line.get_stream(str(tmp_path / "big")):
        received += len(part)
    got = time.monotonic() - begun
    assert received == size

    async def source() -> AsyncIterator[bytes]:
        part = bytes(1 << 20)
        for _ in range(100):
            yield part

    begun = time.monotonic()
    await line.put(str(tmp_path / "copy"), source(), size=size, user=USER)
    put = time.monotonic() - begun
    assert (tmp_path / "copy").stat().st_size == size
    print(f"100 MiB: get {got:.1f} s, put {put:.1f} s")
    assert got < 60
    assert put < 60


@pytest.mark.skipif(os.geteuid() != 0, reason="a root folder of its own needs root")
@pytest.mark.skipif(BUSYBOX is None, reason="no busybox")
async def test_scripts_and_questions_in_a_root_of_its_own(binary: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("bin", "etc", "root", "proc", "dev", "run/bugbox/tools", "run/bugbox/script"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    assert BUSYBOX is not None
    shutil.copy(BUSYBOX, root / "run/bugbox/tools/busybox")
    agent = Agent(binary, tmp_path / "s", root)
    lifeline = Lifeline(agent.socket)
    try:
        await lifeline.connect(10)
        text = b'#!/no/such\necho "$0 $1 $X"; id -u; cat; touch /made; exit 3\n'
        result = await lifeline.script(text, "probe.sh", args=["a b"], env={"X": "y"}, input=b"in")
        assert result.stderr == b""
        assert result.stdout == b"/run/bugbox/script/probe.sh a b y\n0\nin"
        assert result.status == 3
        assert (root / "made").exists()
        assert list((root / "run/bugbox/script").iterdir()) == []
        with pytest.raises(Refused):
            await lifeline.script(b"true", "../evil")

        async def answer(verb: str, args: list[str]) -> tuple[bytes, int]:
            return f"{verb} {args}\n".encode() + b"x" * 30000, 4

        lifeline.on_ask = answer
        reader, writer = await asyncio.open_unix_connection(str(root / "run/bugbox/ask"))
        writer.write(b"check\0a\0\0")
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert said == b"check ['a']\n" + b"x" * 30000 + b"\0\x04"
    finally:
        await lifeline.aclose()
        agent.kill()
