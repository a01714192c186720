"""A node that exists only as data: implements LocalBackend for tests of routes and of the command line."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from meshd.base.errors import MeshdError
from meshd.io.clientlookup import ClientLookups

ZERO_TIME = "0001-01-01T00:00:00Z"
SELF_KEY = "nodekey:" + "ac" * 32
PEER_KEY = "nodekey:" + "9e" * 32
LOGIN_URL = "http://control.test/register/abc"
ADMIN_URL = "https://login.tailscale.com/admin"

DEFAULT_PREFS: dict[str, Any] = {
    "ControlURL": "http://control.test",
    "RouteAll": False,
    "ExitNodeID": "",
    "ExitNodeIP": "",
    "InternalExitNodePrior": "",
    "ExitNodeAllowLANAccess": False,
    "CorpDNS": True,
    "RunSSH": False,
    "RunWebClient": False,
    "WantRunning": True,
    "LoggedOut": False,
    "ShieldsUp": False,
    "AdvertiseTags": None,
    "Hostname": "",
    "NotepadURLs": False,
    "AdvertiseRoutes": None,
    "AdvertiseServices": None,
    "Sync": None,
    "NoSNAT": False,
    "NoStatefulFiltering": True,
    "NetfilterMode": 2,
    "AutoUpdate": {"Check": True, "Apply": False},
    "AppConnector": {"Advertise": False},
    "PostureChecking": False,
    "NetfilterKind": "",
    "RemoteConfig": False,
    "DriveShares": None,
    "Config": {
        "PrivateNodeKey": "privkey:" + "00" * 32,
        "OldPrivateNodeKey": "privkey:" + "00" * 32,
        "UserProfile": {"ID": 1, "LoginName": "bench", "DisplayName": "bench"},
        "NetworkLockKey": "nlpriv:" + "00" * 64,
        "NodeID": "2",
    },
}

STATES = {"NoState": 0, "NeedsLogin": 2, "NeedsMachineAuth": 3, "Stopped": 4, "Starting": 5, "Running": 6}


def peer_status(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "ID": "1",
        "NodeID": 1,
        "PublicKey": PEER_KEY,
        "HostName": "node-a",
        "DNSName": "node-a.mesh.test.",
        "OS": "linux",
        "UserID": 1,
        "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
        "AllowedIPs": ["100.64.0.1/32", "fd7a:115c:a1e0::1/128"],
        "Addrs": None,
        "CurAddr": "10.99.0.11:41641",
        "Relay": "test",
        "PeerRelay": "",
        "RxBytes": 1126176868,
        "TxBytes": 1319172,
        "Created": "2026-11-23T09:17:24.062351127Z",
        "LastWrite": ZERO_TIME,
        "LastSeen": ZERO_TIME,
        "LastHandshake": ZERO_TIME,
        "Online": True,
        "ExitNode": False,
        "ExitNodeOption": False,
        "Active": True,
        "PeerAPIURL": ["http://100.64.0.1:58436"],
        "TaildropTarget": 0,
        "NoFileSharingReason": "",
        "InNetworkMap": True,
        "InMagicSock": True,
        "InEngine": True,
    }
    return base | changes


def node(number: int = 1) -> dict[str, Any]:
    letter = "ab"[number - 1]
    return {
        "ID": number,
        "StableID": str(number),
        "Name": f"node-{letter}.mesh.test.",
        "User": 1,
        "Key": PEER_KEY if number == 1 else SELF_KEY,
        "Machine": "mkey:" + "1b" * 32,
        "DiscoKey": "discokey:" + "5b" * 32,
        "Addresses": [f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number}/128"],
        "AllowedIPs": [f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number}/128"],
        "Endpoints": ["10.99.0.11:41641"],
        "HomeDERP": 900,
        "Hostinfo": {"OS": "linux", "Hostname": f"node-{letter}"},
        "Created": "2026-11-23T09:17:24.062351127Z",
        "Cap": 113,
        "Online": True,
        "MachineAuthorized": True,
        "ComputedName": f"node-{letter}",
        "ComputedNameWithHost": f"node-{letter}",
    }


class Watch:
    """One subscription; `aclose` is recorded."""

    def __init__(self, owner: FakeBackend) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.owner = owner
        owner.watches.add(self)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> dict[str, Any]:
        item = await self.queue.get()
        if item is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        self.owner.watches.discard(self)


class FakeBackend:
    """Two nodes, `node-b` (self) and `node-a`. Attributes are there to be changed by tests."""

    def __init__(self, state: str = "Running") -> None:
        self.state = state
        self.auth_url = ""
        self.have_node_key = True
        self.health: list[str] = []
        self.stored = copy.deepcopy(DEFAULT_PREFS)
        self.peers = {PEER_KEY: peer_status()}
        self.calls: list[tuple[Any, ...]] = []
        self.stoppable = False
        self.logs_magicsock = False
        self.watches: set[Watch] = set()
        self.operators: set[int] = set()
        self.forwarding_warning = ""
        self.next_state_after_start = "Running"
        self.login_url_after_start = ""
        self.ping_answer: dict[str, Any] | None = {}
        self.profile_list: list[dict[str, Any]] = [
            {
                "ID": "df87",
                "Name": "bench",
                "NetworkProfile": {"MagicDNSName": "mesh.test", "DomainName": "10.99.0.1", "DisplayName": ""},
                "Key": "profile-df87",
                "UserProfile": {"ID": 1, "LoginName": "bench", "DisplayName": "bench"},
                "NodeID": "2",
                "LocalUserID": "",
                "ControlURL": "http://control.test",
            }
        ]
        self.current = "df87"
        self.capabilities: set[str] = set()
        self.certificates: list[str] | None = None
        self.updates: list[dict[str, Any]] = []
        self.dial_targets: dict[str, tuple[str, bool]] = {}
        self.things: dict[str, dict[str, Any]] = {}
        self.control_answer = (501, b"Not implemented yet\n")

    # -- for tests

    def notify(self, **members: Any) -> None:
        for watch in self.watches:
            watch.queue.put_nowait(members)

    def enter(self, state: str) -> None:
        self.state = state
        self.notify(State=STATES[state])

    # -- LocalBackend

    def status_parts(self) -> tuple[dict[str, Any], Iterator[str]]:
        return self.status(), iter(())

    def status(self, *, peers: bool = True) -> dict[str, Any]:
        logged_in = self.state not in ("NeedsLogin", "NoState")
        own = peer_status(
            ID="2", NodeID=2, PublicKey=SELF_KEY, HostName="node-b", DNSName="node-b.mesh.test.", CurAddr="",
            TailscaleIPs=["100.64.0.2", "fd7a:115c:a1e0::2"], Addrs=["10.99.0.12:41641"], RxBytes=0, TxBytes=0,
            AllowedIPs=["100.64.0.2/32", "fd7a:115c:a1e0::2/128"], Active=False, InMagicSock=False, InEngine=False,
        )  # fmt: skip
        if not logged_in:
            own |= {"ID": "", "NodeID": 0, "DNSName": "", "UserID": 0, "TailscaleIPs": None}
        return {
            "Version": "0.1.0-meshd",
            "TUN": True,
            "BackendState": self.state,
            **({"HaveNodeKey": True} if self.have_node_key else {}),
            "AuthURL": self.auth_url,
            "TailscaleIPs": own["TailscaleIPs"],
            "Self": own,
            "Health": self.health,
            "MagicDNSSuffix": "mesh.test" if logged_in else "",
            "CurrentTailnet": {"Name": "10.99.0.1", "MagicDNSSuffix": "mesh.test", "MagicDNSEnabled": True}
            if logged_in
            else None,
            "CertDomains": None,
            "ExtraRecords": None,
            "Peer": self.peers if peers else None,
            "User": {"1": {"ID": 1, "LoginName": "bench", "DisplayName": "bench"}} if logged_in else None,
            "ClientVersion": None,
        }

    def prefs(self) -> dict[str, Any]:
        return self.stored

    def check_prefs(self, prefs: Any) -> None:
        if prefs.get("Hostname") == "bad":
            raise MeshdError("hostname 'bad' is bad", code="invalid")

    def whois(self, ip: Any, port: int, proto: str, at: Any = None) -> dict[str, Any] | None:
        profile = {"ID": 1, "LoginName": "bench", "DisplayName": "bench"}
        caps = {"at": [str(at)]} if at is not None else None
        if str(ip) in ("100.64.0.1", "fd7a:115c:a1e0::1"):
            return {"Node": node(1), "UserProfile": profile, "CapMap": caps}
        if str(ip) == "100.64.0.2":
            return {"Node": node(2), "UserProfile": profile, "CapMap": caps}
        return None

    def whois_node(self, key: Any, at: Any = None) -> dict[str, Any] | None:
        from meshd.base.addr import parse_ip

        return self.whois(parse_ip("100.64.0.1"), 0, "", at) if key.text() == PEER_KEY else None

    def peer_by_id(self, node_id: int) -> dict[str, Any] | None:
        return node(node_id) if node_id in (1, 2) else None

    def user_profile(self, user_id: int) -> dict[str, Any] | None:
        return {"ID": 1, "LoginName": "bench", "DisplayName": "bench"} if user_id == 1 else None

    def profiles(self) -> list[dict[str, Any]]:
        return self.profile_list

    def current_profile(self) -> dict[str, Any]:
        for profile in self.profile_list:
            if profile["ID"] == self.current:
                return profile
        return {"ID": "", "Name": "", "Key": ""}

    def derp_map(self) -> dict[str, Any] | None:
        fields = {"Name": "900a", "RegionID": 900, "HostName": "10.99.0.1", "IPv4": "10.99.0.1"}
        region = {"RegionID": 900, "RegionCode": "test", "RegionName": "Test", "Nodes": [fields]}
        return {"Regions": {"900": region}}

    def packet_filter_rules(self) -> list[dict[str, Any]] | None:
        return [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}]

    def packet_filter_matches(self) -> list[dict[str, Any]] | None:
        dst = {"Net": "0.0.0.0/0", "Ports": {"First": 0, "Last": 65535}}
        return [{"IPProto": [6, 17], "Srcs": ["0.0.0.0/0"], "SrcCaps": None, "Dsts": [dst], "Caps": []}]

    def has_netmap(self) -> bool:
        return self.state not in ("NeedsLogin", "NoState")

    def has_capability(self, name: str) -> bool:
        return name in self.capabilities

    def dns_config(self) -> dict[str, Any]:
        return {"Routes": {"100.100.in-addr.arpa": []}, "Domains": ["mesh.test"], "Proxied": True}

    def os_dns(self) -> dict[str, Any]:
        return {"Nameservers": ["10.99.0.1"], "SearchDomains": [], "MatchDomains": []}

    def cert_domains(self) -> list[str] | None:
        return self.certificates

    def services(self) -> dict[str, Any]:
        return {}

    def path_changes(self, ip: Any) -> list[dict[str, Any]]:
        if str(ip) != "100.64.0.1":
            raise MeshdError("no matching peer")
        return [{"When": ZERO_TIME, "What": "bestAddr-update", "From": "", "To": "10.99.0.11:41641"}]

    def lock_status(self) -> dict[str, Any]:
        return {
            "Enabled": False, "Head": None, "PublicKey": "nlpub:" + "0a" * 32, "NodeKey": SELF_KEY,
            "NodeKeySigned": False, "NodeKeySignature": None, "TrustedKeys": None, "VisiblePeers": None,
            "FilteredPeers": None, "StateID": 0,
        }  # fmt: skip

    def suggest_exit_node(self) -> dict[str, Any]:
        return {"ID": "", "Name": ""}

    def check_udp_gro(self) -> str:
        return self.forwarding_warning

    def update_progress(self) -> list[dict[str, Any]]:
        return self.updates

    def marks_sockets(self) -> bool:
        return True

    def dial_target(self, name: str) -> tuple[str, bool]:
        return self.dial_targets.get(name, (name, False))

    async def look_up(self, name: str, port: int) -> list[tuple[int, Any]]:
        return await ClientLookups().look_up(name, port)

    def metrics(self) -> str:
        return "# TYPE meshd_packets counter\nmeshd_packets 1\n"

    def user_metrics(self) -> str:
        return "# TYPE tailscaled_advertised_routes gauge\ntailscaled_advertised_routes 0\n"

    def kept(self, name: str) -> dict[str, Any]:
        return self.things.get(name, {})

    def keep(self, name: str, value: dict[str, Any]) -> None:
        self.things[name] = value

    async def profile(self, kind: str, seconds: float) -> bytes:
        self.calls.append(("profile", kind, seconds))
        return b"\x1f\x8b"

    def check_ip_forwarding(self) -> str:
        return self.forwarding_warning

    def is_operator(self, uid: int) -> bool:
        return uid in self.operators

    def watch(self, mask: int) -> Watch:
        self.calls.append(("watch", mask))
        watch = Watch(self)
        first: dict[str, Any] = {}
        if mask & 2:
            first = {"SessionID": "0011223344556677", "State": STATES[self.state]}
            if self.auth_url:
                first["BrowseToURL"] = self.auth_url
        if mask & 4:
            first["Prefs"] = self.stored
        if first:
            watch.queue.put_nowait(first)
        return watch

    async def edit_prefs(self, masked: Any, reason: str = "") -> dict[str, Any]:
        self.calls.append(("edit_prefs", masked, reason) if reason else ("edit_prefs", masked))
        if masked.get("InternalExitNodePriorSet"):
            raise MeshdError("can't set Internal fields", code="invalid")
        if masked.get("HostnameSet"):
            self.check_prefs(masked)
        for name in self.stored:
            if masked.get(name + "Set"):
                value = masked.get(name)
                if name == "AutoUpdate":
                    self.stored[name] |= {k: v for k, v in value.items() if masked["AutoUpdateSet"].get(k + "Set")}
                else:
                    self.stored[name] = value
        if masked.get("OperatorUserSet"):
            self.stored["OperatorUser"] = masked.get("OperatorUser", "")
        if masked.get("ProfileNameSet"):
            self.stored["ProfileName"] = masked.get("ProfileName", "")
            self.profile_list[0]["Name"] = masked.get("ProfileName", "")
        if masked.get("WantRunningSet"):
            wanted = "Running" if masked.get("WantRunning") else "Stopped"
            if self.state in ("Running", "Stopped") and wanted != self.state:
                self.enter(wanted)
        return self.stored

    async def start(self, options: Any) -> None:
        self.calls.append(("start", json.loads(json.dumps(options))))
        update = options.get("UpdatePrefs")
        if update:
            self.stored |= {k: v for k, v in update.items() if k != "Config"}
        if options.get("AuthKey") == "bad":
            self.notify(ErrMessage="invalid key: not found")
            return
        if self.login_url_after_start and not options.get("AuthKey"):
            self.have_node_key = False
            self.state = "NeedsLogin"
            return
        self.have_node_key = True
        self.enter(self.next_state_after_start)

    async def login_interactive(self) -> None:
        self.calls.append(("login_interactive",))
        self.auth_url = self.login_url_after_start or LOGIN_URL
        self.notify(BrowseToURL=self.auth_url)

    def operators_may_stop(self) -> bool:
        return self.stoppable

    def config_locked(self) -> bool:
        return False

    def policy(self) -> dict[str, Any]:
        return {"Summary": {"Scope": "Device"}}

    async def reload_config(self) -> bool:
        return False

    async def reload_policy(self) -> None:
        self.calls.append(("reload_policy",))

    async def logout(self, reason: str = "") -> None:
        self.calls.append(("logout", reason) if reason else ("logout",))
        self.have_node_key = False
        self.enter("NeedsLogin")

    async def reset_auth(self) -> None:
        self.calls.append(("reset_auth",))

    async def new_profile(self, *, operator_stays: bool) -> None:
        self.calls.append(("new_profile",))
        self.current = ""
        self.have_node_key = False
        kept = {"OperatorUser": self.stored.get("OperatorUser", "")} if operator_stays else {}
        self.stored = copy.deepcopy(DEFAULT_PREFS) | {"ControlURL": "", "WantRunning": False} | kept
        self.enter("NeedsLogin")

    async def switch_profile(self, profile_id: str) -> None:
        self.calls.append(("switch_profile", profile_id))
        if all(p["ID"] != profile_id for p in self.profile_list):
            raise MeshdError("profile not found", code="not_found")
        self.current = profile_id
        self.have_node_key = True
        self.enter("Running")

    async def delete_profile(self, profile_id: str) -> None:
        self.calls.append(("delete_profile", profile_id))
        self.profile_list = [p for p in self.profile_list if p["ID"] != profile_id]

    async def ping(self, ip: Any, kind: str, size: int) -> dict[str, Any]:
        self.calls.append(("ping", str(ip), kind, size))
        answer: dict[str, Any] = {
            "IP": str(ip), "NodeIP": str(ip), "NodeName": "node-a", "Err": "", "LatencySeconds": 0.0123,
            "Endpoint": "", "PeerRelay": "", "DERPRegionID": 0, "DERPRegionCode": "",
        }  # fmt: skip
        if str(ip) == "100.99.99.99":
            return answer | {"NodeIP": "", "NodeName": "", "Err": "no matching peer", "LatencySeconds": 0}
        if str(ip) == "100.64.0.2":
            return answer | {"Err": "100.64.0.2 is local Tailscale IP", "IsLocalIP": True, "LatencySeconds": 0}
        if self.ping_answer is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.calls.append(("ping_cancelled",))
                raise
        if kind == "disco":
            answer["Endpoint"] = "10.99.0.11:41641"
        if kind == "TSMP":
            answer["PeerAPIPort"] = 58436
        if kind == "peerapi":
            answer |= {"PeerAPIURL": "http://100.64.0.1:58436", "NodeName": "node-a.mesh.test."}
        return answer | (self.ping_answer or {})

    async def dns_query(self, name: str, kind: str) -> dict[str, Any]:
        if kind == "X":
            raise MeshdError("unknown DNS message type: X", code="invalid")
        return {"Bytes": "AAE=", "Resolvers": [{"Addr": "10.99.0.1"}]}

    async def relay_report(self, region: str) -> dict[str, Any]:
        return {"Info": [f"Region {region}"], "Warnings": None, "Errors": None}

    async def netcheck(self, bound: Any = None) -> dict[str, Any]:
        if bound is not None:
            self.calls.append(("netcheck", str(bound[0]), bound[1]))
        return {
            "Now": "2026-11-23T09:18:05.243100655Z", "UDP": True, "IPv6": False, "IPv4": True,
            "IPv6CanSend": False, "IPv4CanSend": True, "OSHasIPv6": True, "ICMPv4": False,
            "MappingVariesByDestIP": None, "UPnP": None, "PMP": None, "PCP": None, "PreferredDERP": 900,
            "RegionLatency": {"900": 191196}, "RegionV4Latency": {"900": 191196}, "RegionV6Latency": {},
            "GlobalV4Counters": {"10.99.0.12:36245": 1}, "GlobalV6Counters": None,
            "GlobalV4": "10.99.0.12:36245", "GlobalV6": "", "CaptivePortal": None,
        }  # fmt: skip

    async def set_push_token(self, token: str) -> None:
        self.calls.append(("set_push_token", token))

    async def set_expiry_sooner(self, expiry: float) -> None:
        self.calls.append(("set_expiry_sooner", expiry))

    async def debug(self, action: str, body: bytes) -> Any:
        self.calls.append(("debug", action, body))
        if action == "control-knobs":
            return {"DisableUPnP": False}
        if action not in ("rebind", "restun", "rotate-disco-key"):
            raise MeshdError("no such action", code="not_found")
        return None

    async def enable_udp_gro(self) -> None:
        self.calls.append(("enable_udp_gro",))

    async def use_exit_node(self, enabled: bool) -> dict[str, Any]:
        self.calls.append(("use_exit_node", enabled))
        if enabled and not self.stored["InternalExitNodePrior"]:
            raise MeshdError("no prior exit node to enable")
        return self.stored

    async def ask_control(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        self.calls.append(("ask_control", method, path, body))
        return self.control_answer

    async def disconnect_control(self) -> None:
        self.calls.append(("disconnect_control",))

    async def start_update(self) -> None:
        self.updates = [{"status": "UpdateFailed", "message": "no", "version": ""}]

    async def upload_metrics(self, updates: list[Any]) -> None:
        self.calls.append(("upload_metrics", updates))
        if any(" " in update["name"] for update in updates):
            raise MeshdError("bad metric name", code="invalid")

    async def log_component(self, component: str, seconds: int) -> None:
        self.calls.append(("log_component", component, seconds))
        if component != "magicsock":
            raise MeshdError(f'unknown component "{component}"', code="invalid")
        self.logs_magicsock = seconds > 0

    def logs_component(self, component: str) -> bool:
        return component == "magicsock" and self.logs_magicsock

    def capture(self) -> AsyncIterator[bytes]:
        self.calls.append(("capture",))

        async def parts() -> AsyncIterator[bytes]:
            yield b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00"
            await asyncio.Event().wait()

        return parts()

    async def write_state(self, key: str, value: str) -> None:
        self.calls.append(("write_state", key, value))

    def bug_report(self, note: str, *, diagnose: bool) -> str:
        self.calls.append(("bug_report", note, diagnose))
        return "BUG-NO-LOGS-NO-SUPPORT-this-node-has-had-its-logging-disabled"

    async def shutdown(self) -> None:
        self.calls.append(("shutdown",))
