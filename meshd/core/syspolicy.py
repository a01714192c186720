"""The system policy: settings that the administrator of a machine holds over its users' preferences.

    {"LoginURL": "https://mesh.example.com", "UseTailscaleDNSSettings": "always", "ReconnectAfter": "15m"}

The file is HuJSON. Every setting has a type; one of a wrong type is shown with what is wrong and has no effect,
the others keep theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from meshd.base.addr import parse_ip
from meshd.base.errors import MeshdError
from meshd.core.prefs import UNRESOLVED_EXIT_NODE, Prefs
from meshd.wire.hujson import HujsonError, parse

MAX_BYTES: Final = 1 << 20
ORIGIN: Final = "JSONFile"
EXIT_ROUTES: Final = ("0.0.0.0/0", "::/0")
AUTO: Final = "auto:"

Value = bool | str | list[str]


class Setting(NamedTuple):
    """One setting of the file: its value, or why it has none."""

    value: Value | None
    error: str = ""


class Policy:
    """What a policy file says. Settings that it does not have are the user's to decide."""

    def __init__(self, settings: dict[str, Setting] | None = None) -> None:
        self.settings = settings or {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and other.settings == self.settings

    __hash__ = None  # type: ignore[assignment]

    def text(self, name: str) -> str | None:
        """A text, None when it is not set."""
        value = self._value(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool:
        return self._value(name) is True

    def strings(self, name: str) -> list[str] | None:
        value = self._value(name)
        return value if isinstance(value, list) else None

    def seconds(self, name: str) -> float:
        """A duration in seconds, 0 when it is not set."""
        value = self.text(name)
        return parse_duration(value) if value else 0.0

    def _value(self, name: str) -> Value | None:
        setting = self.settings.get(name)
        return setting.value if setting is not None else None

    @property
    def problems(self) -> list[str]:
        """What is wrong with settings, one sentence each."""
        return [f"{name}: {setting.error}" for name, setting in sorted(self.settings.items()) if setting.error]

    @property
    def without_effect(self) -> list[str]:
        """Settings that ask for what this build cannot do: it installs no updates."""
        return ["InstallUpdates"] if self.text("InstallUpdates") == "always" else []

    @property
    def holds_exit_node(self) -> bool:
        """Whether users have no say, be it that no node is named: then the one that is used, or none, stays."""
        return self.text("ExitNodeID") is not None or self.text("ExitNodeIP") is not None

    def changed(self, other: Policy, names: Iterable[str]) -> bool:
        """Whether any of the named settings differs."""
        return any(self.settings.get(name) != other.settings.get(name) for name in names)

    def to_json(self) -> dict[str, Any]:
        """The snapshot that LocalAPI clients print."""
        shown: dict[str, Any] = {"Summary": {"Scope": "Device"}}
        if self.settings:
            shown["Settings"] = {name: _setting_json(name, setting) for name, setting in sorted(self.settings.items())}
        return shown


def _setting_json(name: str, setting: Setting) -> dict[str, Any]:
    shown: dict[str, Any] = {"Origin": {"Name": ORIGIN, "Scope": "Device"}}
    if setting.error:
        return {"Error": setting.error} | shown
    value = setting.value
    if name in _SECRET and value:
        value = "(hidden)"
    return {"Value": value} | shown


# -- reading ------------------------------------------------------------------------------------------------------


def parse_policy(data: bytes, path: str) -> Policy:
    """Read a policy file. MeshdError "config" when it is no JSON object; single bad settings are kept as such."""
    try:
        if len(data) > MAX_BYTES:
            raise HujsonError(f"the file is longer than {MAX_BYTES} bytes", 1, 1)
        document = parse(data.decode("utf-8", "replace"))
        if not isinstance(document.value, dict):
            raise HujsonError("an object in braces was expected", document.line, document.column)
    except HujsonError as error:
        raise MeshdError(f"error parsing policy file {path}: {error}", code="config") from None
    settings: dict[str, Setting] = {}
    for name, item in document.value.items():
        value: Any = item.value
        if isinstance(value, list):
            value = [entry.value for entry in value]
        problem = _complaint(name, value)
        settings[name] = Setting(None, f"{problem} (line {item.line})") if problem else Setting(value)
    return Policy(settings)


def _complaint(name: str, value: Any) -> str:
    kind = _KINDS.get(name)
    if kind is None:
        return f'unknown policy setting "{name}"'
    if kind is list:
        return "" if isinstance(value, list) and all(isinstance(v, str) for v in value) else "expected a list of texts"
    if kind is bool:
        return "" if isinstance(value, bool) else "expected true or false"
    if not isinstance(value, str):
        return "expected a text in quotes"
    choices = kind if isinstance(kind, tuple) else ()
    if choices and value not in choices:
        return f'"{value}" is none of {", ".join(choices)}'
    if name in _DURATIONS:
        try:
            parse_duration(value)
        except ValueError as error:
            return str(error)
    if name == "ExitNodeIP" and value:
        try:
            parse_ip(value)
        except ValueError:
            return f'"{value}" is not an IP address'
    if name == "LoginURL" and value and not value.startswith(("http://", "https://")):
        return f'"{value}" must start with http:// or https://'
    return ""


_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds of a duration as Go writes it (``1h30m``, ``90s``, ``0``). ValueError when it is none."""
    at, total = 0, 0.0
    while at < len(text) and len(text) <= 64:
        found = _PART.match(text, at)
        if found is None:
            break
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if (at and at == len(text)) or text == "0":
        return min(total, 9e9)
    raise ValueError(f'"{text[:64]}" is not a duration such as 15m or 1h30m')


# -- holding it over preferences ----------------------------------------------------------------------------------


def overlay(prefs: Prefs, policy: Policy, *, exit_node: bool = True, always_on: bool = True) -> Prefs:
    """The preferences that ``policy`` leaves of ``prefs`` (PP-09).

    ``exit_node`` and ``always_on`` false: the user has overridden that part, as the policy allowed.
    """
    if not policy.settings:
        return prefs
    changes: dict[str, Any] = {}
    url = policy.text("LoginURL")
    if url:
        changes["control_url"] = url
    hostname = policy.text("Hostname")
    if hostname is not None:
        changes["hostname"] = hostname
    if exit_node:
        changes |= _exit_node(prefs, policy)
    if always_on and policy.flag("AlwaysOn.Enabled"):
        changes["want_running"] = True
    for name, field in _OPTIONS.items():
        choice = policy.text(name)
        if choice in ("always", "never"):
            changes[field] = choice == "always"
    prefs = msgspec.structs.replace(prefs, **changes) if changes else prefs
    return _indirect(prefs, policy)


def _exit_node(prefs: Prefs, policy: Policy) -> dict[str, Any]:
    wanted = policy.text("ExitNodeID")
    if wanted:
        if not wanted.startswith(AUTO):
            return {"auto_exit_node": "", "exit_node_id": wanted, "exit_node_ip": ""}
        chosen = prefs.exit_node_id if allowed_exit_node(policy, prefs.exit_node_id) else UNRESOLVED_EXIT_NODE
        return {"auto_exit_node": wanted[len(AUTO) :] or "any", "exit_node_id": chosen, "exit_node_ip": ""}
    address = policy.text("ExitNodeIP")
    if address:
        return {"auto_exit_node": "", "exit_node_id": "", "exit_node_ip": address}
    return {}


def allowed_exit_node(policy: Policy, stable_id: str) -> bool:
    """Whether a node may be chosen by itself: any, unless the policy has a list."""
    if not stable_id:
        return False
    listed = policy.strings("AllowedSuggestedExitNodes")
    return listed is None or stable_id in listed


def _indirect(prefs: Prefs, policy: Policy) -> Prefs:
    """Options that are not a preference of their own."""
    incoming = policy.text("AllowIncomingConnections")
    if incoming in ("always", "never"):
        prefs = msgspec.structs.replace(prefs, shields_up=incoming == "never")
    updates = prefs.auto_update
    check = policy.text("CheckUpdates")
    if check in ("always", "never"):
        updates = msgspec.structs.replace(updates, check=check == "always")
    if policy.text("InstallUpdates") == "never" and updates.apply:
        updates = msgspec.structs.replace(updates, apply=False)
    if updates != prefs.auto_update:
        prefs = msgspec.structs.replace(prefs, auto_update=updates)
    exit_node = policy.text("AdvertiseExitNode")
    routes = prefs.advertise_routes or ()
    others = tuple(route for route in routes if route not in EXIT_ROUTES)
    offers = len(routes) - len(others) == len(EXIT_ROUTES)
    if exit_node in ("always", "never") and offers != (exit_node == "always"):
        wanted = (*others, *EXIT_ROUTES) if exit_node == "always" else others
        prefs = msgspec.structs.replace(prefs, advertise_routes=wanted or None)
    return prefs


_OPTIONS: Final = {
    "UnattendedMode": "force_daemon",
    "ExitNodeAllowLANAccess": "exit_node_allow_lan_access",
    "UseTailscaleDNSSettings": "corp_dns",
    "UseTailscaleSubnets": "route_all",
    "PostureChecking": "posture_checking",
}
_CHOICE: Final = ("always", "never", "user-decides")
_SHOWN: Final = ("show", "hide")
_DURATIONS: Final = frozenset({"ReconnectAfter", "KeyExpirationNotice"})
_SECRET: Final = frozenset({"AuthKey"})
_TEXTS: Final = (
    *("LoginURL", "LogTarget", "Tailnet", "ExitNodeID", "ExitNodeIP", "Hostname", "AuthKey", "ReconnectAfter"),
    *("DeviceSerialNumber", "MachineCertificateSubject", "KeyExpirationNotice"),
    *("ManagedByOrganizationName", "ManagedByCaption", "ManagedByURL"),
)
_FLAGS: Final = (
    *("AlwaysOn.Enabled", "AlwaysOn.OverrideWithReason", "ExitNode.AllowOverride", "AllowTailscaledRestart"),
    *("EncryptState", "HardwareAttestation", "LogSCMInteractions", "FlushDNSOnSessionUnlock"),
)
_CHOICES: Final = (
    *(*_OPTIONS, "AllowIncomingConnections", "CheckUpdates", "InstallUpdates"),
    *("AdvertiseExitNode", "EnableDNSRegistration"),
)
_VISIBILITIES: Final = (
    *("AdminConsole", "NetworkDevices", "TestMenu", "UpdateMenu", "ResetToDefaults", "RunExitNode"),
    *("PreferencesMenu", "ExitNodesPicker", "ApplyUpdates", "SuggestedExitNode", "OnboardingFlow"),
)
_KINDS: Final[dict[str, type | tuple[str, ...]]] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(_FLAGS, bool),
    **dict.fromkeys(_CHOICES, _CHOICE),
    **dict.fromkeys(_VISIBILITIES, _SHOWN),
    "AllowedSuggestedExitNodes": list,
}
"""The settings that exist, with what they take. Those of graphical clients are known so that one file serves all."""
