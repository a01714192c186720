"""Keeps the last netmap of every profile sealed on disk, so that a node finds its peers without its server.

The file is sealed with a key made from the node key: whoever logs out, or logs in anew, can no longer read it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from meshd.base import crypto
from meshd.base.addr import AddrPort
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError, WireError
from meshd.base.keys import DiscoPrivate, NodePrivate, NodePublic
from meshd.base.log import get_logger, kv
from meshd.core.cachedmap import NO_CACHE_ATTRIBUTE, CachedMap, Picture, decode_cached
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs, same_control
from meshd.io.files import remove_leftovers, write_atomic
from meshd.io.threads import start_thread
from meshd.node.profiledata import ProfileData
from meshd.wire.zstd import compress, decompress

log = get_logger(__name__)

MAGIC = b"meshd netmap 1\n"
_NONCE_BYTES = 24
_PURPOSE = b"meshd: key of the cached netmap"
MAX_FILE_BYTES, MAX_MAP_BYTES = 64 << 20, 512 << 20

FIRST_WRITE_S = 1.0  # after the first change: a node that just joined may be gone soon
QUIET_S = 20.0  # between writes
SHARE = 1000  # a write that took a second is followed by this many seconds without one


VARIABLE = "MESHD_NETMAP_CACHE"
_VARIABLES = (VARIABLE, "TS_USE_CACHED_NETMAP")


def cache_wanted(environment: Mapping[str, str]) -> bool:
    """Netmaps are kept unless ``MESHD_NETMAP_CACHE`` (or tailscaled's name for it) says no.

    Raises MeshdError "usage" for a value that is neither.
    """
    for name in _VARIABLES:
        value = environment.get(name, "").lower()
        if value in ("0", "false", "f", "no", "off"):
            return False
        if value not in ("", "1", "true", "t", "yes", "on"):
            raise MeshdError(f"{name}={value}: expected on or off", code="usage", hint=f"Unset {name} for on.")
    return True


class Paths(Protocol):
    """What the path layer knows that a later process will want."""

    @property
    def disco_private(self) -> DiscoPrivate: ...
    def adopt_disco(self, private: DiscoPrivate) -> None: ...
    def last_addresses(self) -> dict[NodePublic, AddrPort]: ...


class NetmapCache:
    """One node's cached netmaps. ``connected`` lists the peers with a session."""

    def __init__(
        self,
        data: ProfileData,
        clock: Clock,
        paths: Paths,
        connected: Callable[[], list[NodePublic]],
        loop: asyncio.AbstractEventLoop,
        *,
        enabled: bool = True,
    ) -> None:
        self._data = data
        self._clock = clock
        self._paths = paths
        self._connected = connected
        self._loop = loop
        self._enabled = enabled
        self._latest: tuple[Path, NodePrivate, Prefs, Netmap] | None = None
        self._latest_of = ""
        self._held: tuple[DiscoPrivate, tuple[int, ...], dict[NodePublic, AddrPort]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writer: threading.Thread | None = None
        self._again = False  # something changed during a write
        self._quiet_until = 0.0

    def load(self, profile_id: str, prefs: Prefs) -> CachedMap | None:
        """The map to begin with, which also brings back our disco key. A file that is of no use is removed."""
        path, private = self._path(profile_id), prefs.persist().node_private()
        if path is None or private is None:
            return None
        try:
            sealed = _read(path)
            if sealed is None:
                return None
            if not self._enabled:
                raise WireError("keeping netmaps is switched off")
            cached = decode_cached(_open(sealed, private), private.public(), self._clock.wall())
            if not same_control(cached.control_url, prefs.control_url):
                raise WireError("it is of another server")
            if cached.user_id != prefs.persist().user_profile.id:
                raise WireError("it is of another user")
        except (WireError, OSError) as reason:
            self.refuse(profile_id, reason)
            return None
        self._paths.adopt_disco(cached.disco)
        log.info("netmap_recalled", extra=kv(peers=len(cached.response.peers), path=path))
        return cached

    def refuse(self, profile_id: str, reason: Exception) -> None:
        """The cached map of a profile is not to be used again."""
        log.warning("netmap_cache_refused", extra=kv(reason=reason))
        self.forget(profile_id)

    def forget(self, profile_id: str) -> None:
        """Remove the cached map of a profile, and write none until there is a new one."""
        path = self._path(profile_id)
        if path is None:
            return
        if self._latest is not None and self._latest[0] == path:
            self.pause()
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("netmap_cache_stays", extra=kv(path=path, reason=error.strerror))

    def keep(self, profile_id: str, prefs: Prefs, netmap: Netmap) -> None:
        """The server changed something: ``netmap`` is to be on disk soon."""
        if not self._enabled:
            return
        if self._latest is not None and self._latest[2] is prefs and self._latest_of == profile_id:
            path, private = self._latest[:2]  # as with nearly every change
        else:
            known, key = self._path(profile_id), prefs.persist().node_private()
            if known is None or key is None:
                return
            path, private = known, key
        if netmap.self_node.has_cap(NO_CACHE_ATTRIBUTE):
            self.forget(profile_id)
            return
        self._latest, self._latest_of = (path, private, prefs, netmap), profile_id
        self._held = None
        self.touch()

    def hold(self) -> None:
        """Paths and sessions are about to end, and with them our disco key: what a later process wants is as now."""
        if self._latest is not None:
            self._held = self._ways(self._latest[3])

    def touch(self) -> None:
        """Paths or sessions changed."""
        if self._latest is None:
            return
        if self._writer is not None:
            self._again = True
        elif self._timer is None:
            now = self._loop.time()
            self._timer = self._loop.call_at(max(now + FIRST_WRITE_S, self._quiet_until), self._begin)

    def pause(self) -> None:
        """Write nothing more of what was to be kept; a write under way is waited for."""
        self._latest = self._held = None
        self._again = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def close(self) -> None:
        """Write what waits, and paths as they are now."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        picture = self._picture()
        self.pause()
        if picture is not None:
            _write(*picture)

    # -- writing --------------------------------------------------------------------------------------------

    def _path(self, profile_id: str) -> Path | None:
        directory = self._data.directory(profile_id)
        return directory / "netmap-cache" / "netmap" if directory is not None else None

    def _picture(self) -> tuple[Path, NodePrivate, Picture] | None:
        if self._latest is None:
            return None
        path, private, prefs, netmap = self._latest
        if netmap.node_key != private.public():
            return None  # a key change is under way; its end brings a new netmap
        disco, met, reached = self._ways(netmap)
        picture = Picture(
            netmap,
            control_url=prefs.effective_control_url(),
            user_id=prefs.persist().user_profile.id,
            disco=disco,
            met=met,
            reached=reached,
        )
        return path, private, picture

    def _ways(self, netmap: Netmap) -> tuple[DiscoPrivate, tuple[int, ...], dict[NodePublic, AddrPort]]:
        """The disco key that peers know us by, those there are sessions with, and where they were reached."""
        disco = self._paths.disco_private
        if self._held is not None and self._held[0] != disco:
            return self._held
        connected = (netmap.peer_by_key(key) for key in self._connected())
        met = tuple(node.id for node in connected if node is not None)
        return disco, met, self._paths.last_addresses()

    def _begin(self) -> None:
        self._timer = None
        picture = self._picture()
        if picture is None:
            return
        self._writer = start_thread("netmap cache", self._work, *picture)
        if self._writer is None:
            self._quiet_until = self._loop.time() + QUIET_S
            self.touch()

    def _work(self, path: Path, private: NodePrivate, picture: Picture) -> None:
        begun = time.thread_time()
        _write(path, private, picture)
        cost = time.thread_time() - begun
        try:
            self._loop.call_soon_threadsafe(self._written, threading.current_thread(), cost)
        except RuntimeError:
            log.debug("netmap_written_late")  # the loop is closed: nobody waits for us

    def _written(self, writer: threading.Thread, cost: float) -> None:
        if writer is not self._writer:
            return
        self._writer = None
        self._quiet_until = self._loop.time() + max(QUIET_S, SHARE * cost)
        if self._again:
            self._again = False
            self.touch()


def _write(path: Path, private: NodePrivate, picture: Picture) -> None:
    try:
        data = _seal(picture.encode(), private)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_leftovers(path)
        write_atomic(path, data)
    except (WireError, OSError) as error:
        log.warning("netmap_not_kept", extra=kv(reason=getattr(error, "strerror", None) or error))


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(data) > MAX_FILE_BYTES:
        raise WireError("the file is too large")
    return data


def _key(private: NodePrivate) -> bytes:
    return crypto.hmac_blake2s(private.raw, _PURPOSE)


def _seal(plain: bytes, private: NodePrivate) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return MAGIC + nonce + crypto.xaead_seal(_key(private), nonce, compress(plain), MAGIC)


def _open(data: bytes, private: NodePrivate) -> bytes:
    if not data.startswith(MAGIC):
        raise WireError("it is not a netmap of this version of meshd")
    body = data[len(MAGIC) :]
    packed = crypto.xaead_open(_key(private), body[:_NONCE_BYTES], body[_NONCE_BYTES:], MAGIC)
    if packed is None:
        raise WireError("it is damaged, or was written under another node key")
    return decompress(packed, MAX_MAP_BYTES)
