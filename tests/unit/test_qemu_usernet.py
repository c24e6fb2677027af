# SPDX-License-Identifier: Apache-2.0
"""Ways into a guest through QEMU's user-mode network."""

import asyncio

import anyio
import pytest

from bugbox.errors import GuestError, MachineLost
from bugbox.machine.qemu.usernet import Flow, Forwarding, forwarded, parse_usernet

HEAD = """\
VLAN -1 (net0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
"""
#: As QEMU 7.2 prints it.
USERNET = (
    HEAD
    + """\
  TCP[ESTABLISHED]   21       127.0.0.1 35129       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]  20       127.0.0.1 35129       10.0.2.15    22     0     0
  UDP[HOST_FORWARD]  22       127.0.0.1 40000       10.0.2.15    53     0     0
  UDP[236 sec]       24       10.0.2.15 57138        10.0.2.3    53     0     0
  ICMP[10 sec]       25       10.0.2.15     7        10.0.2.2     -     0     0
"""
)


def test_rows_are_read_and_the_rest_is_left_out() -> None:
    assert parse_usernet(USERNET) == [
        Flow("tcp", "ESTABLISHED", 35129, 22),
        Flow("tcp", "HOST_FORWARD", 35129, 22),
        Flow("udp", "HOST_FORWARD", 40000, 53),
        Flow("udp", "236 sec", 57138, 53),
    ]
    assert parse_usernet("no such thing") == []


class Qemu:
    """Answers the three commands; its forwardings, by port of the host."""

    def __init__(self) -> None:
        self.forwards: dict[int, tuple[str, int]] = {}
        self.next = 40000
        self.refuses = ""
        self.lost = False

    async def ask(self, line: str) -> str:
        if self.lost:
            raise MachineLost("QEMU's monitor has gone")
        await asyncio.sleep(0)
        words = line.split()
        if words[0] == "info":
            rows = (
                f"  {kind.upper()}[HOST_FORWARD]  20  127.0.0.1 {port}  10.0.2.15  {guest}  0  0\n"
                for port, (kind, guest) in self.forwards.items()
            )
            return HEAD + "".join(rows)
        kind, host, port, *guest = words[2].replace("-", "").split(":")
        assert (words[1], host) == ("net0", "127.0.0.1")
        if words[0] == "hostfwd_add":
            if self.refuses:
                return self.refuses
            self.next += 1
            self.forwards[self.next] = (kind, int(guest[0]))
        else:
            assert words[0] == "hostfwd_remove"
            del self.forwards[int(port)]
        return ""


def test_a_forwarding_is_there_while_it_is_held() -> None:
    async def main() -> None:
        qemu, lock = Qemu(), anyio.Lock()
        async with (
            forwarded(qemu.ask, lock, "net0", 80) as one,
            forwarded(qemu.ask, lock, "net0", 80) as two,
            forwarded(qemu.ask, lock, "net0", 53) as three,
        ):
            ports = {way.address[1] for way in (one, two, three)}
            assert ports == set(qemu.forwards) and len(ports) == 3
        assert qemu.forwards == {}

    asyncio.run(main())


def test_two_at_once_get_one_each() -> None:
    async def main() -> None:
        qemu, lock = Qemu(), anyio.Lock()

        async def one() -> int:
            async with forwarded(qemu.ask, lock, "net0", 80) as way:
                await asyncio.sleep(0.01)
                return way.address[1]

        ports = await asyncio.gather(*(one() for _ in range(5)))
        assert len(set(ports)) == 5 and qemu.forwards == {}

    asyncio.run(main())


def test_a_refusal_is_an_error_with_qemus_words() -> None:
    async def main() -> None:
        qemu = Qemu()
        qemu.refuses = "could not set up host forwarding rule\n"
        with pytest.raises(GuestError, match="port 80: could not set up"):
            async with forwarded(qemu.ask, anyio.Lock(), "net0", 80):
                pytest.fail("it is not there")

    asyncio.run(main())


def test_a_qemu_that_died_meanwhile_hides_no_answer() -> None:
    async def main() -> None:
        qemu = Qemu()
        async with forwarded(qemu.ask, anyio.Lock(), "net0", 80) as way:
            qemu.lost = True
            assert way.address[0] == "127.0.0.1"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("state", "expected"),
    [("ESTABLISHED", True), ("CLOSE_WAIT", True), ("SYN_SENT", None), ("HOST_FORWARD", None)],
)
def test_whether_the_guest_took_a_connection(state: str, expected: bool | None) -> None:
    async def ask(line: str) -> str:
        return HEAD + f"  TCP[{state}]  21  127.0.0.1 4000  10.0.2.15  22  0  0\n"

    assert asyncio.run(Forwarding(ask, 4000).taken()) is expected
    assert asyncio.run(Forwarding(ask, 4001).taken()) is None
