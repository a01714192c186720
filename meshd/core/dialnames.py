"""Where a connection by name goes, for programs that connect through this node."""

from __future__ import annotations

from meshd.base.addr import IPAddress, parse_ip
from meshd.core.netmap import Netmap, name_key


def dial_address(netmap: Netmap, name: str) -> IPAddress | None:
    """The address behind a name of the network: a node (by full or short name), or an extra record without type.

    The first address of the node, but no IPv4 one for a node that has none itself. None: the name is none of ours.
    """
    node = netmap.node_by_name(name)
    if node is not None and node.ips:
        only_new = all(ip.version == 6 for ip in netmap.self_node.ips)
        usable = [ip for ip in node.ips if ip.version == 6] if only_new else []
        return (usable or node.ips)[0]
    wanted = name_key(name)
    for record in netmap.dns.extra_records if netmap.dns is not None else ():
        if wanted and not record.type and name_key(record.name) == wanted:
            try:
                return parse_ip(record.value)
            except ValueError:
                continue  # control sent something that is no address: other records may be better
    return None
