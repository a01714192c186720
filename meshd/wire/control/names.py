"""How attribute names become the field names of the wire: `home_derp` is `HomeDERP` there."""

from __future__ import annotations

from typing import Final

_WORDS: Final = {
    "ace": "ACE",
    "api": "API",
    "derp": "DERP",
    "dns": "DNS",
    "icmpv4": "ICMPv4",
    "id": "ID",
    "ip": "IP",
    "ipn": "IPN",
    "ips": "IPs",
    "ipv4": "IPv4",
    "ipv6": "IPv6",
    "macs": "MACs",
    "nl": "NL",
    "os": "OS",
    "pcp": "PCP",
    "pmp": "PMP",
    "ssh": "SSH",
    "stun": "STUN",
    "tka": "TKA",
    "tpm": "TPM",
    "udp": "UDP",
    "upnp": "UPnP",
    "url": "URL",
    "v4": "V4",
    "v6": "V6",
    "wireguard": "WireGuard",
    "wol": "WoL",
}


def wire_name(attribute: str) -> str:
    """Field name of a snake_case attribute: words capitalised, known acronyms spelled their way."""
    return "".join(_WORDS.get(word) or word.capitalize() for word in attribute.split("_"))
