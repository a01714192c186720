"""What the LocalAPI asks of the node it serves.

The routes know nothing of engines, sockets or control clients: everything they answer comes through the one
protocol below. `meshd.node.backend.Backend` implements it; tests use a fake.

Values cross this border as JSON-ready data: `dict`, `list`, `str`, `int`, `float`, `bool` and `None`, with the
field names, presence rules and null lists that LocalAPI clients expect (absent times are
`0001-01-01T00:00:00Z`). The routes add indentation, headers and status codes, nothing else.

Failures are `MeshdError`. Its `code` picks the HTTP status:

    invalid 400   denied 403   not_found 404   conflict 409   precondition 412
    internal 500  unsupported 501  unavailable 503

and its `message` is the text a user reads. Any other exception is a bug: the server logs it and answers 500.

All methods are called on the event loop. The plain ones must return without blocking; the `async` ones may take as
long as they need and are cancelled when the client goes away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal, Protocol

from meshd.base.addr import IPAddress
from meshd.base.keys import NodePublic

JSON = dict[str, Any]
"""A JSON object; see the module text for its rules."""

PingKind = Literal["disco", "TSMP", "ICMP", "peerapi"]
"""Ping types by the names that clients put into the `type` parameter."""

WATCH_ENGINE = 1
"""Watch mask bit: engine statistics every two seconds, in addition to events."""
WATCH_INITIAL_STATE = 2
"""Watch mask bit: the first notify has `SessionID`, `State` and, where a login is pending, `BrowseToURL`."""
WATCH_INITIAL_PREFS = 4
"""Watch mask bit: the first notify has `Prefs`."""
WATCH_INITIAL_NETMAP = 8
"""Watch mask bit: the first notify has `NetMap`, and `SelfChange` with this node alone."""
WATCH_NO_PRIVATE_KEYS = 16
"""Watch mask bit: kept for compatibility; private keys never leave the daemon through this bus."""
WATCH_INITIAL_HEALTH = 128
"""Watch mask bit: the first notify has `Health`."""


class LocalBackend(Protocol):
    """One node, as local programs see it. Every method may be called in every login state."""

    # -- reading ---------------------------------------------------------------------------------------------

    def status(self, *, peers: bool = True) -> JSON:
        """The whole status. With `peers` false the `Peer` member is `None`.

        Keys: Version TUN BackendState HaveNodeKey? AuthURL TailscaleIPs Self ExitNodeStatus? Health MagicDNSSuffix
        CurrentTailnet CertDomains ExtraRecords Peer User ClientVersion.
        """
        ...

    def status_parts(self) -> tuple[JSON, Iterator[str]]:
        """The whole status; when `Peer` is empty, its members follow, each as JSON text at its depth."""
        ...

    def prefs(self) -> JSON:
        """The current preferences, every key in `Config` replaced by its zero form."""
        ...

    def check_prefs(self, prefs: Mapping[str, Any]) -> None:
        """Judge a full preferences object without applying it.

        Raises:
            MeshdError: "invalid", with every complaint in the message.
        """
        ...

    def whois(self, ip: IPAddress, port: int, proto: str, at: IPAddress | None = None) -> JSON | None:
        """Who is behind a mesh address (our own included), or behind a proxied local port.

        `{Node, UserProfile, CapMap}`, CapMap being what the peer may do here, None for nothing special. `at` asks what
        it may do at this address instead of ours.

        `port` is 0 when the caller named an address alone; `proto` is "tcp", "udp" or "" for any.
        None: nobody.
        """
        ...

    def whois_node(self, key: NodePublic, at: IPAddress | None = None) -> JSON | None:
        """As `whois`, by node key."""
        ...

    def peer_by_id(self, node_id: int) -> JSON | None:
        """One node of the map (self included) as the map sent it, or None."""
        ...

    def user_profile(self, user_id: int) -> JSON | None:
        """One user of the map: `{ID, LoginName, DisplayName, …}`, or None."""
        ...

    def profiles(self) -> list[JSON]:
        """All login profiles, in a stable order; empty before the first login."""
        ...

    def current_profile(self) -> JSON:
        """The profile in use; all fields zero before its first login."""
        ...

    def derp_map(self) -> JSON | None:
        """The relay map in use, None before the first netmap."""
        ...

    def packet_filter_rules(self) -> list[JSON] | None:
        """The filter rules in effect as the control server wrote them, None before the first netmap."""
        ...

    def packet_filter_matches(self) -> list[JSON] | None:
        """The same rules with every address worked out: `{IPProto Srcs SrcCaps Dsts Caps}`."""
        ...

    def has_netmap(self) -> bool:
        """Whether a network map is in use."""
        ...

    def has_capability(self, name: str) -> bool:
        """Whether the network gave this node a capability."""
        ...

    def dns_config(self) -> JSON:
        """The DNS settings of the network as control sent them ("unavailable" before the first netmap)."""
        ...

    def os_dns(self) -> JSON:
        """`{Nameservers, SearchDomains, MatchDomains}` of this system."""
        ...

    def cert_domains(self) -> list[str] | None:
        """Names that this node may have certificates for, None for none."""
        ...

    def services(self) -> JSON:
        """Services of the network that this node may use, by name ("unavailable" before the first netmap)."""
        ...

    def path_changes(self, ip: IPAddress) -> list[JSON]:
        """The log of a peer's path, `{When, What, From?, To?}`, oldest first. MeshdError for no peer."""
        ...

    def lock_status(self) -> JSON:
        """Tailnet lock as seen from here."""
        ...

    def suggest_exit_node(self) -> JSON:
        """`{ID, Name, Location?}`, empty strings for no suggestion. MeshdError while our relay is not known."""
        ...

    def check_udp_gro(self) -> str:
        """What keeps UDP from being forwarded fast; "" when nothing does."""
        ...

    def update_progress(self) -> list[JSON]:
        """What came of the last attempt to update this program: `{status, message, version}`, oldest first."""
        ...

    def marks_sockets(self) -> bool:
        """Whether our own packets are told apart by a socket mark, or need not be."""
        ...

    def dial_target(self, name: str) -> tuple[str, bool]:
        """Where a name or address leads: the address of a node for its name, and whether it is in the network."""
        ...

    async def look_up(self, name: str, port: int) -> list[tuple[int, Any]]:
        """Family and socket address of what the system's resolver finds. OSError when it does not."""
        ...

    def metrics(self) -> str:
        """All internal counters in Prometheus text form, for people who debug the daemon."""
        ...

    def user_metrics(self) -> str:
        """The few metrics with stable names, in Prometheus text form."""
        ...

    def kept(self, name: str) -> JSON:
        """What programs keep under a name with the profile in use; empty for nothing."""
        ...

    def check_ip_forwarding(self) -> str:
        """What keeps this host from forwarding for others; "" when nothing does."""
        ...

    def is_operator(self, uid: int) -> bool:
        """Whether the preference OperatorUser names this uid."""
        ...

    def operators_may_stop(self) -> bool:
        """Whether the system policy lets operators end this daemon."""
        ...

    def config_locked(self) -> bool:
        """Whether a configuration file alone decides about preferences."""
        ...

    def policy(self) -> JSON:
        """The system policy in force: `{Summary, Settings?}`."""
        ...

    # -- watching --------------------------------------------------------------------------------------------

    def watch(self, mask: int) -> AsyncIterator[JSON]:
        """Notifies from now on, in order, the initial one first where the mask asks for a beginning, whether or not
        there is something to say.

        The watcher counts from the call on, not from the first iteration, so that nothing between the two is lost.
        The queue behind it is bounded: a reader that falls behind finds the iterator ended, and starts over.
        After every change of this node itself (key, name, addresses, expiry, capabilities) a notify has `SelfChange`,
        the node as in a netmap: clients that log in again wait for it to carry another key. So it is after changes of
        the network's DNS configuration or domain, which clients then ask for.
        `aclose()` (or cancelling the reader) unsubscribes. Keys with no value are absent; the routes fill in those
        that clients expect as null.
        """
        ...

    # -- acting ----------------------------------------------------------------------------------------------

    async def edit_prefs(self, masked: Mapping[str, Any], reason: str = "") -> JSON:
        """Change the preferences whose `<Name>Set` is true (`AutoUpdateSet` is an object), store, apply.

        A marked preference that is absent from `masked` gets its zero value (clients leave out empty strings).
        The result is judged as by `check_prefs` ("invalid"): not every client asks that first, or heeds its answer.
        Unknown names are ignored, values of a wrong type are "invalid". Returns the new preferences once they are
        on disk; applying them to tunnel and host goes on afterwards. `reason` is what the user says of disconnecting.
        """
        ...

    async def reload_config(self) -> bool:
        """Read the configuration file again and carry it out; False when this node runs without one.

        MeshdError, with nothing changed, when the file is no good.
        """
        ...

    async def reload_policy(self) -> None:
        """Read the system policy again and hold it over the preferences."""
        ...

    async def start(self, options: Mapping[str, Any]) -> None:
        """(Re)start the login machine: `{"UpdatePrefs": Prefs|None, "AuthKey": str, "FrontendLogID": str}`.

        UpdatePrefs replaces the preferences (all but `Config`, the keys); members that it lacks get zero values.

        Returns when the new preferences are stored; progress arrives on the bus.
        """
        ...

    async def login_interactive(self) -> None:
        """Ask control for a login URL; it arrives on the bus as `BrowseToURL` (again, if one is pending)."""
        ...

    async def logout(self, reason: str = "") -> None:
        """Expire the node key at control (waiting a few seconds for its answer) and forget it here."""
        ...

    async def reset_auth(self) -> None:
        """Forget all profiles and keys of this machine's logins, without telling control."""
        ...

    async def new_profile(self, *, operator_stays: bool) -> None:
        """Leave the current profile and begin an empty, unsaved one, with its operator or without any."""
        ...

    async def switch_profile(self, profile_id: str) -> None:
        """Make another profile current ("not_found")."""
        ...

    async def delete_profile(self, profile_id: str) -> None:
        """Delete a profile ("not_found"); deleting the current one begins an empty one."""
        ...

    async def ping(self, ip: IPAddress, kind: PingKind, size: int) -> JSON:
        """One ping; `size` (disco only) pads the message to that many bytes on the wire, 0 for none.

        Returns `{IP NodeIP NodeName Err LatencySeconds Endpoint PeerRelay DERPRegionID DERPRegionCode PeerAPIPort?
        PeerAPIURL? IsLocalIP?}`. A ping that cannot succeed has `Err`; one nobody answers never returns: the
        client decides how long it waits, and is gone when it has.
        """
        ...

    async def dns_query(self, name: str, kind: str) -> JSON:
        """One question ("A", "AAAA", ...; "" is A), answered as this node resolves names.

        `{Bytes, Resolvers}`: the response message in base64, and the resolvers in charge of that name or None.

        Raises:
            MeshdError: "invalid" for an unknown type, "internal" when nobody answers.
        """
        ...

    async def relay_report(self, region: str) -> JSON:
        """Look closely at a relay region, by number or code: `{Info, Warnings, Errors}`, lists of text or None."""
        ...

    async def netcheck(self, bound: tuple[IPAddress | None, int] | None = None) -> JSON:
        """Probe the network now (STUN, relay latency, port mapping) and report.

        ``bound``: from sockets with this address (None for any) and port (0 for any) instead of the node's own.

        `{Now UDP IPv6 IPv4 IPv6CanSend IPv4CanSend OSHasIPv6 ICMPv4 MappingVariesByDestIP UPnP PMP PCP PreferredDERP
        RegionLatency RegionV4Latency RegionV6Latency GlobalV4Counters GlobalV6Counters GlobalV4 GlobalV6
        CaptivePortal}`; latencies are integer nanoseconds by region id (as a string key), unknown booleans are None,
        GlobalV4 and GlobalV6 are "ip:port" or "".
        """
        ...

    async def set_push_token(self, token: str) -> None:
        """Tell control where a graphical client of this node takes push messages; "" for nowhere."""
        ...

    async def set_expiry_sooner(self, expiry: float) -> None:
        """Ask control to expire the node key at that unix time, which must be sooner than its present expiry."""
        ...

    async def debug(self, action: str, body: bytes) -> Any:
        """One debugging action: "rebind", "restun", "force-netmap-update", "break-derp-conns", "pick-new-derp", …

        Returns None (the client reads "done") or JSON-ready data.

        Raises:
            MeshdError: "not_found" for an action that this daemon does not have.
        """
        ...

    async def enable_udp_gro(self) -> None:
        """Let this system forward UDP in batches. MeshdError says why that failed."""
        ...

    async def use_exit_node(self, enabled: bool) -> JSON:
        """Switch the exit node off, or the last one on again; the new preferences. MeshdError when there was none."""
        ...

    async def ask_control(self, method: str, path: str, body: JSON) -> tuple[int, bytes]:
        """A request to the coordination server; `NodeKey` is added. Its status and body, whatever they are.

        Raises:
            MeshdError: "unavailable" before the first netmap, others when the server cannot be asked.
        """
        ...

    async def disconnect_control(self) -> None:
        """Leave the coordination server, which takes this node for gone, until a user logs in or says "up"."""
        ...

    async def start_update(self) -> None:
        """Try to update this program; `update_progress` tells the rest."""
        ...

    async def upload_metrics(self, updates: list[Any]) -> None:
        """Count for a local program: `[{name, type, value, op?}]` ("invalid", with nothing counted)."""
        ...

    async def log_component(self, component: str, seconds: int) -> None:
        """Log a part of the daemon in detail for a while ("invalid" for a name it does not know)."""
        ...

    def logs_component(self, component: str) -> bool:
        """Whether a part of the daemon is logged in detail now."""
        ...

    def capture(self) -> AsyncIterator[bytes]:
        """Packets and disco frames from now on as a pcap stream (link type 147) that never ends by itself.

        `aclose()` ends it. A reader that falls behind misses packets. MeshdError ("unsupported") where nothing can
        be captured.
        """
        ...

    def keep(self, name: str, value: JSON) -> None:
        """Keep it, in the place of what was there. MeshdError where nothing can be kept."""
        ...

    async def profile(self, kind: Literal["profile", "heap"], seconds: float) -> bytes:
        """Where the daemon spends its time for so long from now on, or its memory now: a profile for pprof.

        Raises:
            MeshdError: "conflict" while another one of its time is taken.
        """
        ...

    async def write_state(self, key: str, value: str) -> None:
        """Store an entry as it is, for developers of the daemon."""
        ...

    def bug_report(self, note: str, *, diagnose: bool) -> str:
        """Write the state of the node into the log, beside a marker that is returned. Any user may ask for it."""
        ...

    async def shutdown(self) -> None:
        """Stop the daemon, as SIGTERM does. Returns before it has stopped, so that the answer can be sent."""
        ...
