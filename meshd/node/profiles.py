"""The profiles in the store, and the preferences of the current one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time
from meshd.base.keys import MachinePrivate, Random
from meshd.base.log import get_logger, kv
from meshd.core import prefs as prefs_module
from meshd.core.prefs import Prefs, default_prefs
from meshd.core.profile import LoginProfile, NetworkProfile, adopt
from meshd.node.store import CURRENT_PROFILE, MACHINE_KEY, PROFILES, Store

log = get_logger(__name__)


class Profiles:
    """Owns ``prefs`` and ``current``; every change is stored before the call returns (INV-2)."""

    def __init__(self, store: Store, random: Random, wall: Callable[[], float]) -> None:
        self._store = store
        self._random = random
        self._wall = wall
        self.prefs: Prefs = default_prefs()
        self.current = LoginProfile()
        self._known: dict[str, LoginProfile] = {}
        if store.problem is None:
            self._load()

    def _load(self) -> None:
        try:
            known = self._store.read(PROFILES)
            self._known = msgspec.json.decode(known, type=dict[str, LoginProfile]) if known else {}
            key = (self._store.read(CURRENT_PROFILE) or b"").decode("utf-8", "replace")
            self.current = next((p for p in self._known.values() if p.key == key), LoginProfile())
            self.prefs = self._read_prefs(self.current)
        except (msgspec.MsgspecError, MeshdError) as error:
            self._store.problem = MeshdError(
                f"the stored profiles cannot be understood: {error}",
                code="unavailable",
                hint="meshd keeps the state file and does not log in. Restore the file or move it away, then restart.",
            )

    def _read_prefs(self, profile: LoginProfile) -> Prefs:
        """PS-08: absent fields keep their defaults; a synonym of the default control URL is stored as empty."""
        blob = self._store.read(profile.key) if profile.key else None
        if not blob:
            return default_prefs()
        prefs = prefs_module.from_json(msgspec.json.decode(blob, type=dict[str, object]))
        if prefs.control_url == "https://login.tailscale.com":
            prefs = msgspec.structs.replace(prefs, control_url="")
        return prefs

    def list(self) -> list[LoginProfile]:
        """All stored profiles by name (PS-09)."""
        return sorted(self._known.values(), key=lambda p: (p.name, p.id))

    def name_taken(self, name: str) -> bool:
        return any(p.name == name and p.id != self.current.id for p in self._known.values())

    def set_prefs(self, prefs: Prefs, network: NetworkProfile | None = None) -> None:
        """Make ``prefs`` current. Raises MeshdError, with nothing changed, when they cannot be stored."""
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
            changes: dict[str, bytes | None] = {old.key: None for old in replaced}
            changes[profile.key] = _encode(prefs)
            if known != self._known or profile != self.current:
                changes[PROFILES] = _encode_profiles(known)
                changes[CURRENT_PROFILE] = profile.key.encode()
            self._store.update(changes)
        self._known, self.current, self.prefs = known, profile, prefs

    def new(self) -> None:
        """An empty profile becomes current; nothing is stored until its first login (PS-11)."""
        self.current, self.prefs = LoginProfile(), default_prefs()

    def switch(self, profile_id: str) -> None:
        """PS-10."""
        profile = self._known.get(profile_id)
        if profile is None:
            raise MeshdError("profile not found", code="not_found")
        prefs = self._read_prefs(profile)
        self._store.write(CURRENT_PROFILE, profile.key.encode())
        self.current, self.prefs = profile, prefs

    def delete(self, profile_id: str) -> bool:
        """Remove a profile; True when it was the current one (PS-12)."""
        profile = self._known.get(profile_id)
        if profile is not None:
            known = {i: p for i, p in self._known.items() if i != profile_id}
            changes: dict[str, bytes | None] = {PROFILES: _encode_profiles(known), profile.key: None}
            if profile_id == self.current.id:
                changes[CURRENT_PROFILE] = None
            self._store.update(changes)
            self._known = known
        if profile_id == self.current.id:
            self.new()
            return True
        return False

    def delete_all(self) -> None:
        for profile in self.list():
            self.delete(profile.id)
        self.new()

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
        key = MachinePrivate.generate(self._random)
        self._store.write(MACHINE_KEY, key.text().encode())
        log.info("machine_key_made", extra=kv(machine=key.public()))
        return key

    def forget_machine_key(self) -> None:
        self._store.write(MACHINE_KEY, None)


def _encode(prefs: Prefs) -> bytes:
    return msgspec.json.format(msgspec.json.encode(prefs_module.to_json(prefs)), indent=2)


def _encode_profiles(known: dict[str, LoginProfile]) -> bytes:
    return msgspec.json.encode(known)
