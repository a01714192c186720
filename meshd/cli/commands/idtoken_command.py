"""`mesh id-token`."""

from __future__ import annotations

import os
from urllib.parse import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import Parsed
from meshd.cli.output import out, printable

_TRUE = ("1", "t", "T", "TRUE", "true", "True")


def _run(client: LocalClient, flags: Parsed) -> None:
    if os.environ.get("TAILSCALE_USE_WIP_CODE") not in _TRUE:
        raise CliError("mesh id-token: works-in-progress require TAILSCALE_USE_WIP_CODE=1 envvar")
    if len(flags.args) != 1:
        raise CliError("usage: mesh id-token <aud>")
    answer = client.json("POST", "id-token?aud=" + quote(flags.args[0], safe=""))
    out(printable(answer.get("id_token", "") if isinstance(answer, dict) else ""))


COMMAND = Command(
    "id-token",
    usage="mesh id-token <aud>",
    short="Get an identity token for this machine",
    long="The coordination server signs who this machine is, for a service that is named by <aud>.",
    run=_run,
)
