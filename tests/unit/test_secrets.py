"""Keys are planted, everything that a daemon says is collected, and no key may be in it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.base.keys import ChallengePrivate, DiscoPrivate, LockPrivate, MachinePrivate, NodePrivate
from meshd.core.controlstatus import ControlStatus
from meshd.core.controlstatus import Persist as ControlPersist
from meshd.core.cookie import CookieChecker, CookieJar
from meshd.core.derpclient import DerpClient
from meshd.core.discomap import DiscoMap
from meshd.core.handshake import (
    AcceptedInitiation,
    Counterpart,
    Identity,
    OpenedInitiation,
    PendingInitiation,
    SessionKeys,
)
from meshd.core.prefs import Persist, Prefs
from meshd.core.tunneleffects import InstallSession
from meshd.node.sealedstate import StateSeal
from meshd.testing.fakecontrol import FakeControl
from meshd.wire.control import RegisterAuth, RegisterRequest
from meshd.wire.noise import Initiator, Responder, StreamCipher, Transport
from meshd.wire.wireguard import Initiation

AUTH_KEY = "mesh-auth-0123456789ab-" + "5ec2e7" * 10 + "beef"
PLANTED = "planted-by-the-test-7c1f"
READING = ["status", "prefs", "metrics", "usermetrics", "goroutines", "profiles/", "profiles/current", "derpmap"]
READING += ["debug-packet-filter-rules", "check-ip-forwarding", "serve-config", "whois?addr=100.64.0.1:1"]
READING += ["peer-by-id?id=1", "user-profile?id=1", "no-such-route"]
ALL_WATCH_BITS = 1 | 2 | 4 | 8 | 128


def shapes(secret: bytes) -> list[bytes]:
    """How a secret may be written."""
    return [
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        b64encode(secret).rstrip(b"="),
        urlsafe_b64encode(secret).rstrip(b"="),
        repr(secret)[2:-1].encode(),
        ", ".join(map(str, secret)).encode(),
    ]


def leaks(text: bytes, secrets: dict[str, bytes]) -> list[str]:
    """Names of the secrets that are in the text, in whatever shape."""
    return [name for name, secret in secrets.items() if any(shape in text for shape in shapes(secret))]


def test_leaks_finds_every_shape() -> None:
    secret = bytes(range(32))
    for shape in shapes(secret):
        assert leaks(b"before " + shape + b" after", {"it": secret}) == ["it"]
    assert leaks(b"nothing here", {"it": secret}) == []


# -- representations


RAW = MachinePrivate.generate().raw
OTHER = MachinePrivate(RAW).public()
LOCK = LockPrivate.generate()
INITIATION = Initiation(1, bytes(32), bytes(48), bytes(28), bytes(16), bytes(16))


def holders() -> Iterator[Any]:
    """One of everything that holds ``RAW`` as a secret."""
    node, text = NodePrivate(RAW), NodePrivate(RAW).text()
    for kind in (MachinePrivate, NodePrivate, DiscoPrivate, ChallengePrivate):
        yield kind(RAW)
    yield LockPrivate(RAW + RAW)
    yield Identity.of(RAW)
    yield Counterpart(OTHER.raw, RAW, RAW)
    keys = SessionKeys(1, 2, RAW, RAW, True)
    yield keys
    yield InstallSession(keys, "next", 0.0)
    yield PendingInitiation(1, RAW, RAW, bytes(32))
    yield OpenedInitiation(OTHER.raw, INITIATION, RAW, bytes(32))
    yield AcceptedInitiation(bytes(12), 1, bytes(32), RAW, bytes(32))
    yield Transport(RAW, RAW, bytes(32))
    yield StreamCipher(Transport(RAW, RAW, bytes(32)))
    yield Responder(MachinePrivate(RAW))
    yield Initiator(MachinePrivate(RAW), OTHER, 113, RAW)
    yield CookieChecker(OTHER.raw, lambda size: RAW[:size])
    yield CookieJar(OTHER.raw)
    yield DiscoMap(DiscoPrivate(RAW))
    yield DerpClient(node, host="h", random=os.urandom)
    persist = Persist(private_node_key=text, old_private_node_key=text, network_lock_key=LockPrivate(RAW + RAW).text())
    yield persist
    yield Prefs(config=persist)
    control = ControlPersist(node, node, LockPrivate(RAW + RAW))
    yield control
    yield ControlStatus(persist=control)
    yield RegisterAuth(auth_key=text)
    yield RegisterRequest(auth=RegisterAuth(auth_key=text))


@pytest.mark.parametrize("holder", list(holders()), ids=lambda holder: type(holder).__name__)
def test_repr_shows_no_secret(holder: Any) -> None:
    for text in (repr(holder), str(holder), f"{holder}", repr([holder]), repr({"x": holder})):
        assert leaks(text.encode(), {"the key": RAW}) == []


@pytest.mark.parametrize("kind", [MachinePrivate, NodePrivate, DiscoPrivate, LockPrivate])
@pytest.mark.parametrize("damage", [lambda t: t[:-1], lambda t: t + "0", lambda t: t[:-1] + "g", lambda t: "x" + t])
def test_error_about_a_damaged_key_does_not_repeat_it(kind: Any, damage: Any) -> None:
    text = (LOCK if kind is LockPrivate else kind(RAW)).text()
    with pytest.raises(ValueError) as caught:
        kind.parse(damage(text))
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert text.partition(":")[2][:40] not in shown


def test_error_repr_shows_no_facts_of_keys() -> None:
    error = MeshdError("it failed", code="internal", key=NodePrivate(RAW))
    assert leaks(f"{error!r} {error}".encode(), {"the key": RAW}) == []


# -- a whole daemon


async def ask(socket: Path, method: str, route: str, body: bytes = b"") -> bytes:
    """The whole answer of a route; of an endless one, what came within half a second."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    head = f"{method} /localapi/v0/{route} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = bytearray()
    try:
        async with asyncio.timeout(0.5 if route.startswith("watch") else 10):
            while part := await reader.read(65536):
                answer += part
    except TimeoutError:
        assert answer
    finally:
        writer.close()
    return bytes(answer)


def stored_secrets(state: Path) -> dict[str, bytes]:
    """Every private key in the state file."""
    found = {}
    plain = StateSeal(state).open(state.read_bytes())
    assert plain is not None
    for name, value in json.loads(plain).items():
        for prefix, digits in re.findall(r"(privkey|nlpriv):([0-9a-f]+)", b64decode(value).decode()):
            if any(bytes.fromhex(digits)):
                found[f"{prefix} {len(found)} in {name}"] = bytes.fromhex(digits)[:32]
    return found


async def life(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """Start, log in, ask for everything, misuse everything, log in anew, end: what was said, and the secrets."""
    socket, log = folder / "sock", folder / "log"
    said = bytearray()
    with log.open("wb") as output:
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshd.daemon.main", "--tun=userspace-networking", "--verbose=1"),
            *(f"--statedir={folder}", f"--state={folder}/state", f"--socket={socket}"),
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(30), FakeControl() as control:
            while not socket.exists() or b"started" not in log.read_bytes():  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.02)
            prefs = {"ControlURL": control.url, "WantRunning": True}
            start = json.dumps({"UpdatePrefs": prefs, "AuthKey": AUTH_KEY}).encode()
            said += await ask(socket, "POST", "start", start)
            said += await ask(socket, "POST", "login-interactive")
            while not control.streams:
                control.news.clear()
                await control.news.wait()
            for route in READING:
                said += await ask(socket, "GET", route)
            said += await ask(socket, "GET", f"watch-ipn-bus?mask={ALL_WATCH_BITS}")
            for method, route, value in (
                ("POST", "start", {"AuthKey": {"x": AUTH_KEY}}),
                ("POST", "start", {"AuthKey": AUTH_KEY, "UpdatePrefs": {"RouteAll": PLANTED, "ControlURL": 5}}),
                ("PATCH", "prefs", {"Hostname": [AUTH_KEY], "HostnameSet": True}),
                ("PATCH", "prefs", {"Config": {"PrivateNodeKey": "privkey:" + RAW.hex()}, "ConfigSet": True}),
                ("POST", "check-prefs", {"Config": {"PrivateNodeKey": "privkey:" + RAW.hex()}}),
                ("POST", "check-prefs", {"Config": "privkey:" + RAW.hex()}),
                ("POST", "start", AUTH_KEY),
            ):
                said += await ask(socket, method, route, json.dumps(value).encode())
            said += await ask(socket, "POST", "start", b'{"AuthKey": "' + AUTH_KEY.encode())
            secrets = stored_secrets(folder / "state")
            said += await ask(socket, "POST", "logout")
            said += await ask(socket, "GET", "prefs")
            assert len(control.registers) > 0
            assert control.registers[0].auth == RegisterAuth(auth_key=AUTH_KEY)
    finally:
        if daemon.returncode is None:
            daemon.terminate()
            await asyncio.wait_for(daemon.wait(), 10)
    assert daemon.returncode == 0
    return bytes(said) + log.read_bytes(), secrets


@pytest.mark.slow
def test_daemon_shows_no_secret_in_answers_bus_metrics_and_log(tmp_path: Path) -> None:
    said, secrets = asyncio.run(life(tmp_path))
    assert len(secrets) >= 3, "machine key, node key, lock key"
    secrets |= {"the auth key": AUTH_KEY.encode(), "its secret half": AUTH_KEY[-64:].encode(), "a given key": RAW}
    assert b"handshake" in said or b"state was=" in said, "the log was read"
    assert leaks(said, secrets) == []
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600
