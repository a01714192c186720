"""What happened to peers, for the watchers of the bus that asked for it."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.base.gotime import format_time
from meshd.core.mapchange import MapChange
from meshd.core.netmap import Netmap
from meshd.core.node import PATH_FIELDS, Node, only_path_differs
from meshd.node.bus import PEER_CHANGES, PEER_PATCHES, Later, NotifyBus
from meshd.node.nodejson import nodes_work, user_json
from meshd.wire.control import PeerChange, encode

JSON = dict[str, Any]


def tell_peers(bus: NotifyBus, netmap: Netmap, change: MapChange | None) -> None:
    """Send added and changed peers whole and removed ones by id; small changes as patches to those who take them.

    None stands for a map that is new as a whole.
    """
    if not bus.wants(PEER_CHANGES | PEER_PATCHES):
        return
    suffix = netmap.magic_dns_suffix
    if change is None or change.full:
        peers = netmap.sorted_peers()
        news: JSON = {"UserProfiles": {str(i): user_json(p) for i, p in sorted(netmap.user_profiles.items())}}
        if peers:
            news["PeersChanged"] = Later.of(nodes_work(peers, suffix))
        if change is not None and change.removed:  # while there was no stream
            news["PeersRemoved"] = [node.id for node in change.removed]
        bus.send(news, PEER_CHANGES | PEER_PATCHES)
        return
    whole = [*change.added, *(new for _, new in change.changed)]
    news = {}
    if change.profiles:
        news["UserProfiles"] = {str(profile.id): user_json(profile) for profile in change.profiles}
    if change.removed:
        news["PeersRemoved"] = [node.id for node in change.removed]
    if bus.wants(PEER_PATCHES):
        patches = [(new, patch_json(old, new)) for old, new in change.patched]
        small = [patch for _, patch in patches if patch is not None]
        wide = [*whole, *(new for new, patch in patches if patch is None)]
        narrow = news | ({"PeersChanged": Later.of(nodes_work(wide, suffix))} if wide else {})
        if small:
            narrow["PeerChangedPatch"] = small
        if narrow:
            bus.send(narrow, PEER_PATCHES)
    if bus.wants(PEER_CHANGES, without=PEER_PATCHES):
        wide = [*whole, *(new for _, new in change.patched)]
        if wide:
            news["PeersChanged"] = Later.of(nodes_work(wide, suffix))
        if news:
            bus.send(news, PEER_CHANGES, without=PEER_PATCHES)


def patch_json(old: Node, new: Node) -> JSON | None:
    """The difference as a PeerChange; None when it says more than a patch can."""
    if not only_path_differs(old, new):
        return None
    changed = {name for name in PATH_FIELDS if getattr(old, name) != getattr(new, name)}
    vanished = changed & {"home_derp", "online", "last_seen", "disco_key", "cap"}
    if any(not getattr(new, name) and getattr(new, name) is not False for name in vanished):
        return None
    patch = PeerChange(
        node_id=new.id,
        derp_region=new.home_derp if "home_derp" in changed else 0,
        cap=new.cap if "cap" in changed else 0,
        endpoints=tuple(str(e) for e in new.endpoints) if "endpoints" in changed else None,
        disco_key=new.disco_key.text() if "disco_key" in changed and new.disco_key else None,
        online=new.online if "online" in changed else None,
        last_seen=format_time(new.last_seen) if "last_seen" in changed else None,
        key_expiry=format_time(new.key_expiry) if "key_expiry" in changed else None,
    )
    built: JSON = msgspec.json.decode(encode(patch))
    return built
