"""Detailed logging of a component, for a while."""

from __future__ import annotations

import asyncio
import logging

import pytest

from meshd.base.errors import MeshdError
from meshd.node.componentlog import COMPONENTS, ComponentLog
from meshd.node.store import MemoryStore
from meshd.testing.clock import FakeClock


def level() -> int:
    return logging.getLogger(COMPONENTS["magicsock"][0]).level


def test_component_log_is_raised_lowered_and_survives_a_restart() -> None:
    """DB-01."""

    async def run() -> None:
        store, clock = MemoryStore(), FakeClock()
        first = ComponentLog(store, clock)
        assert not first.is_on("magicsock")
        first.enable("magicsock", 60)
        assert first.is_on("magicsock")
        assert level() == logging.DEBUG
        entry = "_debug_<component>_until".replace("<component>", "magicsock")
        assert store.read(entry) == str(int(clock.wall()) + 60).encode()
        first.close()
        assert level() == logging.NOTSET
        second = ComponentLog(store, clock)
        second.restore()
        assert level() == logging.DEBUG
        second.enable("magicsock", 0)
        assert level() == logging.NOTSET
        third = ComponentLog(store, clock)
        third.restore()
        assert level() == logging.NOTSET

    asyncio.run(run())


def test_component_log_unknown_name_is_refused() -> None:
    with pytest.raises(MeshdError, match='unknown component "x"'):
        ComponentLog(MemoryStore(), FakeClock()).enable("x", 1)
