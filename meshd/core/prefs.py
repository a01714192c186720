"""Preferences: what the user wants of this node.

The JSON form is that of existing clients and state files: Go's field names, null lists, keys under ``Config``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from meshd.base.addr import AddrPort, IPAddress, IPPrefix, parse_ip, parse_prefix
from meshd.base.errors import MeshdError
from meshd.base.keys import LockPrivate, NodePrivate
from meshd.wire.control.values import always

if TYPE_CHECKING:
    from meshd.wire.control.shape import Shape

_ZERO_PRIVATE = NodePrivate.zero().text()
_ZERO_LOCK = LockPrivate.zero().text()
DEFAULT_CONTROL_URL = "https://controlplane.tailscale.com"
CONTROL_SYNONYMS = frozenset({DEFAULT_CONTROL_URL, "https://login.tailscale.com"})


class UserProfile(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Who the node belongs to, as control named them. Only an absent picture is left out of the JSON."""

    id: int = msgspec.field(default_factory=int, name="ID")
    login_name: str = always("")
    display_name: str = always("")
    profile_pic_url: str = msgspec.field(default="", name="ProfilePicURL")


class Persist(msgspec.Struct, frozen=True, rename="pascal"):
    """The identity of a login: keys and names. Never shown; ``redacted()`` is what leaves the daemon."""

    private_node_key: str = _ZERO_PRIVATE
    old_private_node_key: str = _ZERO_PRIVATE
    user_profile: UserProfile = UserProfile()
    network_lock_key: str = _ZERO_LOCK
    node_id: str = msgspec.field(default="", name="NodeID")
    # Of other programs and versions that used this state before: kept as found, absent when there was nothing.
    attestation_key: Any = msgspec.UNSET
    disallowed_lock_states: tuple[str, ...] | msgspec.UnsetType | None = msgspec.field(
        default=msgspec.UNSET, name="DisallowedTKAStateIDs"
    )
    private_machine_key: str | msgspec.UnsetType | None = msgspec.UNSET

    def __repr__(self) -> str:
        return f"Persist(user={self.user_profile.login_name!r}, node={self.node_id!r})"

    def redacted(self) -> Persist:
        return msgspec.structs.replace(
            self,
            private_node_key=_ZERO_PRIVATE,
            old_private_node_key=_ZERO_PRIVATE,
            network_lock_key=_ZERO_LOCK,
            attestation_key=msgspec.UNSET,
            private_machine_key=msgspec.UNSET,
        )

    def node_private(self) -> NodePrivate | None:
        """The node key, or None before the first login."""
        key = NodePrivate.parse(self.private_node_key)
        return None if key.is_zero else key


class AutoUpdatePrefs(msgspec.Struct, frozen=True, rename="pascal"):
    check: bool = True
    apply: bool | None = None


class AppConnectorPrefs(msgspec.Struct, frozen=True, rename="pascal"):
    advertise: bool = False


class Prefs(msgspec.Struct, frozen=True, rename="pascal"):
    """One immutable set of preferences; edits make a new one."""

    control_url: str = msgspec.field(default="", name="ControlURL")
    route_all: bool = False
    exit_node_id: str = msgspec.field(default="", name="ExitNodeID")
    exit_node_ip: str = msgspec.field(default="", name="ExitNodeIP")
    auto_exit_node: str = ""
    internal_exit_node_prior: str = ""
    exit_node_allow_lan_access: bool = msgspec.field(default=False, name="ExitNodeAllowLANAccess")
    corp_dns: bool = msgspec.field(default=True, name="CorpDNS")
    run_ssh: bool = msgspec.field(default=False, name="RunSSH")
    run_web_client: bool = False
    want_running: bool = False
    logged_out: bool = False
    shields_up: bool = False
    advertise_tags: tuple[str, ...] | None = None
    hostname: str = ""
    notepad_urls: bool = msgspec.field(default=False, name="NotepadURLs")
    force_daemon: bool = False
    advertise_routes: tuple[str, ...] | None = None
    advertise_services: tuple[str, ...] | None = None
    sync: bool | None = None
    no_snat: bool = msgspec.field(default=False, name="NoSNAT")
    no_stateful_filtering: bool | None = True
    netfilter_mode: int = 2
    operator_user: str = ""
    profile_name: str = ""
    auto_update: AutoUpdatePrefs = AutoUpdatePrefs()
    app_connector: AppConnectorPrefs = AppConnectorPrefs()
    posture_checking: bool = False
    netfilter_kind: str = ""
    remote_config: bool = False
    drive_shares: tuple[dict[str, Any], ...] | None = None
    relay_server_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    relay_server_static_endpoints: tuple[str, ...] | None = None
    config: Persist | None = None

    def persist(self) -> Persist:
        return self.config or Persist()

    def redacted(self) -> Prefs:
        """Without private keys."""
        return self if self.config is None else msgspec.structs.replace(self, config=self.config.redacted())

    def routes(self) -> list[IPPrefix]:
        """Advertised routes as prefixes."""
        return [parse_prefix(text) for text in self.advertise_routes or ()]

    def exit_ip(self) -> IPAddress | None:
        return parse_ip(self.exit_node_ip) if self.exit_node_ip else None

    @property
    def offers_exit_node(self) -> bool:
        """Whether both default routes are advertised (EX-03)."""
        return {"0.0.0.0/0", "::/0"} <= set(self.advertise_routes or ())

    @property
    def wants_exit_node(self) -> bool:
        return bool(self.exit_node_id or self.exit_node_ip or self.auto_exit_node)

    def effective_control_url(self) -> str:
        return self.control_url or DEFAULT_CONTROL_URL


# Written only when set, as Go's ``omitempty`` does.
_OMIT_EMPTY = ("AutoExitNode", "ForceDaemon", "OperatorUser", "ProfileName", "RelayServerStaticEndpoints")
_OMIT_NULL = ("RelayServerPort",)
_FIELDS = {field.encode_name.lower(): field for field in msgspec.structs.fields(Prefs)}
_PERSIST_FIELDS = frozenset(field.encode_name.lower() for field in msgspec.structs.fields(Persist))
_PARTS: dict[str, type[msgspec.Struct]] = {
    "config": Persist,
    "auto_update": AutoUpdatePrefs,
    "app_connector": AppConnectorPrefs,
}
_UNSETTABLE = frozenset({"sync", "no_stateful_filtering"})  # true, false, or null for "not said"
_EXIT_NODE_MASKS = frozenset({"exitnodeidset", "exitnodeipset", "autoexitnodeset"})
UNRESOLVED_EXIT_NODE = "auto:any"
"""The exit node of a node that is to choose one and has not yet (PP-17): nobody has this id, so nothing leaks."""
_NOT_SETTABLE = frozenset({"config", "internalexitnodeprior"})


def default_prefs() -> Prefs:
    """The preferences of a new profile (PS-06)."""
    return Prefs(want_running=False, logged_out=True)


def same_control(a: str, b: str) -> bool:
    """Whether two control URLs mean the same server."""
    first, second = a or DEFAULT_CONTROL_URL, b or DEFAULT_CONTROL_URL
    return first == second or (first in CONTROL_SYNONYMS and second in CONTROL_SYNONYMS)


def to_json(prefs: Prefs) -> dict[str, Any]:
    """The JSON object, with the private keys of ``config``; call ``redacted()`` first to publish it."""
    built: dict[str, Any] = msgspec.to_builtins(prefs)
    for name in _OMIT_EMPTY:
        if not built[name]:
            del built[name]
    for name in _OMIT_NULL:
        if built[name] is None:
            del built[name]
    if prefs.config is None:
        built["Config"] = None
    return built


def from_json(data: Mapping[str, Any], base: Prefs | None = None) -> Prefs:
    """Preferences from a decoded object; absent or null fields keep those of ``base``, unknown are ignored.

    Names match case-insensitively. Raises MeshdError "invalid" naming the field of a wrong type.
    """
    changes: dict[str, Any] = {}
    for name, value in data.items():
        field = _FIELDS.get(name.lower())
        if field is not None and (value is not None or field.name in _UNSETTABLE):
            changes[field.name] = _convert(field, value)
    if changes.get("relay_server_static_endpoints") == ():
        changes["relay_server_static_endpoints"] = None  # it is written only when it is not empty
    return msgspec.structs.replace(base or Prefs(), **changes)


def _convert(field: msgspec.structs.FieldInfo, value: Any) -> Any:
    if field.name in _UNSETTABLE:
        value = _three_valued(value)
    elif field.name in _PARTS and isinstance(value, Mapping):
        value = _respelled(_PARTS[field.name], value)
    try:
        return msgspec.convert(value, field.type)
    except msgspec.ValidationError as error:
        raise MeshdError(f"{field.encode_name}: {error}", code="invalid") from None


def _three_valued(value: Any) -> Any:
    """True, false or None for "not said", where the texts of the same meaning are taken too (INV-6)."""
    return (
        {"true": True, "false": False, "": None, "unset": None}.get(value, value) if isinstance(value, str) else value
    )


def _respelled(part: type[msgspec.Struct], value: Mapping[str, Any]) -> dict[str, Any]:
    """A part of preferences with its names as we write them, without nulls and unknown names (INV-7)."""
    respelled: dict[str, Any] = _shape(part).normalise(dict(value))
    if part is AutoUpdatePrefs and "Apply" in respelled:
        respelled["Apply"] = _three_valued(respelled["Apply"])
    return respelled


@functools.cache
def _shape(part: type[msgspec.Struct]) -> Shape:
    from meshd.wire.control.shape import shape_of

    return shape_of(part)


def keep_unknown(data: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Add to ``data``, which `to_json` made, what an older stored form has beyond the fields known here."""
    data.update({name: value for name, value in stored.items() if name.lower() not in _FIELDS})
    config, before = data["Config"], next((v for n, v in stored.items() if n.lower() == "config"), None)
    if config is not None and isinstance(before, Mapping):
        config.update({name: value for name, value in before.items() if name.lower() not in _PERSIST_FIELDS})


def edit(current: Prefs, masked: Mapping[str, Any]) -> Prefs:
    """Apply the fields of ``masked`` whose ``<Name>Set`` is true (PP-02). MeshdError "invalid" when it cannot be.

    Those that are not marked have to be of the right type all the same: whoever sends others means something else.
    """
    lowered = {name.lower(): value for name, value in masked.items()}
    changes: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        value, mark = lowered.get(name), lowered.get(name + "set")
        given = _zero(field) if value is None else _convert(field, value)
        if name == "autoupdate":
            changes[field.name] = _edit_auto_update(current.auto_update, value, mark)
        elif _marked(field.encode_name, mark):
            if name in _NOT_SETTABLE:
                raise MeshdError("can't set Internal fields", code="invalid")
            changes[field.name] = given
    _marked("Egg", lowered.get("eggset"))
    if changes.get("exit_node_id") == "":
        changes["internal_exit_node_prior"] = ""
    if changes.get("auto_exit_node") == "" and current.exit_node_id == UNRESOLVED_EXIT_NODE:
        changes.setdefault("exit_node_id", "")
    if names_exit_node(masked):
        changes.setdefault("auto_exit_node", "")
    return msgspec.structs.replace(current, **changes)


def names_exit_node(masked: Mapping[str, Any]) -> bool:
    """Whether an edit sets the exit node, be it to what it is."""
    return any(chosen and name.lower() in _EXIT_NODE_MASKS for name, chosen in masked.items())


def hatches(masked: Mapping[str, Any]) -> bool:
    """Whether an edit asks for the egg, which is no preference: it is told to control and never stored (PP-14)."""
    return any(chosen is True and name.lower() == "eggset" for name, chosen in masked.items())


def _edit_auto_update(current: AutoUpdatePrefs, value: Mapping[str, Any] | None, mark: Any) -> AutoUpdatePrefs:
    if mark is None:
        mark = {}
    if not isinstance(mark, Mapping):
        raise MeshdError("AutoUpdateSet: expected an object", code="invalid")
    marks = {name.lower(): marked for name, marked in mark.items()}
    given = {"Check": False} | _respelled(AutoUpdatePrefs, value or {})
    wanted: AutoUpdatePrefs = _convert(_FIELDS["autoupdate"], given)
    check = wanted.check if _marked("Check", marks.get("checkset")) else current.check
    apply = wanted.apply if _marked("Apply", marks.get("applyset")) else current.apply
    return AutoUpdatePrefs(check, apply)


def _marked(name: str, mark: Any) -> bool:
    if mark is not None and not isinstance(mark, bool):
        raise MeshdError(f"{name}Set: expected true or false", code="invalid")
    return mark is True


def _zero(field: msgspec.structs.FieldInfo) -> Any:
    zeros: dict[Any, Any] = {str: "", bool: False, int: 0, AppConnectorPrefs: AppConnectorPrefs()}
    return zeros.get(field.type)


def check(prefs: Prefs, before: Prefs | None = None) -> None:
    """Raise MeshdError "invalid" with every complaint about ``prefs``, one a line (PP-05).

    What is wrong with ``before`` already is nobody's fault now: a policy may have made it so, and the user must still
    be able to change other things, to disconnect above all.
    """
    known = _complaints(before) if before is not None else []
    complaints = [text for text in _complaints(prefs) if text not in known]
    if complaints:
        raise MeshdError("\n".join(complaints), code="invalid")


def _complaints(prefs: Prefs) -> list[str]:
    return [text for rule in _RULES for text in rule(prefs)]


def _check_routes(prefs: Prefs) -> list[str]:
    complaints = []
    defaults = 0
    for text in prefs.advertise_routes or ():
        try:
            defaults += parse_prefix(text).prefixlen == 0
        except ValueError as error:
            complaints.append(_host_bits(text) or f"{text!r} is not a route: {error}")
    if defaults == 2 and prefs.wants_exit_node:
        complaints.append("Cannot advertise an exit node and use an exit node at the same time.")
    return complaints


def _host_bits(route: str) -> str | None:
    """The complaint about an otherwise good route that names a host inside it."""
    try:
        network = ip_interface(route).network
    except ValueError:
        return None
    return f"route {route} has non-address bits set; expected {network}"


def _check_tags(prefs: Prefs) -> list[str]:
    return [complaint for tag in prefs.advertise_tags or () if (complaint := tag_complaint(tag))]


def tag_complaint(tag: str) -> str | None:
    """What is wrong with a tag, or None."""
    name = tag.removeprefix("tag:")
    if name == tag:
        return f"tag: {tag!r}: tags must start with 'tag:'"
    if not name or not name[0].isascii() or not name[0].isalpha():
        return f"tag: {tag!r}: tag names must start with a letter, after 'tag:'"
    if not all(c.isascii() and (c.isalnum() or c == "-") for c in name):
        return f"tag: {tag!r}: tag names can only contain numbers, letters, or dashes"
    return None


def _check_simple(prefs: Prefs) -> list[str]:
    complaints = []
    if prefs.hostname == "badhostname.tailscale.":
        complaints.append("bad hostname [test]")
    if prefs.netfilter_mode not in (0, 1, 2):
        complaints.append(f"NetfilterMode is {prefs.netfilter_mode}, expected 0, 1 or 2")
    if prefs.exit_node_ip:
        try:
            parse_ip(prefs.exit_node_ip)
        except ValueError:
            complaints.append(f"ExitNodeIP {prefs.exit_node_ip!r} is not an IP address")
    if prefs.run_ssh:
        complaints.append("This build of meshd has no SSH server.")
    if prefs.auto_update.apply:
        complaints.append("Auto-updates are not supported on this platform.")
    if prefs.control_url:
        complaints += _check_control_url(prefs.control_url)
    return complaints


def _check_control_url(url: str) -> list[str]:
    if not url.startswith(("http://", "https://")):
        return [f"the control URL {url!r} must start with http:// or https://"]
    from meshd.core.controladdress import control_address

    try:
        control_address(url)
    except MeshdError as error:
        return [f"{error.message}. {error.hint}"]
    return []


def _check_relay_server(prefs: Prefs) -> list[str]:
    complaints = []
    for text in prefs.relay_server_static_endpoints or ():
        try:
            AddrPort.parse(text)
        except ValueError:
            complaints.append(f"RelayServerStaticEndpoints: {text!r} is not an address with a port")
    return complaints


_RULES = (_check_simple, _check_routes, _check_tags, _check_relay_server)


def without_effect(prefs: Prefs) -> list[str]:
    """What is asked for, kept for other programs to read, and not done: this build lacks the part."""
    asked = {
        "RunWebClient": prefs.run_web_client,
        "RelayServerPort": prefs.relay_server_port is not None,
        "RelayServerStaticEndpoints": bool(prefs.relay_server_static_endpoints),
        "AppConnector": prefs.app_connector.advertise,
    }
    return [name for name, wanted in asked.items() if wanted]
