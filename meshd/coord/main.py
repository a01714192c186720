"""The `mesh-coord` command."""

from __future__ import annotations

import sys

import click

from meshd.base.errors import MeshdError
from meshd.base.standardstreams import is_output_error, open_standard_streams, unwritten
from meshd.base.version import VERSION
from meshd.coord.cli.authkeys import authkeys
from meshd.coord.cli.nodes import nodes
from meshd.coord.cli.output import exit_code
from meshd.coord.cli.policy import policy
from meshd.coord.cli.serve import serve
from meshd.coord.cli.users import users


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MESH_COORD"})
@click.version_option(VERSION, prog_name="mesh-coord", message="%(prog)s %(version)s")
def cli() -> None:
    """A coordination server for a WireGuard mesh, with relay and STUN built in."""


for command in (serve, authkeys, nodes, users, policy):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    open_standard_streams()
    try:
        cli.main(standalone_mode=False)
    except MeshdError as error:
        click.echo(f"mesh-coord: {error}", err=True)
        sys.exit(exit_code(error))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        if not is_output_error(error):
            raise
        sys.exit(unwritten(error, "mesh-coord: "))
    except click.Abort:
        sys.exit(130)
