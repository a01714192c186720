"""Threads that can be done without for a while: a container limits how many there are."""

from __future__ import annotations

import threading
from collections.abc import Callable

from meshd.base.log import get_logger, kv

log = get_logger(__name__)


def start_thread(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread | None:
    """A running thread that does not keep the process; None where the system has no room for it now."""
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        log.warning("thread_refused", extra=kv(name=name, reason=error, action="tried again later"))
        return None
    return thread
