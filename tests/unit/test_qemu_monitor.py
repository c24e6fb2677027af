# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor: every command bounded, every loss told."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from qemu_double import QemuDouble

from bugbox.errors import GuestError, MachineLost
from bugbox.machine.qemu.monitor import Monitor

Events = list[tuple[str, dict[str, object]]]


def with_monitor(
    tmp_path: Path,
    test: Callable[[Monitor, QemuDouble, Events, asyncio.Event], Awaitable[None]],
) -> None:
    async def main() -> None:
        double = QemuDouble(tmp_path)
        await double.start()
        events: Events = []
        lost = asyncio.Event()
        monitor = Monitor(
            tmp_path / "qmp",
            on_event=lambda name, data: events.append((name, dict(data))),
            on_lost=lost.set,
            timeout=2.0,
        )
        try:
            await monitor.connect()
            await asyncio.wait_for(test(monitor, double, events, lost), 30)
        finally:
            await monitor.aclose()
            await double.aclose()

    asyncio.run(main())


def test_commands_and_events(tmp_path: Path) -> None:
    async def test(
        monitor: Monitor, double: QemuDouble, events: Events, lost: asyncio.Event
    ) -> None:
        assert await monitor.status() == "prelaunch"
        await double.event("RESET", guest=True, reason="guest-reset")
        await monitor.execute("cont")
        assert events == [("RESET", {"guest": True, "reason": "guest-reset"})]
        assert double.commands == ["qmp_capabilities", "query-status", "cont"]
        assert not lost.is_set()

    with_monitor(tmp_path, test)


def test_a_refusal_is_a_guest_error_with_qemu_s_words(tmp_path: Path) -> None:
    async def test(
        monitor: Monitor, double: QemuDouble, events: Events, lost: asyncio.Event
    ) -> None:
        double.refused.add("cont")
        with pytest.raises(GuestError, match="QEMU refused cont: cont is not for you") as caught:
            await monitor.execute("cont")
        assert not isinstance(caught.value, MachineLost)
        assert await monitor.status() == "prelaunch", "the conversation goes on"

    with_monitor(tmp_path, test)


def test_a_command_without_an_answer_ends(tmp_path: Path) -> None:
    async def test(
        monitor: Monitor, double: QemuDouble, events: Events, lost: asyncio.Event
    ) -> None:
        double.silent.add("stop")
        with pytest.raises(MachineLost, match="did not answer stop within 2 s"):
            await monitor.execute("stop")
        double.silent.clear()
        assert await monitor.status() == "prelaunch"

    with_monitor(tmp_path, test)


def test_losing_qemu_is_told_at_once_and_ends_a_waiting_command(tmp_path: Path) -> None:
    async def test(
        monitor: Monitor, double: QemuDouble, events: Events, lost: asyncio.Event
    ) -> None:
        double.silent.add("stop")
        waiting = asyncio.ensure_future(monitor.execute("stop", timeout=9))
        while "stop" not in double.commands:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        double.hang_up()
        with pytest.raises(MachineLost, match="gone"):
            await waiting
        await lost.wait()
        with pytest.raises(MachineLost):
            await monitor.execute("cont")

    with_monitor(tmp_path, test)


def test_no_event_is_kept(tmp_path: Path) -> None:
    async def test(
        monitor: Monitor, double: QemuDouble, events: Events, lost: asyncio.Event
    ) -> None:
        for _ in range(500):
            await double.event("VSERPORT_CHANGE", id="lifeline", open=True)
        await monitor.status()
        assert len(events) == 500
        kept = [listener.history for listener in monitor._client._listeners]
        assert not any(kept)

    with_monitor(tmp_path, test)


def test_where_somebody_else_holds_it_there_is_no_greeting(tmp_path: Path) -> None:
    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(mute, str(tmp_path / "qmp"))
        monitor = Monitor(
            tmp_path / "qmp", on_event=lambda n, d: None, on_lost=lambda: None, timeout=0.2
        )
        with pytest.raises(MachineLost, match=r"within 0\.2 s"):
            await monitor.connect()
        await monitor.aclose()
        server.close()

    asyncio.run(main())


def test_nobody_there(tmp_path: Path) -> None:
    async def main() -> None:
        monitor = Monitor(tmp_path / "qmp", on_event=lambda n, d: None, on_lost=lambda: None)
        with pytest.raises(MachineLost):
            await monitor.connect()
        await monitor.aclose()

    asyncio.run(main())
