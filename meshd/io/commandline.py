"""The outermost part of the servers' commands, which click takes apart."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from meshd.base.errors import MeshdError
from meshd.base.standardstreams import is_output_error, open_standard_streams, unwritten


def run_command(command: click.Command, name: str, exit_codes: Mapping[str, int]) -> None:
    """Run the command of this process, and tell every failure as a line and by the exit status.

    ``exit_codes`` is by the code of a MeshdError; the status is 1 for all others.
    """
    open_standard_streams()
    try:
        command.main(standalone_mode=False)
    except MeshdError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(exit_codes.get(error.code, 1))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        if not is_output_error(error):
            raise
        sys.exit(unwritten(error, f"{name}: "))
    except click.Abort:
        sys.exit(130)
