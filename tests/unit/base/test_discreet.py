"""Values that do not show everything they hold."""

from __future__ import annotations

import pytest

from meshd.base.discreet import Discreet
from meshd.core.cachedmap import CachedMap
from meshd.core.controleffects import OpenMap, SendRegister, SendUpdate
from meshd.core.controlstatus import ControlStatus
from meshd.core.handshake import Identity, SessionKeys
from meshd.io.proxy import Proxy
from meshd.wire.nodekeysignature import WrappedAuthKey

SOME = (CachedMap, OpenMap, SendRegister, SendUpdate, ControlStatus, Identity, SessionKeys, Proxy, WrappedAuthKey)


class Login(Discreet, frozen=True):
    hidden = ("password",)

    name: str
    password: str = "secret"
    attempts: int = 0


def test_hidden_fields_are_not_shown() -> None:
    assert repr(Login("me", "swordfish", 3)) == str(Login("me", "swordfish", 3)) == "Login(name='me', attempts=3)"
    assert "swordfish" not in f"{[Login('me', 'swordfish')]}"


def test_hidden_fields_count_for_equality() -> None:
    assert Login("me", "one") != Login("me", "two")
    assert Login("me", "one") == Login("me", "one")


@pytest.mark.parametrize("kind", SOME, ids=lambda kind: kind.__name__)
def test_what_is_hidden_exists(kind: type[Discreet]) -> None:
    assert kind.hidden
    assert set(kind.hidden) <= set(kind.__struct_fields__)


def test_keys_of_a_handshake_are_hidden() -> None:
    shown = repr(Identity.of(bytes(range(32)))) + repr(SessionKeys(1, 2, b"S" * 32, b"R" * 32, True))
    assert "private" not in shown
    assert "S" * 32 not in shown
    assert "R" * 32 not in shown
