"""The declarative configuration file of ``--config``: HuJSON that says what this node is to be.

    {"version": "alpha0", "Hostname": "router1", "AuthKey": "file:/etc/meshd/authkey", "acceptDNS": false}

Reading is strict: a name that the format does not have is refused, with its place. The file becomes a masked edit
of the preferences, so that what it does not name keeps the value it has.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from meshd.base.addr import AddrPort, parse_ip, parse_prefix
from meshd.base.errors import MeshdError
from meshd.wire.hujson import HujsonError, Item, parse

MAX_BYTES: Final = 1 << 20
"""Longest file that is read. A thousand routes are a few dozen kilobytes."""
LOCKED: Final = "can't reconfigure tailscaled when using a config file; config file is locked"
"""What an edit is answered while the file is locked; programs that drive nodes know this sentence."""
_EXIT_ROUTES: Final = ("0.0.0.0/0", "::/0")
_NETFILTER_MODES: Final = {"off": 0, "nodivert": 1, "on": 2}


class ConfigFile(NamedTuple):
    """What a configuration file says."""

    masked: dict[str, Any]
    """The edit of the preferences, as LocalAPI clients would send it."""
    locked: bool
    """Nobody else may change preferences."""
    enabled: bool
    """The node is to run."""
    auth_key: str
    """A key, or ``file:`` and the path of a file with one; "" when logging in is left to others."""
    static_endpoints: tuple[AddrPort, ...]
    """Addresses that peers are told in addition to those that are found."""
    unused: tuple[str, ...]
    """Fields that ask for a part which this build does not have."""

    def __repr__(self) -> str:
        return f"ConfigFile(locked={self.locked}, enabled={self.enabled}, fields={sorted(self.masked)})"


def parse_config(data: bytes, path: str) -> ConfigFile:
    """Read a file. MeshdError "config" names the path, what is wrong, and the line and column of it."""
    try:
        return _Reader(_text(data)).read()
    except HujsonError as error:
        raise MeshdError(f"error parsing config file {path}: {error}", code="config") from None


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise HujsonError(f"the file is longer than {MAX_BYTES} bytes", 1, 1)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise HujsonError("text that is not UTF-8", line, column) from None


class _Reader:
    def __init__(self, text: str) -> None:
        document = parse(text)
        if not isinstance(document.value, dict):
            raise _wrong(document, "an object in braces was expected")
        self._fields: dict[str, Item] = {}
        for name, item in document.value.items():
            known = _NAMES.get(name.lower())
            if known is None:
                raise _unknown(name, item)
            if known in self._fields:
                raise _wrong(item, f"the field {known!r} stands twice")
            self._fields[known] = item
        self._check_version(document)

    def _check_version(self, document: Item) -> None:
        item = self._fields.get("version")
        if item is None or item.value == "":
            raise _wrong(document, 'no "version" field defined')
        if item.value != "alpha0":
            raise _wrong(item, f'unsupported "version" value {item.value!r}; want "alpha0" for now')

    def read(self) -> ConfigFile:
        edits: dict[str, Any] = {}
        for name, (pref, convert) in _PREFERENCES.items():
            item = self._fields.get(name)
            if item is None:
                continue
            value = convert(item)
            if value is not None:
                edits[pref] = value
        enabled = self._three_valued("Enabled") is not False
        edits["WantRunning"] = enabled
        auth_key = self._optional_text("AuthKey")
        if auth_key:
            edits["LoggedOut"] = False
        self._exit_node(edits)
        if self._three_valued("AdvertiseExitNode"):
            edits["AdvertiseRoutes"] = list(dict.fromkeys((*edits.get("AdvertiseRoutes", ()), *_EXIT_ROUTES)))
        for name, nothing in (("AdvertiseServices", []), ("RelayServerPort", None), ("RelayServerStaticEndpoints", [])):
            edits.setdefault(name, nothing)  # here the file alone decides, by what it lacks as well
        masked = edits | {f"{name}Set": True for name in edits}
        if "AutoUpdate" in edits:
            masked["AutoUpdateSet"] = {"CheckSet": True, "ApplySet": True}
        endpoints = self._fields.get("StaticEndpoints")
        return ConfigFile(
            masked=masked,
            locked=self._three_valued("Locked") is not False,
            enabled=enabled,
            auth_key=auth_key,
            static_endpoints=tuple(_endpoints(endpoints)) if endpoints is not None else (),
            unused=tuple(name for name in _UNUSED if self._asked(name)),
        )

    def _exit_node(self, edits: dict[str, Any]) -> None:
        wanted = self._optional_text("exitNode")
        if "exitNode" not in self._fields or self._fields["exitNode"].value is None:
            return
        try:
            edits["ExitNodeIP"] = str(parse_ip(wanted))
        except ValueError:
            edits["ExitNodeID"] = wanted

    def _three_valued(self, name: str) -> bool | None:
        item = self._fields.get(name)
        return None if item is None else _boolean(item)

    def _optional_text(self, name: str) -> str:
        item = self._fields.get(name)
        return "" if item is None else _string(item) or ""

    def _asked(self, name: str) -> bool:
        item = self._fields.get(name)
        return item is not None and item.value not in (None, [], {}, False, "", "unset")


def _wrong(item: Item, problem: str) -> HujsonError:
    return HujsonError(problem, item.line, item.column)


def _unknown(name: str, item: Item) -> HujsonError:
    close = difflib.get_close_matches(name.lower(), _NAMES, n=1)
    hint = f"; did you mean {_NAMES[close[0]]!r}?" if close else ""
    return _wrong(item, f"unknown field {name!r}{hint}")


def _boolean(item: Item) -> bool | None:
    """True, false, or not said."""
    if isinstance(item.value, bool) or item.value is None:
        return item.value
    if isinstance(item.value, str) and item.value in ("true", "false", "", "unset"):
        return {"true": True, "false": False}.get(item.value)
    raise _wrong(item, "true or false was expected")


def _string(item: Item) -> str | None:
    if item.value is None or isinstance(item.value, str):
        return item.value
    raise _wrong(item, "a text in quotes was expected")


def _strings(item: Item) -> list[str] | None:
    if item.value is None:
        return None
    return [text for _, text in _texts(item)]


def _texts(item: Item) -> list[tuple[Item, str]]:
    if not isinstance(item.value, list):
        raise _wrong(item, "a list in brackets was expected")
    found = []
    for entry in item.value:
        if not isinstance(entry.value, str):
            raise _wrong(entry, "a text in quotes was expected")
        found.append((entry, entry.value))
    return found


def _routes(item: Item) -> list[str] | None:
    """Prefixes; a host inside a prefix is refused, as it is for ``--advertise-routes``."""
    if item.value is None:
        return None
    routes = []
    for entry, text in _texts(item):
        try:
            routes.append(str(parse_prefix(text)))
        except ValueError:
            raise _wrong(entry, _route_problem(text)) from None
    return routes


def _route_problem(text: str) -> str:
    from ipaddress import ip_interface

    try:
        network = ip_interface(text).network
    except ValueError:
        return f"{text!r} is not a route such as 10.0.0.0/8"
    if "/" not in text:
        return f"{text!r} is not a route such as {network}"
    return f"route {text} has non-address bits set; expected {network}"


def _endpoints(item: Item) -> list[AddrPort]:
    found = []
    for entry, text in _texts(item) if item.value is not None else ():
        try:
            found.append(AddrPort.parse(text))
        except ValueError:
            raise _wrong(entry, f"{text!r} is not an address and port such as 192.0.2.1:41641") from None
    return found


def _netfilter_mode(item: Item) -> int | None:
    mode = _string(item)
    if mode is None:
        return None
    if mode not in _NETFILTER_MODES:
        raise _wrong(item, f"unknown netfilter mode {mode!r}; expected on, off or nodivert")
    return _NETFILTER_MODES[mode]


def _object(item: Item, names: tuple[str, ...]) -> dict[str, bool | None] | None:
    if item.value is None:
        return None
    if not isinstance(item.value, dict):
        raise _wrong(item, "an object in braces was expected")
    proper = {name.lower(): name for name in names}
    found: dict[str, bool | None] = {}
    for name, entry in item.value.items():
        known = proper.get(name.lower())
        if known is None:
            raise _wrong(entry, f"unknown field {name!r}")
        found[known] = _boolean(entry)
    return found


def _auto_update(item: Item) -> dict[str, bool | None] | None:
    found = _object(item, ("Check", "Apply"))
    return None if found is None else {"Check": bool(found.get("Check")), "Apply": found.get("Apply")}


def _port(item: Item) -> int | None:
    if item.value is None:
        return None
    if isinstance(item.value, bool) or not isinstance(item.value, int) or not 0 <= item.value <= 65535:
        raise _wrong(item, "a port from 0 to 65535 was expected")
    return item.value


def _endpoint_texts(item: Item) -> list[str] | None:
    return [str(endpoint) for endpoint in _endpoints(item)] or None


def _app_connector(item: Item) -> dict[str, bool] | None:
    found = _object(item, ("Advertise",))
    return None if found is None else {"Advertise": bool(found.get("Advertise"))}


_PREFERENCES: Final[dict[str, tuple[str, Callable[[Item], Any]]]] = {
    "ServerURL": ("ControlURL", _string),
    "OperatorUser": ("OperatorUser", _string),
    "Hostname": ("Hostname", _string),
    "acceptDNS": ("CorpDNS", _boolean),
    "acceptRoutes": ("RouteAll", _boolean),
    "allowLANWhileUsingExitNode": ("ExitNodeAllowLANAccess", _boolean),
    "AdvertiseRoutes": ("AdvertiseRoutes", _routes),
    "DisableSNAT": ("NoSNAT", _boolean),
    "AdvertiseServices": ("AdvertiseServices", _strings),
    "AppConnector": ("AppConnector", _app_connector),
    "NetfilterMode": ("NetfilterMode", _netfilter_mode),
    "NoStatefulFiltering": ("NoStatefulFiltering", _boolean),
    "PostureChecking": ("PostureChecking", _boolean),
    "RunSSHServer": ("RunSSH", _boolean),
    "RunWebClient": ("RunWebClient", _boolean),
    "ShieldsUp": ("ShieldsUp", _boolean),
    "RemoteConfig": ("RemoteConfig", _boolean),
    "AutoUpdate": ("AutoUpdate", _auto_update),
    "RelayServerPort": ("RelayServerPort", _port),
    "RelayServerStaticEndpoints": ("RelayServerStaticEndpoints", _endpoint_texts),
}
"""Fields that are preferences under another name, and how their value is read; None leaves the preference alone."""
_UNUSED: Final = ("ServeConfigTemp",)
_OTHERS: Final = ("version", "Locked", "AuthKey", "Enabled", "exitNode", "AdvertiseExitNode", "StaticEndpoints")
_NAMES: Final = {name.lower(): name for name in (*_PREFERENCES, *_OTHERS, *_UNUSED)}
