"""`mesh serve` and `mesh funnel`: what they show; this version of meshd serves nothing itself."""

from __future__ import annotations

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.output import out, out_json, printable
from meshd.cli.servetree import funnel_urls, is_empty, tree
from meshd.cli.state import no_arguments


def _config(client: LocalClient) -> JSON:
    config = client.json("GET", "serve-config")
    return config if isinstance(config, dict) else {}


def _status(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    config = _config(client)
    if flags.on("json"):
        out_json(config, 2)
        return
    urls = funnel_urls(config)
    if urls:
        out("\n# Funnel on:")
        for url in urls:
            out(f"#     - {printable(url)}")
        out()
    if is_empty(config):
        out("No serve config")
        return
    for line in tree(config, client.status(peers=False)):
        out(line)


def _reset(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    client.call("POST", "serve-config", {})


def _status_of(name: str) -> Command:
    return Command(
        "status",
        usage=f"mesh {name} status [--json]",
        short="Show what is served",
        flags=[Flag("json", BOOL, False, "print JSON")],
        run=_status,
    )


def _reset_of(name: str) -> Command:
    return Command("reset", usage=f"mesh {name} reset", short="Serve nothing any more", run=_reset)


def _refuse(client: LocalClient, flags: Parsed) -> None:
    """Said before anything is asked of the daemon, which would refuse it as well."""
    raise CliError("this build of meshd cannot serve; 'mesh serve status' shows that nothing is served")


_TARGET_FLAGS = [
    Flag("accept-app-caps", STRING, "", "capabilities to pass on", hidden=True),
    Flag("bg", BOOL, False, "go on when the command has ended", hidden=True),
    Flag("http", STRING, "", "serve HTTP on a port", hidden=True),
    Flag("https", STRING, "", "serve HTTPS on a port", hidden=True),
    Flag("proxy-protocol", STRING, "", "version of the PROXY protocol", hidden=True),
    Flag("service", STRING, "", "serve for a service", hidden=True),
    Flag("set-path", STRING, "", "path below which to serve", hidden=True),
    Flag("tcp", STRING, "", "forward a TCP port", hidden=True),
    Flag("tls-terminated-tcp", STRING, "", "forward a TCP port out of TLS", hidden=True),
    Flag("tun", BOOL, False, "forward all traffic of a service", hidden=True),
    Flag("yes", BOOL, False, "do not ask", hidden=True),
]
"""What a command line that means to serve something consists of: it is told that this is not possible."""


def _group(name: str, short: str, prefix: str) -> Command:
    def run(client: LocalClient, flags: Parsed) -> None:
        if flags.args or flags.given:
            _refuse(client, flags)
        out(group.help().rstrip("\n"))

    group = Command(
        name,
        usage=f"mesh {name} status [--json]\nmesh {name} reset",
        short=short,
        parts=[
            Part("status", "Show what is served", "serve_command", f"{prefix}_STATUS"),
            Part("reset", "Serve nothing any more", "serve_command", f"{prefix}_RESET"),
        ],
        flags=_TARGET_FLAGS,
        arguments=True,
        run=run,
    )
    return group


SERVE_STATUS, SERVE_RESET = _status_of("serve"), _reset_of("serve")
FUNNEL_STATUS, FUNNEL_RESET = _status_of("funnel"), _reset_of("funnel")

COMMAND = _group("serve", "Show what this node serves to the mesh", "SERVE")
FUNNEL = _group("funnel", "Show what this node serves to the internet", "FUNNEL")
