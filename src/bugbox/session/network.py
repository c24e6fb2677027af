# SPDX-License-Identifier: Apache-2.0
"""Which network card a machine gets: what its puzzle asks for, as far as this host can keep to it.

The card's other end is QEMU's user-mode network. Restricted, the guest reaches nothing, and is
reached only by what the host sends in. Between that and all there is the gate (machine.qemu.gate):
the guest reaches what it names. Open, it reaches all that the host's own user reaches: the
internet, but also services on the host's 127.0.0.1 and the networks around it; so that is the
host's owner to allow.
"""

from __future__ import annotations

from bugbox.config import Settings
from bugbox.errors import HostError
from bugbox.machine.spec import Nic
from bugbox.session.plan import Plan

__all__ = ["build_card", "card"]

#: The other end of each card is a QEMU of its own, so none ever meets another.
_MAC = "52:54:00:12:34:56"


def card(plan: Plan, settings: Settings) -> tuple[Nic, ...]:
    """Return the machine's network card, or none; HostError for what cannot be kept to here."""
    egress = plan.egress
    if egress == "none":
        return (Nic(id="net0", mac=_MAC),) if plan.probed else ()
    if egress == "full":
        return _open_card(f"{plan.name} asks for network.egress: full", settings)
    if plan.probed:
        raise HostError(
            f"{plan.name} asks for network.egress: {'dns' if egress == 'dns' else '{allow: […]}'} "
            "beside checks from outside: a machine behind a gate cannot be asked from outside here",
            hint="a puzzle may have one of the two",
        )
    nic = Nic(
        id="net0",
        mac=_MAC,
        restrict=False,
        reach=() if egress == "dns" else tuple(egress),
        names=egress == "dns",
        private=settings.open_network == "on",
    )
    return (nic,)


def build_card(name: str, settings: Settings) -> tuple[Nic, ...]:
    """Return the card of a machine that builds with `build.network`; HostError as above."""
    return _open_card(f"{name} asks for build.network", settings)


def _open_card(what: str, settings: Settings) -> tuple[Nic, ...]:
    """Return a card that reaches all that this host reaches; HostError unless its owner agrees."""
    if settings.open_network != "on":
        raise HostError(
            f"{what}; QEMU's user-mode network would open this host's own services and the "
            "networks around it to the machine, too",
            hint="BUGBOX_OPEN_NETWORK=on allows it, if that is fine with you",
        )
    return (Nic(id="net0", mac=_MAC, restrict=False),)
