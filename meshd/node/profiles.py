"""The profiles in the store, and the preferences of the current one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time
from meshd.base.keys import MachinePrivate, Random
from meshd.base.log import get_logger, kv
from meshd.core import prefs as prefs_module
from meshd.core.prefs import Prefs, default_prefs
from meshd.core.profile import LoginProfile, NetworkProfile, adopt
from meshd.node.identity import to_control
from meshd.node.store import CURRENT_PROFILE, LEGACY_PREFS, MACHINE_KEY, PROFILES, Store

log = get_logger(__name__)

Changes = Mapping[str, bytes | None]
Update = Callable[[Changes], None]

MAX_PROFILES = 100
"""More than a person switches between; every one is read at each start."""


class Profiles:
    """Owns ``prefs`` and ``current``; every change but those of `keep` is stored before the call returns (INV-2)."""

    def __init__(self, store: Store, random: Random, wall: Callable[[], float]) -> None:
        self._store = store
        self._random = random
        self._wall = wall
        self.prefs: Prefs = default_prefs()
        self.current = LoginProfile()
        self._known: dict[str, LoginProfile] = {}
        self.on_deleted: Callable[[str], None] = lambda _: None
        """Called with the id of a profile that is gone."""
        self._unstored: dict[str, bytes | None] = {}
        self.on_unstored: Callable[[MeshdError | None], None] = lambda _: None
        """Called with the reason why something could not be stored, and with None once all of it is."""
        if store.problem is None:
            self.load()

    def load(self) -> None:
        """Read everything, once there is a store; what cannot be understood becomes its problem."""
        try:
            known = self._store.read(PROFILES)
            self._known = msgspec.json.decode(known, type=dict[str, LoginProfile]) if known else {}
            key = (self._store.read(CURRENT_PROFILE) or b"").decode("utf-8", "replace")
            self.current = next((p for p in self._known.values() if p.key == key), LoginProfile())
            self.prefs = self._read_prefs(LEGACY_PREFS if self._only_legacy() else self.current.key)
        except (msgspec.MsgspecError, ValueError, RecursionError, MeshdError) as error:
            self._store.problem = MeshdError(
                f"the stored profiles cannot be understood: {error}",
                code="unavailable",
                hint="meshd keeps the state file and does not log in. Restore the file or move it away, then restart.",
            )

    def _only_legacy(self) -> bool:
        """Whether there is a login from before there were profiles, and nothing newer (PS-05)."""
        return self._latest(PROFILES) is None and self._store.read(LEGACY_PREFS) is not None

    def _read_prefs(self, key: str) -> Prefs:
        """PS-08: absent fields keep their defaults; a synonym of the default control URL is stored as empty.

        Raises MeshdError when they cannot be understood.
        """
        blob = self._latest(key) if key else None
        if not blob:
            return default_prefs()
        try:
            prefs = prefs_module.from_json(_decode(blob))
            to_control(prefs.persist())
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MeshdError(f"the preferences or keys in {key} are damaged: {error}", code="unavailable") from None
        if prefs.control_url == "https://login.tailscale.com":
            prefs = msgspec.structs.replace(prefs, control_url="")
        if prefs.auto_update.apply:
            updates = msgspec.structs.replace(prefs.auto_update, apply=None)
            prefs = msgspec.structs.replace(prefs, auto_update=updates)
        return prefs

    def list(self) -> list[LoginProfile]:
        """All stored profiles by name (PS-09)."""
        return sorted(self._known.values(), key=lambda p: (p.name, p.id))

    def name_taken(self, name: str) -> bool:
        return any(p.name == name and p.id != self.current.id for p in self._known.values())

    def set_prefs(self, prefs: Prefs, network: NetworkProfile | None = None) -> None:
        """Make ``prefs`` current. Raises MeshdError, with nothing changed, when they cannot be stored."""
        self._set(prefs, network, self._update)

    def keep(self, prefs: Prefs, network: NetworkProfile | None = None) -> None:
        """As `set_prefs`, for what others have settled already: current also when it cannot be stored yet.

        After a login the server and the peers know only the new key, whatever becomes of the disk.
        """
        self._set(prefs, network, self._update_when_possible)

    def store_rest(self) -> bool:
        """Try again to write what could not be stored; True when nothing is left."""
        if self._unstored:
            self._update_when_possible({})
        return not self._unstored

    def _set(self, prefs: Prefs, network: NetworkProfile | None, update: Update) -> None:
        persist = prefs.persist()
        profile = self.current
        known = self._known
        replaced: Sequence[LoginProfile] = ()
        if persist.node_id and persist.user_profile.login_name:
            profile, replaced = adopt(known, profile, prefs, self._random, format_time(self._wall()))
            if network is not None:
                profile = msgspec.structs.replace(profile, network_profile=network)
            gone = {p.id for p in replaced}
            known = {i: p for i, p in known.items() if i not in gone} | {profile.id: profile}
        if profile.id:
            changes = _without(replaced)
            changes[profile.key] = _encode(prefs, self._latest(profile.key))
            if known != self._known or profile != self.current:
                changes[PROFILES] = _encode_profiles(known)
                changes[CURRENT_PROFILE] = profile.key.encode()
            update(changes)
            log.debug("profile_set", extra=kv(id=profile.id, replaced=len(replaced)))
        self._known, self.current, self.prefs = known, profile, prefs
        for old in replaced:
            self.on_deleted(old.id)

    def _latest(self, key: str) -> bytes | None:
        """What is stored, or would be if it could."""
        return self._unstored[key] if key in self._unstored else self._store.read(key)

    def _update(self, changes: Changes) -> None:
        late = bool(self._unstored)
        self._store.update({**self._unstored, **changes})
        self._unstored = {}
        if late:
            self.on_unstored(None)

    def _update_when_possible(self, changes: Changes) -> None:
        try:
            self._update(changes)
        except MeshdError as error:
            self._unstored |= changes
            self.on_unstored(error)

    def check_room(self) -> None:
        """MeshdError when there are so many profiles that no other can be begun."""
        if len(self._known) >= MAX_PROFILES:
            raise MeshdError(
                f"there are {MAX_PROFILES} login profiles already",
                code="invalid",
                hint="Remove one with: mesh switch remove ID",
            )

    def new(self, operator: str = "") -> None:
        """An empty profile becomes current; nothing is stored until its first login (PS-11)."""
        self.current = LoginProfile()
        self.prefs = msgspec.structs.replace(default_prefs(), operator_user=operator)

    def switch(self, profile_id: str) -> None:
        """PS-10. Raises MeshdError, with nothing changed, when that cannot be."""
        profile = self._known.get(profile_id)
        if profile is None:
            raise MeshdError("profile not found", code="not_found")
        prefs = self._read_prefs(profile.key)
        self._update({CURRENT_PROFILE: profile.key.encode()})
        log.debug("profile_switched", extra=kv(was=self.current.id, now=profile_id))
        self.current, self.prefs = profile, prefs

    def delete(self, profile_id: str) -> bool:
        """Remove a profile and all that is stored for it; True when it was the current one (PS-12)."""
        profile = self._known.get(profile_id)
        was_current = profile_id == self.current.id
        if profile is not None:
            known = {i: p for i, p in self._known.items() if i != profile_id}
            changes = _without([profile]) | {PROFILES: _encode_profiles(known)}
            if was_current:
                changes[CURRENT_PROFILE] = None
            self._update(changes)
            log.debug("profile_deleted", extra=kv(id=profile_id, current=was_current))
            self._known = known
            self.on_deleted(profile_id)
        elif was_current and self._only_legacy():
            self._update({PROFILES: _encode_profiles({})})
        if was_current:
            self.new()
        return was_current

    def reset(self) -> None:
        """Forget every profile and the machine key, all of it or nothing (PS-14)."""
        gone = self.list()
        changes = _without(gone) | {PROFILES: _encode_profiles({}), CURRENT_PROFILE: None, MACHINE_KEY: None}
        self._update(changes)
        self._known = {}
        self.new()
        for profile in gone:
            self.on_deleted(profile.id)

    def check_machine_key(self) -> None:
        """MeshdError when there is a device key and it is no good. None is made: an image of a machine that never
        logged in may become many machines."""
        if self._store.read(MACHINE_KEY) or self._legacy_machine_key() is not None:
            self.machine_key()

    def machine_key(self) -> MachinePrivate:
        """The device's key, made and stored on first use (LK-01)."""
        raw = self._store.read(MACHINE_KEY)
        if raw:
            try:
                key = MachinePrivate.parse(raw.decode("ascii", "replace"))
            except ValueError as error:
                raise MeshdError(
                    f"invalid key in {MACHINE_KEY} of the state file: {error}", code="unavailable"
                ) from None
            if key.is_zero:
                raise MeshdError(f"invalid zero key in {MACHINE_KEY} of the state file", code="unavailable")
            return key
        key = self._legacy_machine_key() or MachinePrivate.generate(self._random)
        self._store.write(MACHINE_KEY, key.text().encode())
        log.info("machine_key_made", extra=kv(machine=key.public()))
        return key

    def _legacy_machine_key(self) -> MachinePrivate | None:
        """The device's key where very old versions kept it: beside the node key."""
        text = self.prefs.persist().private_machine_key
        if not text:
            return None
        try:
            key = MachinePrivate.parse(text)
        except ValueError as error:
            raise MeshdError(f"invalid PrivateMachineKey in the stored profile: {error}", code="unavailable") from None
        return None if key.is_zero else key


def _without(profiles: Sequence[LoginProfile]) -> dict[str, bytes | None]:
    """The change that removes all that is stored for these profiles (PS-17)."""
    return {key: None for p in profiles for key in (p.key, f"{p.key}||_routeInfo", f"_serve/{p.id}")}


def _decode(blob: bytes) -> dict[str, object]:
    return msgspec.json.decode(blob, type=dict[str, object])


def _encode(prefs: Prefs, stored: bytes | None) -> bytes:
    """``stored`` is what is there now: fields of other daemons, which we do not know, are kept."""
    data = prefs_module.to_json(prefs)
    if stored:
        prefs_module.keep_unknown(data, _decode(stored))
    return msgspec.json.format(msgspec.json.encode(data), indent=2)


def _encode_profiles(known: dict[str, LoginProfile]) -> bytes:
    return msgspec.json.encode(known)
