"""Which of a Linux host's ways to set its resolver is the one in charge. A pure decision from what is found there."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from meshd.wire.resolvconf import decode_resolv_conf, is_ours

STUB = "127.0.0.53"
"""Where systemd-resolved listens."""
WIRED_WRONG = (
    "systemd-resolved and NetworkManager are wired together incorrectly; MagicDNS will probably not work. "
    "For more info, see https://tailscale.com/s/resolved-nm"
)
# NetworkManager of these versions puts its own settings above everybody else's in systemd-resolved, and takes ours
# for itself. Older ones refuse them for interfaces that are not theirs, newer ones leave systemd-resolved to us.
_NM_FIRST, _NM_LAST = (1, 26, 0), (1, 26, 5)


class Way(StrEnum):
    """How the host's resolver is told."""

    DIRECT = "direct"
    RESOLVED = "systemd-resolved"
    NETWORK_MANAGER = "network-manager"
    DEBIAN_RESOLVCONF = "debian-resolvconf"
    OPENRESOLV = "openresolv"


class Facts(msgspec.Struct, frozen=True):
    """What a look at the host showed."""

    resolv_conf: bytes | None = None
    """Content of /etc/resolv.conf; None when there is none."""
    nsswitch: str = ""
    """Content of /etc/nsswitch.conf."""
    resolved_up: bool = False
    networkmanager_up: bool = False
    networkmanager_version: str = ""
    networkmanager_uses_resolved: bool = False
    resolvconf: str = ""
    """What kind of program ``resolvconf`` is: ``debian``, ``openresolv``, or "" for none that is one of them."""


class Choice(msgspec.Struct, frozen=True):
    """``problem`` is for the user: the way is the best there is, and may not work all the same."""

    way: Way
    problem: str = ""


def choose_way(facts: Facts) -> Choice:
    """DN-11: by the owner that the comments of /etc/resolv.conf name, if it is really in charge."""
    text = facts.resolv_conf
    owner = owner_of(text) if text is not None else ""
    if owner == "resolvconf":
        ways = {"debian": Way.DEBIAN_RESOLVCONF, "openresolv": Way.OPENRESOLV}
        return Choice(ways.get(facts.resolvconf, Way.DIRECT))
    if owner == "meshd" or text is None or not facts.resolved_up or not _is_wired(text, facts.nsswitch, owner):
        return Choice(Way.DIRECT)
    if not facts.networkmanager_up:
        return Choice(Way.RESOLVED)
    takes_ours = _NM_FIRST <= version_of(facts.networkmanager_version) <= _NM_LAST
    if owner == "NetworkManager":
        if takes_ours:
            return Choice(Way.NETWORK_MANAGER)
        if not facts.networkmanager_uses_resolved:
            return Choice(Way.DIRECT)
        return Choice(Way.RESOLVED, WIRED_WRONG)
    if takes_ours and facts.networkmanager_uses_resolved:
        return Choice(Way.NETWORK_MANAGER)
    return Choice(Way.RESOLVED)


def owner_of(text: bytes) -> str:
    """Who wrote the file, by its first comments; "" when they do not say."""
    if is_ours(text):
        return "meshd"
    for line in text.decode("utf-8", "replace").splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith(("#", ";")):
            break
        for owner in ("systemd-resolved", "NetworkManager", "resolvconf"):
            if owner in stripped:
                return owner
    return ""


def version_of(text: str) -> tuple[int, ...]:
    """The first three numbers of a version, (0, 0, 0) for what is none."""
    numbers = []
    for part in text.strip().split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return (*numbers, *[0] * (3 - len(numbers)))


def _is_wired(text: bytes, nsswitch: str, owner: str) -> bool:
    """Whether programs ask systemd-resolved: through the file, or past it through the name service switch."""
    servers = decode_resolv_conf(text).nameservers
    by_file = bool(servers) and set(servers) == {STUB}
    # A file by nobody's hand that names the stub alone is as good as one by systemd-resolved. The switch alone is
    # not: musl and static programs go by the file, and what is in it may be all that its owner wanted.
    return by_file or (owner != "" and _switch_asks_resolved(nsswitch))


def _switch_asks_resolved(nsswitch: str) -> bool:
    for line in nsswitch.splitlines():
        words = line.split("#", 1)[0].split()
        if words[:1] == ["hosts:"]:
            asked = [word for word in words[1:] if word in ("dns", "resolve")]
            return asked[:1] == ["resolve"]
    return False
