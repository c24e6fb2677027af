# SPDX-License-Identifier: Apache-2.0
"""Lifeline against the fake guest: everything the rest of bugbox asks of it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bugbox.errors import GuestError, MachineLost, UserError
from bugbox.machine.fake_guest import FakeGuest
from bugbox.machine.lifeline.channel import Refused
from bugbox.machine.lifeline.connection import Connection
from bugbox.machine.lifeline.shell import Command, Lifeline
from bugbox.machine.lifeline.wire import Tag

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that asks for signs of life often."""
    monkeypatch.setattr(Connection, "quiet", 0.2)
    monkeypatch.setattr(Connection, "patience", 0.3)


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[FakeGuest]:
    fake = FakeGuest(tmp_path / "root")
    await fake.serve(tmp_path / "s")
    yield fake
    await fake.aclose()


@pytest.fixture
async def line(tmp_path: Path, guest: FakeGuest) -> AsyncIterator[Lifeline]:
    lifeline = Lifeline(tmp_path / "s")
    await lifeline.connect(10)
    yield lifeline
    await lifeline.aclose()


async def everything(command: Command) -> tuple[bytes, bytes]:
    streams: dict[int, bytes] = {1: b"", 2: b""}
    while (item := await command.receive()) is not None:
        streams[item[0]] += item[1]
    return streams[1], streams[2]


async def read_until(command: Command, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(10):
        while wanted not in seen:
            item = await command.receive()
            assert item is not None, seen
            seen += item[1]
    return seen


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def begun(line: Lifeline) -> None:
    """Wait until the guest has begun what was asked for."""
    assert line._connection is not None
    channels = line._connection._channels
    await eventually(lambda: any(channel.opened for channel in channels.values()))


@asynccontextmanager
async def raising(
    kind: type[BaseException], within: float, match: str = "."
) -> AsyncIterator[None]:
    begun = time.monotonic()
    with pytest.raises(kind, match=match):
        yield
    assert time.monotonic() - begun < within


async def test_hello_and_milestones(line: Lifeline, guest: FakeGuest) -> None:
    assert line.connected
    assert line.hello is not None
    assert (line.hello.boot_id, line.hello.started) == (guest.boot_id, "boot")
    await line.ping()
    assert list(line.milestones) == ["lifeline", "modules", "root", "init"]


async def test_streams_stay_apart_and_the_status_comes_back(line: Lifeline) -> None:
    result = await line.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (result.status, result.signal, result.code) == (7, None, 7)
    assert not result.truncated
    assert not result.timed_out


async def test_a_signal_is_told(line: Lifeline) -> None:
    result = await line.run(["sh", "-c", "kill -9 $$"])
    assert (result.status, result.signal, result.code) == (None, 9, 137)


async def test_input_environment_and_folder(line: Lifeline, guest: FakeGuest) -> None:
    (guest.root / "sub").mkdir()
    result = await line.run(
        ["sh", "-c", 'cat; echo "$GREETING"; pwd'],
        input=b"in\0\xff\n",
        env={"GREETING": "hey=you"},
        cwd="sub",
    )
    assert result.stdout == b"in\0\xff\nhey=you\n" + f"{guest.root}/sub\n".encode()


async def test_input_that_nobody_reads_does_not_block(line: Lifeline) -> None:
    result = await line.run(["true"], input=bytes(1 << 20))
    assert result.status == 0


async def test_more_than_a_window_flows_both_ways(line: Lifeline) -> None:
    data = bytes(range(256)) * 4000
    result = await line.run(["cat"], input=data)
    assert result.stdout == data


async def test_output_is_cut_at_the_limit_but_the_command_ends(line: Lifeline) -> None:
    result = await line.run(["sh", "-c", "head -c 300000 /dev/zero; echo end >&2"], limit=1000)
    assert len(result.stdout) == 1000
    assert result.stderr == b"end\n"
    assert result.truncated
    assert result.status == 0


async def test_a_command_that_hangs_is_killed_with_what_it_said(
    line: Lifeline, guest: FakeGuest
) -> None:
    begun = time.monotonic()
    result = await line.run(["sh", "-c", "echo before; echo $$ > pid; sleep 100"], timeout=3.0)
    assert time.monotonic() - begun < 60
    assert result.timed_out
    assert (result.stdout, result.status, result.code) == (b"before\n", None, 124)
    pid = int((guest.root / "pid").read_text())
    await eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert (await line.run(["true"])).status == 0


async def test_not_found_is_a_result(line: Lifeline) -> None:
    result = await line.run(["no-such-program"])
    assert result.status == 127
    assert b"no-such-program" in result.stderr


async def test_script(line: Lifeline, guest: FakeGuest) -> None:
    text = b'#!/no/such/interpreter\necho "$0 $1 $X" | sed s,.*/,,; cat; exit 3\n'
    result = await line.script(text, "probe.sh", args=["a b"], env={"X": "y"}, input=b"in")
    assert result.stdout.endswith(b"probe.sh a b y\nin")
    assert result.status == 3


async def test_a_script_too_long_for_a_frame_is_refused_here(line: Lifeline) -> None:
    async with raising(UserError, 1, "longer than 65536"):
        await line.script(b"#" * 70000, "long")


async def test_a_nul_is_refused_here(line: Lifeline) -> None:
    async with raising(UserError, 1, "NUL"):
        await line.run(["echo", "a\0b"])


async def test_many_at_once(line: Lifeline) -> None:
    results = await asyncio.gather(
        *(line.run(["sh", "-c", f"echo {n}; head -c 100000 /dev/zero >&2"]) for n in range(100))
    )
    assert [int(result.stdout) for result in results] == list(range(100))
    assert all(len(result.stderr) == 100000 for result in results)


async def test_a_command_by_hand(line: Lifeline) -> None:
    command = await line.command(["cat"])
    await command.send(b"one")
    assert await command.receive() == (1, b"one")
    await command.send(b"two")
    await command.send_eof()
    assert await everything(command) == (b"two", b"")
    assert (await command.status()).code == 0
    await command.send(b"dropped")
    await command.close()


async def test_signal(line: Lifeline) -> None:
    command = await line.command(["sleep", "100"])
    await command.signal(15)
    ended = await command.status()
    assert (ended.signal, ended.code) == (15, 143)


async def test_a_slow_reader_does_not_hold_up_others(line: Lifeline) -> None:
    flood = await line.command(["cat", "/dev/zero"])
    await asyncio.sleep(0.2)
    assert (await line.run(["echo", "quick"], timeout=5)).stdout == b"quick\n"
    await flood.close()
    assert await flood.receive() is None
    await flood.close()


async def test_a_cancelled_run_kills_its_command(line: Lifeline, guest: FakeGuest) -> None:
    task = asyncio.ensure_future(line.run(["sh", "-c", "echo $$ > pid; sleep 100"]))
    await eventually(
        lambda: (guest.root / "pid").exists() and bool((guest.root / "pid").stat().st_size)
    )
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    pid = int((guest.root / "pid").read_text())
    await eventually(lambda: not Path(f"/proc/{pid}").exists())


async def test_terminal(line: Lifeline) -> None:
    terminal = await line.terminal(rows=33, cols=99, term="xterm")
    await terminal.send(b"stty size; echo $TERM\n")
    assert b"33 99" in await read_until(terminal, b"xterm\r\n")
    await terminal.resize(44, 55)
    await terminal.send(b"stty size\n")
    await read_until(terminal, b"44 55")
    await terminal.send(b"exit 5\n")
    assert (await terminal.status()).code == 5
    assert await line.terminals() == []


async def test_a_terminal_outlives_a_detach(line: Lifeline) -> None:
    terminal = await line.terminal()
    await terminal.send(b"X=kept; echo ready-$X\n")
    await read_until(terminal, b"ready-kept")
    await terminal.close()
    assert await line.terminals() == [terminal.id]
    again = await line.attach(terminal.id, 10, 40)
    assert again.id == terminal.id
    await again.send(b"stty size; echo still-$X\n")
    assert b"10 40" in await read_until(again, b"still-kept")
    third = await line.attach(terminal.id, 10, 40)
    with pytest.raises(GuestError, match="taken over"):
        await everything(again)
    await line.hangup(third.id)
    await third.status()
    assert await line.terminals() == []


async def test_attach_to_nothing(line: Lifeline) -> None:
    async with raising(Refused, 5, "no such terminal"):
        await line.attach("t99", 24, 80)


async def test_put_and_get(line: Lifeline, guest: FakeGuest) -> None:
    data = bytes(range(256)) * 2000
    await line.put("/a/b/file", data, mode=0o640, parents=True)
    assert (guest.root / "a/b/file").read_bytes() == data
    assert (guest.root / "a/b/file").stat().st_mode & 0o777 == 0o640
    assert await line.get("/a/b/file", limit=len(data)) == data
    async with raising(GuestError, 5, "larger than"):
        await line.get("/a/b/file", limit=len(data) - 1)
    async with raising(Refused, 5, "No such file"):
        await line.get("/nothing", limit=10)
    await line.put("/empty", b"")
    assert await line.get("/empty", limit=10) == b""


async def test_put_from_a_stream(line: Lifeline, guest: FakeGuest) -> None:
    async def source(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1000

    await line.put("/file", source(50), size=50000)
    assert (guest.root / "file").stat().st_size == 50000
    for wrong in (49, 51):
        async with raising(UserError, 5, "size changed"):
            await line.put("/other", source(wrong), size=50000)
    assert not (guest.root / "other").exists()
    await line.ping()
    assert [path.name for path in guest.root.iterdir() if path.is_file()] == ["file"]


async def test_dial(line: Lifeline) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stream = await line.dial(port)
    await stream.send(b"hey")
    await stream.send_eof()
    assert await everything(stream) == (b"HEY", b"")
    server.close()
    await server.wait_closed()
    async with raising(Refused, 5):
        await line.dial(port)


async def test_calls(line: Lifeline, guest: FakeGuest) -> None:
    assert 0 < await line.ping() < 5
    assert await line.clock(1) > 10**18
    await line.entropy(bytes(64))
    await line.identity("box", "0" * 32)
    await line.sync()
    await line.guest_client(False)
    await line.shutdown("reboot")
    kinds = [kind for kind, _ in guest.calls]
    assert kinds == ["ping", "clock", "entropy", "identity", "sync", "guest-client", "shutdown"]
    async with raising(Refused, 5, "no such terminal"):
        await line.hangup("t1")


async def test_questions_from_inside(line: Lifeline, guest: FakeGuest) -> None:
    async def answer(verb: str, args: list[str]) -> tuple[bytes, int]:
        if verb == "hint":
            raise ValueError("no hints")
        return f"{verb} {args}".encode() + b"." * 40000, 4

    await guest.ask("check")
    await eventually(lambda: len(guest.answers) == 2)
    line.on_ask = answer
    await guest.ask("check", "a", "b")
    await guest.ask("hint")
    await eventually(lambda: len(guest.answers) == 8)
    assert guest.answers[0].text(Tag.DATA).startswith("bugbox: nobody")
    assert guest.answers[1].number(Tag.CODE) == 75
    said = b"".join(a.get(Tag.DATA) or b"" for a in guest.answers if a.number(Tag.ID) == 2)
    assert said.startswith(b"check ['a', 'b']....")
    assert len(said) == 40000 + len(b"check ['a', 'b']")
    codes = {a.number(Tag.ID): a.number(Tag.CODE) for a in guest.answers if a.has(Tag.CODE)}
    assert codes == {1: 75, 2: 4, 3: 70}


async def test_everybody_is_told_at_once_when_the_machine_dies(
    line: Lifeline, guest: FakeGuest, tmp_path: Path
) -> None:
    lost: list[GuestError] = []
    line.on_lost = lost.append
    waiting = [asyncio.ensure_future(line.run(["sleep", "100"])) for _ in range(5)]
    terminal = await line.terminal()
    (tmp_path / "s").unlink()
    begun = time.monotonic()
    await guest.aclose()
    for task in waiting:
        with pytest.raises(MachineLost):
            await task
    with pytest.raises(MachineLost):
        await everything(terminal)
    async with raising(MachineLost, line.patience, "no longer answers"):
        await line.run(["true"])
    assert time.monotonic() - begun < 60, "not when the commands would have ended"
    assert len(lost) == 1
    assert not line.connected


async def test_it_comes_back_by_itself(line: Lifeline, guest: FakeGuest) -> None:
    terminal = await line.terminal()
    await guest.restart("revived")
    line.port_changed(False)
    with pytest.raises(MachineLost):
        await everything(terminal)
    assert (await line.run(["echo", "back"])).stdout == b"back\n"
    assert line.hello is not None
    assert line.hello.started == "revived"
    assert line.hello.terminals == (terminal.id,)
    again = await line.attach(terminal.id, 24, 80)
    await again.send(b"echo a-$((1+1))\n")
    await read_until(again, b"a-2")


async def test_a_silent_lifeline_is_noticed(hasty: None, line: Lifeline, guest: FakeGuest) -> None:
    running = asyncio.ensure_future(line.run(["sleep", "100"]))
    await begun(line)
    await guest.restart("revived")
    async with raising(MachineLost, 5, "no sign of life"):
        await running
    assert (await line.run(["echo", "back"])).stdout == b"back\n"


async def test_a_paused_machine_may_be_silent(
    hasty: None, line: Lifeline, guest: FakeGuest
) -> None:
    running = asyncio.ensure_future(line.run(["sh", "-c", "sleep 2; echo done"]))
    await begun(line)
    line.paused = True
    guest.running.clear()
    await asyncio.sleep(2)
    assert line.connected
    guest.running.set()
    line.paused = False
    assert (await running).stdout == b"done\n"


async def test_resynchronize_after_a_reboot(line: Lifeline, guest: FakeGuest) -> None:
    before = line.hello
    running = asyncio.ensure_future(line.run(["sleep", "100"]))
    await begun(line)
    await guest.restart("boot")
    await line.resynchronize(10)
    with pytest.raises(MachineLost, match="anew"):
        await running
    assert line.hello is not None
    assert before is not None
    assert line.hello.boot_id != before.boot_id
    assert (await line.run(["echo", "hey"])).stdout == b"hey\n"


async def test_close_and_connect_again(line: Lifeline) -> None:
    await line.aclose()
    assert not line.connected
    async with raising(MachineLost, line.patience):
        await line.ping()
    await line.connect(5)
    await line.connect(5)
    await line.ping()


async def test_nobody_there(tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path / "none")
    async with raising(MachineLost, lifeline.patience, "within 0.3 s"):
        await lifeline.connect(0.3)
    async with raising(MachineLost, lifeline.patience):
        await lifeline.run(["true"])


async def test_the_socket_may_come_late(tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path / "late")
    connecting = asyncio.ensure_future(lifeline.connect(10))
    await asyncio.sleep(0.2)
    fake = FakeGuest(tmp_path / "root")
    fake.running.clear()
    await fake.serve(tmp_path / "late")
    await asyncio.sleep(1.5)
    fake.running.set()
    await connecting
    assert (await lifeline.run(["echo", "x"])).stdout == b"x\n"
    await lifeline.aclose()
    await fake.aclose()


async def test_throughput(line: Lifeline, guest: FakeGuest) -> None:
    size = 100 << 20
    with (guest.root / "big").open("wb") as file:
        file.truncate(size)
    begun = time.monotonic()
    received = 0
    async for part in line.get_stream("/big"):
        received += len(part)
    seconds = time.monotonic() - begun
    assert received == size
    print(f"get of 100 MiB: {seconds:.1f} s")
    assert seconds < 60
