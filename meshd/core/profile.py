"""Login profiles: several identities on one machine, one of them current.

Pure values and their JSON; the node layer stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from meshd.core.prefs import Prefs, UserProfile

Random = Callable[[int], bytes]


class NetworkProfile(msgspec.Struct, frozen=True, rename="pascal"):
    """The network a profile belongs to."""

    magic_dns_name: str = msgspec.field(default="", name="MagicDNSName")
    domain_name: str = ""
    display_name: str = ""


class LoginProfile(msgspec.Struct, frozen=True, rename="pascal"):
    """One profile; ``id`` is empty until its first login."""

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    network_profile: NetworkProfile = NetworkProfile()
    key: str = ""
    user_profile: UserProfile = UserProfile()
    node_id: str = msgspec.field(default="", name="NodeID")
    local_user_id: str = msgspec.field(default="", name="LocalUserID")
    control_url: str = msgspec.field(default="", name="ControlURL")
    created: str = "0001-01-01T00:00:00Z"


def new_profile_id(taken: Mapping[str, LoginProfile], random: Random) -> str:
    """Four hex digits that no profile has (PS-04)."""
    while True:
        candidate = random(2).hex()
        if candidate not in taken:
            return candidate


def profile_key(profile_id: str) -> str:
    """The store key of a profile's preferences."""
    return f"profile-{profile_id}"


def adopt(
    profiles: Mapping[str, LoginProfile], current: LoginProfile, prefs: Prefs, random: Random, created: str
) -> tuple[LoginProfile, list[LoginProfile]]:
    """The profile that these logged-in preferences belong to, and those that it replaces (PS-07).

    A profile of the same server with the same user or node is used again; otherwise the current one, or a
    new one when the current has no id.
    """
    persist = prefs.persist()
    same = [
        profile
        for profile in profiles.values()
        if profile.control_url == prefs.control_url
        and (profile.user_profile.id == persist.user_profile.id or profile.node_id == persist.node_id)
    ]
    base = same[0] if same else current
    replaced = same[1:]
    if not base.id:
        identity = new_profile_id(profiles, random)
        base = LoginProfile(id=identity, key=profile_key(identity), created=created)
    adopted = msgspec.structs.replace(
        base,
        name=prefs.profile_name or persist.user_profile.login_name,
        control_url=prefs.control_url,
        user_profile=persist.user_profile,
        node_id=persist.node_id,
    )
    return adopted, replaced
