"""Whether a local user may do what only an administrator of this machine may: have the daemon read files as root."""

from __future__ import annotations

import asyncio

from meshd.base.log import get_logger, kv
from meshd.io.peercred import PeerIdentity

log = get_logger(__name__)

PATIENCE_S = 3.0


async def is_local_admin(peer: PeerIdentity | None, command: str = "mesh") -> bool:
    """Root, or somebody whom sudo lets run our command line as root (then nothing is gained by refusing)."""
    if peer is None:
        return False
    if peer.uid == 0:
        return True
    import pwd

    try:
        name = pwd.getpwuid(peer.uid).pw_name
    except KeyError:
        return False
    try:
        asked = await asyncio.create_subprocess_exec(
            *("sudo", "-n", f"--other-user={name}", "--list", command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.info("sudo_not_asked", extra=kv(uid=peer.uid, reason=error.strerror))
        return False
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asked.wait() == 0
    except TimeoutError:
        asked.kill()
        await asked.wait()
        return False
