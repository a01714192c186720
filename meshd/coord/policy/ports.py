"""Ports and protocols as a policy writes them."""

from __future__ import annotations

PortSpan = tuple[int, int]
"""First and last port, both included."""
ALL_PORTS: PortSpan = (0, 65535)

PROTOCOLS: dict[str, tuple[int, ...]] = {
    "*": (),
    "tcp": (6,),
    "udp": (17,),
    "icmp": (1, 58),
    "icmpv4": (1,),
    "ipv6-icmp": (58,),
    "igmp": (2,),
    "ipv4": (4,),
    "ip-in-ip": (4,),
    "egp": (8,),
    "igp": (9,),
    "gre": (47,),
    "esp": (50,),
    "ah": (51,),
    "sctp": (132,),
}
"""Names to IP protocol numbers (IANA)."""
WITH_PORTS = frozenset((6, 17, 132))
"""Protocols that have ports (TCP, UDP, SCTP); a rule that names ports of others would never match."""


def parse_ports(text: str) -> tuple[PortSpan, ...]:
    """`*`, `22`, `80,443`, `8000-8999`; ValueError otherwise."""
    if text == "*":
        return (ALL_PORTS,)
    spans: list[PortSpan] = []
    for part in text.split(","):
        first, separator, last = part.partition("-")
        try:
            span = (_port(first), _port(last if separator else first))
        except ValueError:
            raise ValueError(f"{text!r} are not ports; write *, 22, 80,443 or 8000-8999") from None
        if span[0] > span[1]:
            raise ValueError(f"the port range {part} goes backwards")
        spans.append(span)
    return tuple(spans)


def write_ports(spans: tuple[PortSpan, ...]) -> str:
    """As `parse_ports` reads them."""
    if spans == (ALL_PORTS,):
        return "*"
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 65535:
        raise ValueError(text)
    return int(text)
