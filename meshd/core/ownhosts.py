"""Names that this node must find before the network can carry anything: its coordination server and its relays.

With an exit node chosen all questions leave through it, these included. Once it is away nothing would ever find the
coordination server again, so whoever knows the host's own network is asked for these names, as before the network was
there. Where packets to these hosts go is no secret beside the tunnel anyway.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from meshd.core.dnsplan import normal
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs


def needed_beside(name: str, netmap: Netmap | None, prefs: Prefs) -> bool:
    """Whether a normal name is to be asked for beside the tunnel."""
    if not name or not prefs.wants_exit_node:
        return False
    try:
        control = urlsplit(prefs.effective_control_url()).hostname or ""
    except ValueError:
        control = ""
    if name == normal(control):
        return True
    relays = netmap.derp_map if netmap is not None else None
    regions = relays.regions if relays is not None else None
    servers = (server for region in (regions or {}).values() for server in region.nodes)
    return any(name == normal(server.host_name) for server in servers)
