"""The `mesh-coord` command."""

from __future__ import annotations

import click

from meshd.base.version import VERSION
from meshd.coord.cli.authkeys import authkeys
from meshd.coord.cli.nodes import nodes
from meshd.coord.cli.output import EXIT_CODES
from meshd.coord.cli.policy import policy
from meshd.coord.cli.serve import serve
from meshd.coord.cli.users import users
from meshd.io.commandline import run_command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MESH_COORD"})
@click.version_option(VERSION, prog_name="mesh-coord", message="%(prog)s %(version)s")
def cli() -> None:
    """A coordination server for a WireGuard mesh, with relay and STUN built in."""


for command in (serve, authkeys, nodes, users, policy):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    run_command(cli, "mesh-coord", EXIT_CODES)
