"""Parts of map messages that tests and investigations want ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from meshd.base.switch import switch
from meshd.wire.control import MapResponse, PeerChange
from meshd.wire.control import Node as WireNode


class Strip(NamedTuple):
    """What is taken out before anybody sees a message."""

    endpoints: bool = False
    """Addresses of peers: paths are then found by disco alone."""
    home_relays: bool = False
    """The relays that peers are reached through."""
    capabilities: bool = False
    """What the server grants this node."""

    def apply(self, response: MapResponse) -> MapResponse:
        """The message without those parts."""
        if not any(self):
            return response
        node = response.node
        if node is not None and self.capabilities:
            node = msgspec.structs.replace(node, capabilities=(), cap_map={})
        return msgspec.structs.replace(
            response,
            node=node,
            peers=self._peers(response.peers),
            peers_changed=self._peers(response.peers_changed),
            peers_changed_patch=tuple(map(self._patch, response.peers_changed_patch)),
        )

    def _peers(self, peers: tuple[WireNode, ...]) -> tuple[WireNode, ...]:
        return tuple(map(self._peer, peers))

    def _peer(self, peer: WireNode) -> WireNode:
        if self.endpoints:
            peer = msgspec.structs.replace(peer, endpoints=())
        return msgspec.structs.replace(peer, home_derp=0, derp="") if self.home_relays else peer

    def _patch(self, patch: PeerChange) -> PeerChange:
        if self.endpoints:
            patch = msgspec.structs.replace(patch, endpoints=None)
        return msgspec.structs.replace(patch, derp_region=0) if self.home_relays else patch


def strip_switches(environment: Mapping[str, str]) -> Strip:
    """From the variables that tailscaled reads, too. Raises MeshdError "usage"."""
    return Strip(
        endpoints=switch(environment, "TS_DEBUG_STRIP_ENDPOINTS"),
        home_relays=switch(environment, "TS_DEBUG_STRIP_HOME_DERP"),
        capabilities=switch(environment, "TS_DEBUG_STRIP_CAPS"),
    )
