"""Fuzz targets of what people and other programs write: files, preferences, stored state, the small text forms.

Such texts may be refused by a `MeshdError` that says what is wrong, and never by anything else.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec

from meshd.base import gotime
from meshd.base.addr import AddrPort, parse_ip, parse_prefix
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import LockPrivate, MachinePublic, NodePrivate, NodePublic
from meshd.coord import names
from meshd.coord.network import Network
from meshd.coord.policy import compile as policy_compile
from meshd.coord.policy import document
from meshd.core import configfile, prefs, syspolicy
from meshd.core.cachedmap import decode_cached
from meshd.core.filterprogram import plan_filter
from meshd.core.profile import LoginProfile
from meshd.core.retryafter import parse_retry_after
from meshd.daemon.flags import HelpWanted, parse_flags
from meshd.host.linux.iptables import listing
from meshd.host.linux.portlist import _listeners
from meshd.io.listenaddress import parse_listen
from meshd.node.kubestore import KubeStore
from meshd.node.profiles import CURRENT_PROFILE, LEGACY_PREFS, MACHINE_KEY, PROFILES, Profiles
from meshd.node.sealedstate import StateSeal
from meshd.node.store import FileStore, MemoryStore
from meshd.wire import control, hujson
from meshd.wire.nodekeysignature import decode_node_key_signature, unwrap_auth_key
from tests.fuzz.target import byte_strings, target, vector

_refused = contextlib.suppress(MeshdError)
_not_so = contextlib.suppress(ValueError)


# -- HuJSON and what is written in it

_POLICY = b"""{
  // who is who
  "groups": {"group:ops": ["ann", "bob"]},
  "hosts": {"db": "10.0.0.5", "net": "10.1.0.0/16"},
  "tagOwners": {"tag:web": ["group:ops", "autogroup:member"]},
  "acls": [
    {"action": "accept", "src": ["group:ops"], "dst": ["tag:web:22,80-90", "db:*"], "proto": "tcp"},
    {"action": "accept", "src": ["*"], "dst": ["autogroup:self:*", "[fd7a::1]:1"], "proto": "255",},
  ],
  "grants": [{"src": ["tag:web"], "dst": ["net"], "ip": ["udp:53", "*"], "app": {"x.com/y": [{"a": [1, null]}]}}],
  /* and */ "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web"]}, "exitNode": ["ann"]},
}"""
_ACL = b'{"acls":[{"action":"accept","src":["*"],"dst":["*:*"],"proto":"6"}]}'
_CONFIG = b"""{"version": "alpha0", "Locked": false, "ServerURL": "https://a", "AuthKey": "k", "Enabled": "true",
"Hostname": "h", "acceptDNS": "unset", "exitNode": "100.64.0.1", "AdvertiseRoutes": ["10.0.0.0/8"],
"NetfilterMode": "on", "AutoUpdate": {"Check": true, "Apply": "unset"}, "StaticEndpoints": ["1.2.3.4:5"],
"AppConnector": {"Advertise": true}, "RelayServerPort": 0, "RelayServerStaticEndpoints": ["[::1]:1"],}"""
_SYSPOLICY = b"""{"LoginURL": "https://x", "Tailnet": "t", "ExitNodeID": "auto:any", "ExitNodeIP": "100.64.0.1",
"KeyExpirationNotice": "24h30m", "AllowedSuggestedExitNodes": ["a", "b"], "AlwaysOn.Enabled": true,
"UseTailscaleDNSSettings": "always", "AllowIncomingConnections": "never", "AdvertiseExitNode": "user-decides"}"""
_DEEP = b'{"a":' + b"[" * 1500
_NESTED = b'{"a":' * 70 + b"1" + b"}" * 70


@target(seeds=lambda: [_POLICY, _CONFIG, _NESTED, b'[1,-2.5e3,"\\u00e9\\ud83d\\ude00\\n",null,true,]//'], text=True)
def fuzz_hujson(data: bytes) -> None:
    """Takes all of JSON (not too deep, no long numbers, each name once), and means the same by it."""
    text = data.decode("utf-8", "replace")
    plain: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        plain = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_number, parse_float=_fraction
        )
    try:
        found = _plain(hujson.parse(text))
    except hujson.HujsonError as error:
        assert error.line >= 1
        assert error.column >= 1
        assert plain is None or text.count("{") + text.count("[") > hujson.MAX_DEPTH
    else:
        assert plain is None or _normal(plain) == found


def _plain(item: hujson.Item) -> Any:
    value = item.value
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _normal(value: Any) -> Any:
    """Half a surrogate pair is U+FFFD for us, and itself for `json`."""
    if isinstance(value, dict):
        return {_normal(name): _normal(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_normal(entry) for entry in value]
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({_normal(name) for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _number(text: str) -> int:
    if len(text) > 40:
        raise ValueError("too long")
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > 40:
        raise ValueError("too long")
    return float(text)


@target(seeds=lambda: [_POLICY, _ACL], text=True, limit=900)
def fuzz_policy(data: bytes) -> None:
    """A policy that is taken can be compiled, and says nothing that a node would refuse."""
    with _refused:
        policy = document.parse_policy(data.decode("utf-8", "replace"))
        for rule in policy.rules:
            assert all(0 <= number <= 255 for number in rule.protocols)
            assert all(0 <= first <= last <= 65535 for to in rule.targets for first, last in to.ports)
        policy_compile.CompiledPolicy(policy, Network())


@target(seeds=lambda: [_CONFIG, b'{"version":"alpha0"}'], text=True, limit=900)
def fuzz_config_file(data: bytes) -> None:
    """What the file says can be held over preferences, or those say what is wrong."""
    with _refused:
        config = configfile.parse_config(data, "x")
        assert repr(config)
        prefs.check(prefs.edit(prefs.default_prefs(), config.masked))


@target(seeds=lambda: [_SYSPOLICY], text=True, limit=900)
def fuzz_system_policy(data: bytes) -> None:
    with _refused:
        policy = syspolicy.parse_policy(data, "x")
        json.dumps(policy.to_json())
        assert all(policy.problems)
        syspolicy.overlay(prefs.default_prefs(), policy)
        syspolicy.allowed_exit_node(policy, "n1")


# -- preferences and stored state

_STORED = b"""{"ControlURL":"https://a","RouteAll":true,"ExitNodeID":"n","ExitNodeIP":"100.64.0.1","CorpDNS":false,
"AdvertiseTags":["tag:a"],"AdvertiseRoutes":["10.0.0.0/8"],"AutoUpdate":{"Check":true,"Apply":null},
"AppConnector":{"Advertise":true},"RelayServerPort":40000,"NetfilterMode":2,"ProfileName":"p",
"Config":{"PrivateNodeKey":"privkey:%s","UserProfile":{"ID":1,"LoginName":"u"},"NetworkLockKey":"nlpriv:%s"}}""" % (
    b"ab" * 32,
    LockPrivate(bytes(range(64))).text().partition(":")[2].encode(),
)
_MASKED = b"""{"HostnameSet":true,"Hostname":"h","AutoUpdateSet":{"CheckSet":true,"ApplySet":true},
"AutoUpdate":{"Check":true,"Apply":"unset"},"ExitNodeIDSet":true,"ExitNodeID":"auto:any","AdvertiseRoutesSet":true,
"AdvertiseRoutes":["0.0.0.0/0","::/0"],"NetfilterModeSet":true,"NetfilterMode":1,"AdvertiseTagsSet":true,
"AdvertiseTags":["tag:x"],"RelayServerPortSet":true,"RelayServerPort":null}"""


def _objects(data: bytes) -> Any:
    """What `msgspec` makes of an object; MeshdError for everything else."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise MeshdError("no object") from None


@target(seeds=lambda: [_STORED, b"{}"], text=True, limit=1200)
def fuzz_preferences(data: bytes) -> None:
    """What is taken is written and read again as it was."""
    with _refused:
        value = prefs.from_json(_objects(data))
        assert prefs.from_json(json.loads(msgspec.json.encode(prefs.to_json(value)))) == value
        repr(value.redacted())
        prefs.check(value)
        value.routes()


@target(
    seeds=lambda: [_MASKED, *(b'{"%sSet":true}' % f.encode_name.encode() for f in msgspec.structs.fields(prefs.Prefs))],
    text=True,
    limit=900,
)
def fuzz_masked_preferences(data: bytes) -> None:
    with _refused:
        value = prefs.edit(prefs.default_prefs(), _objects(data))
        prefs.to_json(value)
        prefs.check(value)
        value.routes()
        prefs.without_effect(value)


def _state_files() -> list[bytes]:
    return [
        b'{"_machinekey":"cHJpdmtleTo=","_current-profile":"cHJvZmlsZS1h","_profiles":null}',
        b'{"key":"%s","nonce":"AQ==","data":"AQ=="}' % (b"ab" * 16),
        b'{"meshd-sealed-state":1,"key":"ab","data":"AQ=="}',
        _DEEP,
    ]


@target(seeds=_state_files, text=True, limit=3000)
def fuzz_state_file(data: bytes) -> None:
    store = FileStore.__new__(FileStore)
    store._path = Path("/nonexistent/meshd.state")
    with _refused:
        StateSeal(store._path).open(data)
    with _refused:
        store._parse(data)


def _random(size: int) -> bytes:
    return bytes(range(size))


_KNOWN = LoginProfile(id="a", key="profile-a")


@target(
    seeds=lambda: [
        b'{"a":{"ID":"a","Name":"n","Key":"profile-a","UserProfile":{"ID":1},"NetworkProfile":{"DomainName":"d"}}}',
        _DEEP,
    ],
    text=True,
    limit=2000,
)
def fuzz_profiles(data: bytes) -> None:
    """A damaged list of profiles is a problem of the store, nothing else."""
    store = MemoryStore()
    store.write(PROFILES, data)
    store.write(CURRENT_PROFILE, b"profile-a")
    with _refused:
        Profiles(store, _random, lambda: 0.0).list()


@target(seeds=lambda: [_STORED, _DEEP], text=True, limit=2200)
def fuzz_stored_preferences(data: bytes) -> None:
    """The same for the preferences and keys of the current profile, of today and of long ago."""
    store = MemoryStore()
    store.write(PROFILES, msgspec.json.encode({"a": _KNOWN}))
    store.write(CURRENT_PROFILE, b"profile-a")
    store.write("profile-a", data)
    with _refused:
        profiles = Profiles(store, _random, lambda: 0.0)
        if store.problem is None:
            profiles.set_prefs(profiles.prefs)
    old = MemoryStore()
    old.write(LEGACY_PREFS, data)
    with _refused:
        Profiles(old, _random, lambda: 0.0).machine_key()


@target(seeds=lambda: [b"privkey:" + b"ab" * 32, b"privkey:" + b"0" * 64])
def fuzz_machine_key(data: bytes) -> None:
    store = MemoryStore()
    store.write(MACHINE_KEY, data)
    with _refused:
        Profiles(store, _random, lambda: 0.0).machine_key()


@target(
    seeds=lambda: [
        b'{"kind":"Secret","metadata":{"resourceVersion":"5"},"data":{"a":"AQI=","b":""}}',
        _DEEP,
    ],
    text=True,
    limit=4000,
)
def fuzz_kube_secret(data: bytes) -> None:
    store = KubeStore.__new__(KubeStore)
    store._name = "x"
    with _refused:
        store._take(data)
        assert all(isinstance(value, bytes) for value in store._values.values())


_NODE = NodePrivate(bytes([0] * 31) + b"\x40").public()


def _cached_maps() -> list[bytes]:
    node = b'{"ID":1,"Key":"%s","Addresses":["100.64.0.1/32"],"KeyExpiry":"2030-01-01T00:00:00Z","CapMap":{"a":null}}'
    nodes = (b"{}", node % _NODE.text().encode(), node % NodePublic.zero().text().encode())
    disco = b"AQ" * 21 + b"A="
    maps = [
        b'{"control":"https://a","user":1,"disco":"%s","met":[1],"map":{"Node":%s}}' % (disco, own) for own in nodes
    ]
    return [*maps, b"{}", _DEEP]


@target(seeds=_cached_maps, text=True, limit=4000)
def fuzz_cached_map(data: bytes) -> None:
    with contextlib.suppress(WireError):
        decode_cached(data, _NODE, 1.7e9)


# -- small forms

_FORMS = [
    *(b"100.64.0.1", b"fd7a:115c:a1e0::1", b"::ffff:1.2.3.4", b"fe80::1%eth0", b"10.0.0.0/8", b"::/0", b"1.2.3.4/32"),
    *(b"1.2.3.4:5", b"[::1]:65535", b"[::ffff:1.2.3.4]:0", b"localhost:1080", b":0", b"*:443", b"2024-02-29T00:00:00Z"),
    *(b"2024-02-29T23:59:60.999999999+23:59", b"0001-01-01T00:00:00Z", b"Sun, 06 Nov 1994 08:49:37 GMT", b"120"),
    *(b"nodekey:" + b"ab" * 32, b"mkey:" + b"AB" * 32, b"tlpub:" + b"0" * 64, b"my-host.example.com", b"tag:web"),
    *(b"10.0.0.1-10.0.0.9", b"*", b"80,443,8000-8999", b"1h30m", b"500ms", b"cap:x", b"1.2.3.4:" + b"9" * 4400),
]


@target(
    seeds=lambda: _FORMS, limit=4500, dictionary=(b":", b"/", b"[", b"]", b".", b"-", b"%", b"0", b"::", "²".encode())
)
def fuzz_small_forms(data: bytes) -> None:
    """Each reader takes it or says ValueError; what is taken is written and read again as it was."""
    text = data.decode("utf-8", "surrogateescape")
    with _not_so:
        ip = parse_ip(text)
        assert parse_ip(str(ip)) == ip
    with _not_so:
        prefix = parse_prefix(text)
        assert parse_prefix(str(prefix)) == prefix
    with _not_so:
        endpoint = AddrPort.parse(text)
        assert AddrPort.parse(str(endpoint)) == endpoint
    with _not_so:
        wall = gotime.parse_time(text)
        if wall is not None:
            again = gotime.parse_time(gotime.format_time(wall))
            assert again is None or abs(again - wall) < 1e-3 or not 0 < wall < 2.5e11
    for kind in (NodePublic, MachinePublic, LockPrivate):
        with _not_so:
            key = kind.parse(text)
            assert kind.parse(key.text()) == key
    with _not_so:
        assert syspolicy.parse_duration(text) >= 0
    with _not_so:
        document.parse_ports(text)
    parse_retry_after(text, 0.0)
    assert names.checked_label(names.label(text))
    with _refused:
        parse_listen(text)


@target(
    seeds=lambda: [
        b"--state=mem:\n--tun\nuserspace-networking\n-port=41641\n-verbose 1",
        b"--port\n99999999999999999999\n--no-logs-no-support\n--socket=/x\n--\nx",
        b"--port=" + b"9" * 4400,
        b"--debug=:80\n--config=a\n--cleanup=T\n--statedir\n/x\n-h",
    ],
    limit=4500,
    dictionary=(b"\n-", b"--", b"=", b"\n", b"true", b"0x1F", b"1_000", b"1h", b"-version"),
)
def fuzz_daemon_flags(data: bytes) -> None:
    with _refused, contextlib.suppress(HelpWanted):
        parse_flags(data.decode("utf-8", "surrogateescape").split("\n"))


_TCP = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    b"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n"
    b"   1: 00000000000000000000000001000000:0050 00000000:0000 0A 00:00 00:00 0 0 0 4712 1\n"
)


@target(seeds=lambda: [_TCP])
def fuzz_open_ports(data: bytes) -> None:
    """The kernel's own table is no enemy; another line than expected must not end the daemon all the same."""
    with contextlib.suppress(ValueError):
        _listeners(data.split(b"\n"))


@target(
    seeds=lambda: [
        b"*filter\n:INPUT ACCEPT [0:0]\n:ts-input - [0:0]\n-A INPUT -j ts-input\n"
        b"-A ts-input -i mesh0 -j ACCEPT\nCOMMIT\n"
    ]
)
def fuzz_iptables_listing(data: bytes) -> None:
    listing(data.decode("utf-8", "replace"), "mesh0")


@target(seeds=lambda: [vector("tka")["wrapped_authkey"].encode()])
def fuzz_wrapped_auth_key(data: bytes) -> None:
    with contextlib.suppress(WireError):
        unwrap_auth_key(data.decode("utf-8", "replace"))


def _signatures() -> list[bytes]:
    tka = vector("tka")
    names_of = ("nks_direct", "nks_rotation", "nks_credential", "nks_rotation_over_credential")
    return [data for name in names_of for data in byte_strings([tka[name]]) if len(data) > 40]


@target(seeds=_signatures)
def fuzz_node_key_signature(data: bytes) -> None:
    """What is taken has one encoding, which is the one that came."""
    with contextlib.suppress(WireError):
        signature = decode_node_key_signature(data)
        assert signature.encode() == data
        assert len(signature.digest()) == 32


@target(
    seeds=lambda: [
        b'{"SrcIPs":["100.64.0.1","10.0.0.0/8","*"],"DstPorts":[{"IP":"100.64.0.2","Ports":{"First":0,"Last":65535}}]}',
        b'{"SrcIPs":["cap:x","1.1.1.1-1.1.1.9"],"DstPorts":[{"IP":"*","Ports":{"First":22,"Last":22}}],"IPProto":[6,17]}',
        b'{"SrcIPs":["*"],"CapGrant":[{"Dsts":["100.64.0.2/32"],"CapMap":{"x":[1]}}]}',
    ],
    text=True,
)
def fuzz_filter_rule(data: bytes) -> None:
    """A rule that decodes is compiled or refused in part; it never ends the map session."""
    with contextlib.suppress(WireError):
        rule = control.decode(control.FilterRule, data)
        plan_filter(
            [rule], [parse_prefix("100.64.0.2/32")], cap_sources=lambda _: [parse_prefix("100.64.0.3/32")]
        ).compile()
