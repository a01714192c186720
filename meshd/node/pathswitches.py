"""What the administrator forbids or forces when paths to peers are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.switch import switch
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.core.syspolicy import parse_duration

DEVELOPMENT_REGION = 999
MAX_PRETENDED = 3
MAX_PONG_DELAY_S = 60.0


class PathSwitches(NamedTuple):
    """What is not as usual."""

    relays_only: bool = False
    """No direct paths, in either direction."""
    omit_local: bool = False
    """Addresses of own interfaces are not told to peers, those that STUN found are."""
    all_v6: bool = False
    """Peers are told every IPv6 address, not two of each network."""
    pretended: tuple[AddrPort, ...] = ()
    """Addresses that peers are told besides those that are found."""
    pong_delay_v4_s: float = 0.0
    """Answers to pings over IPv4 wait so long."""
    relays: RelayMap | None = None
    """The relays to use instead of the network's."""
    network_up: bool = False
    """The network counts as up whatever the interfaces say."""


NOTHING_FORBIDDEN = PathSwitches()


def path_switches(environment: Mapping[str, str]) -> PathSwitches:
    """From the variables that tailscaled reads, too. Raises MeshdError "usage"."""
    never_direct = switch(environment, "TS_DEBUG_NEVER_DIRECT_UDP")
    return PathSwitches(
        relays_only=switch(environment, "TS_DEBUG_ALWAYS_USE_DERP") or never_direct,
        omit_local=switch(environment, "TS_DEBUG_OMIT_LOCAL_ADDRS"),
        all_v6=switch(environment, "TS_DEBUG_FORCE_ALL_IPV6_ENDPOINTS"),
        pretended=_endpoints(environment.get("TS_DEBUG_PRETENDPOINT", "")),
        pong_delay_v4_s=_delay(environment.get("TS_DISCO_PONG_IPV4_DELAY", "")),
        relays=_relays(environment.get("TS_DEBUG_USE_DERP_ADDR", "")),
        network_up=switch(environment, "TS_ASSUME_NETWORK_UP_FOR_TEST"),
    )


def _endpoints(text: str) -> tuple[AddrPort, ...]:
    found = []
    for part in text.split(",") if text else ():
        try:
            found.append(AddrPort.parse(part.strip()))
        except ValueError:
            raise _bad(
                "TS_DEBUG_PRETENDPOINT", text, "addresses such as 192.0.2.1:41641, separated by commas"
            ) from None
    if len(found) > MAX_PRETENDED:
        raise _bad("TS_DEBUG_PRETENDPOINT", text, f"no more than {MAX_PRETENDED} addresses")
    return tuple(found)


def _delay(text: str) -> float:
    try:
        delay = parse_duration(text) if text else 0.0
    except ValueError:
        delay = -1.0
    if not 0.0 <= delay <= MAX_PONG_DELAY_S:
        raise _bad("TS_DISCO_PONG_IPV4_DELAY", text, "a duration such as 100ms, up to a minute")
    return delay


def _relays(text: str) -> RelayMap | None:
    """One relay at ``host`` or ``host:port``, which also answers STUN."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.endswith("]")):
        host, port = text, "443"
    host = host.strip("[]")
    if not host or not host.isprintable() or " " in host or not port.isascii() or not port.isdigit():
        raise _bad("TS_DEBUG_USE_DERP_ADDR", text, "the host name of a relay, with :port unless that is 443")
    if not 0 < int(port) <= 65535:
        raise _bad("TS_DEBUG_USE_DERP_ADDR", text, "a port from 1 to 65535")
    node = RelayNode(f"{DEVELOPMENT_REGION}dev", DEVELOPMENT_REGION, host, derp_port=int(port))
    return RelayMap({DEVELOPMENT_REGION: RelayRegion(DEVELOPMENT_REGION, "dev", host, (node,))})


def _bad(name: str, value: str, expected: str) -> MeshdError:
    return MeshdError(f'invalid value "{value}" for the environment variable {name}: expected {expected}', code="usage")
