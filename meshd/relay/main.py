"""The `mesh-relay` command."""

from __future__ import annotations

import os
from pathlib import Path

import click

from meshd.base.errors import MeshdError
from meshd.base.version import VERSION
from meshd.io.commandline import run_command


def _default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/mesh-relay")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "mesh-relay"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MESH_RELAY"})
@click.version_option(VERSION, prog_name="mesh-relay", message="%(prog)s %(version)s")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=_default_state_dir,
    show_default="/var/lib/mesh-relay",
    help="Directory for the relay's key and certificate.",
)
@click.option("--listen", default=":443", show_default=True, metavar="ADDR:PORT", help="TCP address to serve on.")
@click.option("--hostname", required=True, help="Name or address that clients use.")
@click.option(
    "--cert",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificate chain (PEM) instead of a self-signed one.",
)
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Its private key (PEM).")
@click.option(
    "--stun-port",
    type=click.IntRange(-1, 65535),
    default=3478,
    show_default=True,
    help="UDP port; 0 = any, -1 = off.",
)
@click.option("--verify-url", default="", metavar="URL", help="Ask there whether a client may use the relay.")
@click.option("--verify-fail-open", is_flag=True, help="Admit clients while nobody answers there.")
@click.option(
    "--client-rate",
    type=click.IntRange(0),
    default=0,
    show_default="no limit",
    metavar="BYTES",
    help="Bytes per second read from one client.",
)
@click.option("--verbose", "-v", is_flag=True, help="Log every event.")
def cli(
    state_dir: Path,
    listen: str,
    hostname: str,
    cert: Path | None,
    key: Path | None,
    stun_port: int,
    verify_url: str,
    verify_fail_open: bool,
    client_rate: int,
    verbose: bool,
) -> None:
    """A relay (DERP and STUN) for nodes that cannot reach each other directly."""
    from meshd.io.listenaddress import is_host, parse_listen
    from meshd.relay.service import RelayOptions, run

    if not is_host(hostname):
        raise MeshdError(
            f"--hostname {hostname!r} is no host name or address",
            code="usage",
            hint="Give it alone, without port or brackets, and a name with other letters in its form xn--….",
        )
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together")
    host, port = parse_listen(listen)
    run(
        RelayOptions(
            state_dir=state_dir,
            listen_host=host,
            listen_port=port,
            hostname=hostname,
            certificate=cert,
            key=key,
            stun_port=stun_port,
            verify_url=verify_url,
            verify_fail_open=verify_fail_open,
            client_rate_bytes=client_rate,
        ),
        verbose=verbose,
    )


def main() -> None:
    """Entry point of the console script."""
    run_command(cli, "mesh-relay", {"usage": 2, "config": 2})
