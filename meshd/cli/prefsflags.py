"""The flags that stand for preferences: shared by `up`, `login`, `set` and `get`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from meshd.cli.client import JSON
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag

if TYPE_CHECKING:
    from meshd.base.addr import IPPrefix

DEFAULT_CONTROL_URL = "https://controlplane.tailscale.com"

_SYNONYMS = frozenset((DEFAULT_CONTROL_URL, "https://login.tailscale.com"))

_EXIT_ROUTES = ("0.0.0.0/0", "::/0")

_NETFILTER_MODES = ("off", "nodivert", "on")

LINUX_ONLY = frozenset(("netfilter-mode", "snat-subnet-routes", "stateful-filtering"))

AUTO_EXIT_NODE = "auto:"
"""Before an expression by which the node is to choose its exit node itself."""

PREFS_OF_FLAG: dict[str, tuple[str, ...]] = {
    "accept-dns": ("CorpDNS",),
    "accept-routes": ("RouteAll",),
    "advertise-connector": ("AppConnector",),
    "advertise-exit-node": ("AdvertiseRoutes",),
    "advertise-routes": ("AdvertiseRoutes",),
    "advertise-tags": ("AdvertiseTags",),
    "auto-update": ("AutoUpdate.Apply",),
    "exit-node": ("ExitNodeIP", "ExitNodeID"),
    "exit-node-allow-lan-access": ("ExitNodeAllowLANAccess",),
    "hostname": ("Hostname",),
    "login-server": ("ControlURL",),
    "netfilter-mode": ("NetfilterMode",),
    "nickname": ("ProfileName",),
    "operator": ("OperatorUser",),
    "relay-server-port": ("RelayServerPort",),
    "relay-server-static-endpoints": ("RelayServerStaticEndpoints",),
    "report-posture": ("PostureChecking",),
    "shields-up": ("ShieldsUp",),
    "snat-subnet-routes": ("NoSNAT",),
    "ssh": ("RunSSH",),
    "stateful-filtering": ("NoStatefulFiltering",),
    "update-check": ("AutoUpdate.Check",),
    "webclient": ("RunWebClient",),
}
"""The preferences that a flag changes."""

ACCEPT_RISK = Flag("accept-risk", STRING, "", "do not ask before an action with this risk: lose-ssh or all")

_ADVERTISE_ROUTES_HELP = (
    'routes to offer to other nodes, separated by commas (such as "10.0.0.0/8,192.168.0.0/24"), or nothing to '
    "offer none"
)

_EXIT_NODE_HELP = (
    'node (address or name) that carries internet traffic, "auto:any" for the one best reached, or nothing for none'
)

_COMMON = [
    Flag("accept-dns", BOOL, True, "use the DNS settings of the network"),
    Flag("accept-routes", BOOL, False, "use the routes that other nodes offer"),
    Flag("advertise-connector", BOOL, False, "offer to be an app connector"),
    Flag("advertise-exit-node", BOOL, False, "offer to carry other nodes' traffic to the internet"),
    Flag("advertise-routes", STRING, "", _ADVERTISE_ROUTES_HELP),
    Flag("exit-node", STRING, "", _EXIT_NODE_HELP),
    Flag("exit-node-allow-lan-access", BOOL, False, "reach the local network directly while using an exit node"),
    Flag("hostname", STRING, "", "name to use instead of the one of the operating system"),
    Flag("operator", STRING, "", "user who may control meshd without root"),
    Flag("report-posture", BOOL, False, "let the coordination server ask about the state of this device"),
    Flag("shields-up", BOOL, False, "refuse incoming connections"),
    Flag("ssh", BOOL, False, "run an SSH server for the network, governed by its policy"),
]
_LINUX = [
    Flag("netfilter-mode", STRING, "on", "what to do with the host's packet filter: on, nodivert or off"),
    Flag("snat-subnet-routes", BOOL, True, "hide the senders of traffic into advertised routes behind this node"),
    Flag("stateful-filtering", BOOL, False, "track forwarded connections and drop what belongs to none"),
]


def pref_flags() -> list[Flag]:
    """The preference flags that `up`, `login` and `set` have in common on this system."""
    return _COMMON + (_LINUX if sys.platform == "linux" else [])


def is_login_server_synonym(url: str) -> bool:
    """Whether a control URL is one of the two names of the default server."""
    return url in _SYNONYMS


def advertised_routes(text: str, exit_node: bool) -> list[str] | None:
    """The routes of --advertise-routes and --advertise-exit-node, the shortest first; None for none.

    Raises:
        CliError: something is not a prefix, has host bits, is half of a default route or no via route of one site.
    """
    from ipaddress import ip_network

    found = {}
    for word in text.split(",") if text else []:
        try:
            network = ip_network(word, strict=False)
        except ValueError:
            network = None
        if network is None or "/" not in word:
            raise CliError(f'"{word}" is not a valid IP address or CIDR prefix')
        if str(network.network_address) != word.partition("/")[0].lower() and network != _strict(word):
            raise CliError(f"{word} has non-address bits set; expected {network}")
        _check_via(network)
        found[str(network)] = network
    halves = [route for route in _EXIT_ROUTES if route in found]
    if len(halves) == 1:
        missing = next(route for route in _EXIT_ROUTES if route not in found)
        raise CliError(f"{halves[0]} advertised without {missing}, please also advertise {missing}")
    if exit_node:
        for route in _EXIT_ROUTES:
            found[route] = ip_network(route)
    ordered = sorted(found.values(), key=lambda n: (n.prefixlen, n.version, int(n.network_address)))
    return [str(network) for network in ordered] or None


def _strict(word: str) -> Any:
    from ipaddress import ip_network

    try:
        return ip_network(word, strict=True)
    except ValueError:
        return None


def _check_via(network: IPPrefix) -> None:
    """CliError for a via route of more than one site, or of a site that cannot be."""
    from meshd.base.ranges import is_via

    if not is_via(network):
        return
    if network.prefixlen < 96:
        raise CliError(f"{network} 4-in-6 prefix must be at least a /96")
    site = int(network.network_address) >> 32 & 0xFFFFFFFF
    if site > 0xFFFF:
        raise CliError(f"route {network} contains invalid site ID {site:08x}; must be 0xffff or less")


def without_exit_routes(routes: list[str] | None) -> list[str]:
    """The advertised routes that are not the internet."""
    return [route for route in routes or [] if route not in _EXIT_ROUTES]


def has_exit_routes(routes: list[str] | None) -> bool:
    """Whether both default routes are advertised."""
    return all(route in (routes or []) for route in _EXIT_ROUTES)


def tags_of(text: str) -> list[str] | None:
    """The tags of --advertise-tags, `tag:` added where missing; CliError for what cannot be one."""
    if not text:
        return None
    tags = [tag if ":" in tag else "tag:" + tag for tag in text.split(",")]
    for tag in tags:
        kind, _, name = tag.partition(":")
        if kind != "tag":
            raise CliError(f"tag: \"{tag}\": tags must start with 'tag:'")
        if not name:
            raise CliError(f'tag: "{tag}": tag names must not be empty')
        if not (name[0].isascii() and name[0].isalpha()):
            raise CliError(f"tag: \"{tag}\": tag names must start with a letter, after 'tag:'")
        if not all(c.isascii() and (c.isalnum() or c == "-") for c in name):
            raise CliError(f'tag: "{tag}": tag names can only contain numbers, letters, or dashes')
    return tags


def check_hostname(name: str) -> None:
    """CliError unless every label of the name could stand in DNS."""
    if len(name) > 254:
        raise CliError(f'"{name}" is too long to be a DNS name')
    for label in name.removesuffix(".").split(".") if name else []:
        if not label or len(label) > 63:
            raise CliError(f'hostname "{name}" has a label that is empty or longer than 63 characters')
        if not (label[0].isalnum() and label[-1].isalnum()):
            raise CliError(f'"{label}" is not a valid DNS label: must start and end with a letter or number')
        if not all(c.isascii() and (c.isalnum() or c == "-") for c in label):
            raise CliError(f'"{label}" is not a valid DNS label: contains invalid character')


def netfilter_mode(text: str) -> tuple[int, str]:
    """The number of a --netfilter-mode, and what the user should know about it ("" for nothing)."""
    if text not in _NETFILTER_MODES:
        raise CliError(f'invalid value --netfilter-mode="{text}"')
    number = _NETFILTER_MODES.index(text)
    notes = ["netfilter=off; configure the packet filter yourself.", "netfilter=nodivert; add the jumps yourself.", ""]
    return number, notes[number]


def netfilter_name(number: object) -> str:
    """The word for a NetfilterMode."""
    return _NETFILTER_MODES[number] if isinstance(number, int) and 0 <= number <= 2 else f"???{number}"


def relay_server_port(text: str) -> int | None:
    """The number of --relay-server-port, 0 for any; None switches the server off."""
    if text and not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise CliError(f'failed to set relay server port: "{text}" is no number from 0 to 65535')
    return int(text) if text else None


def relay_server_endpoints(text: str) -> list[str] | None:
    """The addresses of --relay-server-static-endpoints in a stable order, None for none."""
    from meshd.base.addr import AddrPort

    found = set()
    for word in text.split(",") if text else []:
        try:
            found.add(AddrPort.parse(word))
        except ValueError:
            raise CliError(f'failed to set relay server static endpoints: "{word}" is not a valid IP:port') from None
    return [str(e) for e in sorted(found, key=lambda e: (e.ip.version, int(e.ip), e.port))] or None


def mark_changed(masked: JSON, flag: str) -> None:
    """Set the mask members of the preferences behind a flag."""
    for name in PREFS_OF_FLAG.get(flag, ()):
        outer, dot, inner = name.partition(".")
        if dot:
            masked.setdefault(outer + "Set", {})[inner + "Set"] = True
        else:
            masked[name + "Set"] = True


def exit_node_address(prefs: JSON, status: JSON) -> str:
    """The exit node in use as the flag takes it: "auto:…" where the node chooses, else its address, found through the
    status where only its ID is known; "" for none."""
    if prefs.get("AutoExitNode"):
        return f"{AUTO_EXIT_NODE}{prefs['AutoExitNode']}"
    if prefs.get("ExitNodeIP"):
        return str(prefs["ExitNodeIP"])
    wanted = prefs.get("ExitNodeID")
    for peer in (status.get("Peer") or {}).values() if wanted else ():
        if peer.get("ID") == wanted and peer.get("TailscaleIPs"):
            return str(peer["TailscaleIPs"][0])
    return ""


def flag_value(flag: str, prefs: JSON, exit_node: str) -> bool | str | None:
    """What a flag would have to say to give these preferences; None for a flag that is no preference."""
    routes = prefs.get("AdvertiseRoutes")
    match flag:
        case "advertise-routes":
            return ",".join(without_exit_routes(routes))
        case "advertise-exit-node":
            return has_exit_routes(routes)
        case "advertise-tags":
            return ",".join(prefs.get("AdvertiseTags") or [])
        case "advertise-connector":
            return bool((prefs.get("AppConnector") or {}).get("Advertise"))
        case "exit-node":
            return exit_node
        case "netfilter-mode":
            return netfilter_name(prefs.get("NetfilterMode", 2))
        case "snat-subnet-routes":
            return not prefs.get("NoSNAT")
        case "stateful-filtering":
            return prefs.get("NoStatefulFiltering") not in (True, "true")
        case "update-check":
            return bool((prefs.get("AutoUpdate") or {}).get("Check"))
        case "auto-update":
            return (prefs.get("AutoUpdate") or {}).get("Apply") in (True, "true")
        case "relay-server-port":
            port = prefs.get("RelayServerPort")
            return "" if port is None else str(port)
        case "relay-server-static-endpoints":
            return ",".join(prefs.get("RelayServerStaticEndpoints") or [])
        case "login-server" | "hostname" | "operator" | "nickname":
            return str(prefs.get(PREFS_OF_FLAG[flag][0]) or "")
        case _ if flag in PREFS_OF_FLAG:
            return bool(prefs.get(PREFS_OF_FLAG[flag][0]))
    return None


def flag_argument(flag: str, value: bool | str) -> str:
    """A flag with its value as one would type it."""
    if value is True:
        return f"--{flag}"
    if value is False:
        return f"--{flag}=false"
    if value == "":
        return f"--{flag}="
    from shlex import quote

    return f"--{flag}={quote(value)}"
