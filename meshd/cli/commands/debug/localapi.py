"""Subcommands about the LocalAPI itself."""

from __future__ import annotations

import sys
from shlex import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import err, out
from meshd.cli.state import no_arguments

_LONGEST_METHOD = len("OPTIONS")


def _localapi(client: LocalClient, flags: Parsed) -> None:
    method, path, body = _request(list(flags.args))
    err(f"# doing request {method} {path}\n")
    answer = client.request(method, path, body)
    good = 200 <= answer.status < 300
    status = f"{answer.status} {answer.reason}"
    if flags.on("v"):
        out(f"HTTP/1.1 {status}")
        for name, value in answer.headers.items():
            out(f"{name.title()}: {value}")
        out()
    elif not good:
        err(f"# Response status {status}\n")
    sys.stdout.write(answer.body.decode("utf-8", "replace"))
    if not good:
        raise CliError(status)


def _request(words: list[str]) -> tuple[str, str, bytes]:
    """Method, path and body of `[METHOD] PATH [BODY]`."""
    if not words:
        raise CliError("expected at least one argument")
    method = "GET"
    first = words[0]
    if len(first) <= _LONGEST_METHOD and first.isascii() and first.isalpha() and first.isupper():
        method = words.pop(0)
        if not words:
            raise CliError("expected at least one argument after method")
    path = words[0]
    if not path.startswith("/localapi/"):
        path = ("/localapi/" if "/" in path else "/localapi/v0/") + path
    if not path.isascii() or not path.isprintable() or " " in path:
        raise CliError("the path must be written as in a URL")
    body = words[1] if len(words) > 1 else ""
    if body == "-":
        err("# reading request body from stdin...\n")
        return method, path, sys.stdin.buffer.read()
    return method, path, body.encode("utf-8", "surrogateescape")


def _local_creds(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    out(f"curl --unix-socket {quote(client.path)} http://local-tailscaled.sock/localapi/v0/status")


LOCALAPI = Command(
    "localapi",
    usage='mesh debug localapi [<method>] <path> [<body|"-">]',
    short="Call a LocalAPI route",
    flags=[Flag("v", BOOL, False, "print the header of the answer too")],
    run=_localapi,
)

LOCAL_CREDS = Command(
    "local-creds",
    usage="mesh debug local-creds",
    short="Print how to call the LocalAPI with curl",
    run=_local_creds,
)
