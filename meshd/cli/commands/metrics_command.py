"""`mesh metrics`."""

from __future__ import annotations

import os
import sys

from meshd.cli.client import LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.errors import CliError
from meshd.cli.files import write_atomically
from meshd.cli.flags import Parsed
from meshd.cli.state import no_arguments


def _print(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    sys.stdout.write(client.text("GET", "usermetrics"))


def _write(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 1:
        raise CliError("usage: mesh metrics write <path>")
    path = os.path.abspath(flags.args[0])
    write_atomically(path, client.call("GET", "usermetrics").body, 0o644)


PRINT = Command(
    "print", usage="mesh metrics print", short="Print the metrics in the text format of Prometheus", run=_print
)

WRITE = Command(
    "write",
    usage="mesh metrics write <path>",
    short="Write the metrics to a file",
    long="""\
The file is replaced as a whole, so that the textfile collector of the Prometheus node exporter
never reads half of it:

  mesh metrics write /var/lib/prometheus/node-exporter/meshd.prom""",
    run=_write,
)

COMMAND = Command(
    "metrics",
    usage="mesh metrics <subcommand> [flags]",
    short="Show the metrics of this node",
    long="Without a subcommand the metrics are printed.",
    parts=[
        Part("print", PRINT.short, "metrics_command", "PRINT"),
        Part("write", WRITE.short, "metrics_command", "WRITE"),
    ],
    run=_print,
)
