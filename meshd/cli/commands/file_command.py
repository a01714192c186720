"""`mesh file`."""

from __future__ import annotations

from meshd.cli.command import Command, Part

COMMAND = Command(
    "file",
    usage="mesh file <cp|get> ...",
    short="Send and receive files",
    parts=[
        Part("cp", "Copy files to a node", "filecp_command"),
        Part("get", "Move files out of the inbox", "fileget_command"),
    ],
)
