# SPDX-License-Identifier: Apache-2.0
"""A session's network and jail: what a machine on Firecracker takes of this host as root.

Both belong to the session's folder. Each is written into the record before it is taken; the
reaper gives it back from there, and `gc` what belongs to folders that are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterable

from bugbox.config import Settings
from bugbox.host.bridge import held
from bugbox.machine.firecracker.jail import Jails
from bugbox.network import dhcp
from bugbox.network.goals import egress_of
from bugbox.network.net import Net, Network
from bugbox.paths import Home, SessionPaths
from bugbox.session.record import Ledger

__all__ = ["JAIL", "NETWORK", "connect", "give_back", "sweep", "tell_address"]

#: What a record holds.
NETWORK, JAIL = "network", "jail"


def connect(
    ledger: Ledger,
    settings: Settings,
    egress: str | tuple[str, ...],
    *,
    published: Iterable[int] = (),
    uid: int | None = None,
) -> Net:
    """Give a session its network; see network.net for what can go wrong."""
    home = _home(ledger.paths)
    network = Network(home.leases, pool=settings.network_pool, dns=settings.network_dns)
    goals = egress_of(egress)
    ledger.hold(NETWORK)
    return network.connect(ledger.paths.root, goals, published=published, uid=uid)


async def tell_address(net: Net) -> None:
    """Tell the guest its address whenever it asks, until cancelled."""
    offer = dhcp.offer_of(net)
    loop = asyncio.get_running_loop()
    async with held(dhcp.listen(net)) as link:
        while True:
            question, _ = await loop.sock_recvfrom(link, dhcp.LIMIT + 1)
            reply = dhcp.answer(question, offer)
            if reply is not None:
                with contextlib.suppress(OSError):  # the tap is down: nobody is there to be told
                    await loop.sock_sendto(link, reply, dhcp.TO)


def give_back(paths: SessionPaths, holds: Collection[str]) -> None:
    """End a session's jail and its network, in that order, if it may have them."""
    home = _home(paths)
    if JAIL in holds:
        Jails(home.jails, home.leases).give_back(paths.root)
    if NETWORK in holds:
        Network(home.leases).give_back(paths.root)


def sweep(home: Home) -> list[str]:
    """Remove what belongs to sessions that are gone; only root can have left any."""
    if os.geteuid() != 0:
        return []
    return Jails(home.jails, home.leases).sweep() + Network(home.leases).sweep()


def _home(paths: SessionPaths) -> Home:
    return Home(paths.root.parent.parent)
