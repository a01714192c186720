"""`mesh debug watch-ipn`."""

from __future__ import annotations

import sys

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, INT, Flag, Parsed
from meshd.cli.output import err, out_json
from meshd.cli.state import no_arguments

_NETMAP, _NO_NETMAP = 1 << 3, 1 << 13
_BITS = {
    "engine-updates": (1 << 0, False, "what goes through the tunnels, every few seconds"),
    "initial": (1 << 1 | 1 << 2, False, "state and preferences first"),
    "initial-drive-shares": (1 << 5, False, "the shares first"),
    "initial-outgoing-files": (1 << 6, False, "the files that are being sent first"),
    "initial-health": (1 << 7, False, "the health first"),
    "health-actions": (1 << 9, False, "what can be done about health warnings"),
    "initial-suggested-exit-node": (1 << 10, False, "the suggested exit node first"),
    "initial-client-version": (1 << 11, False, "what is known about newer versions first"),
    "peer-changes": (1 << 12, True, "peers that come, change and go"),
    "initial-status": (1 << 14, False, "the status first"),
    "peer-patches": (1 << 15, True, "single members of peers that change"),
    "peer-wireguard-state": (1 << 18, False, "sessions that begin and end"),
}
"""Flags that ask for more: bits of the mask, default, help."""


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    mask = _NETMAP if flags.on("netmap") else _NO_NETMAP
    for name, (bits, _, _) in _BITS.items():
        if flags.on(name):
            mask |= bits
    watcher = client.watch(mask)
    try:
        err("Connected.\n")
        seen = 0
        while not flags.number("count") or seen < flags.number("count"):
            notify = watcher.next(None)
            if notify is None:
                raise CliError("meshd has ended the stream")
            out_json(notify)
            sys.stdout.flush()
            seen += 1
    finally:
        watcher.close()


COMMAND = Command(
    "watch-ipn",
    usage="mesh debug watch-ipn",
    short="Follow the notifications of meshd",
    flags=[
        Flag("count", INT, 0, "end after this many notifications, 0 for never"),
        Flag("netmap", BOOL, False, "the network map first, and whenever it changes"),
        Flag("show-private-key", BOOL, False, "does nothing: private keys are never shown", hidden=True),
        *(Flag(name, BOOL, default, text) for name, (_, default, text) in _BITS.items()),
    ],
    run=_run,
)
