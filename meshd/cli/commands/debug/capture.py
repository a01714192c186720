"""`mesh debug capture`."""

from __future__ import annotations

import sys
from typing import BinaryIO

from meshd.cli.client import LocalClient, Stream
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.output import err
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    if flags.on("lua"):
        from meshd.cli.commands.debug.dissector import SOURCE

        sys.stdout.write(SOURCE)
        return
    path = flags.text("o")
    stream = client.stream("POST", "debug-capture")
    try:
        if not path:
            _to_wireshark(stream)
            return
        err("Press Ctrl-C to stop the capture.\n")
        if path == "-":
            _copy(stream, sys.stdout.buffer)
            return
        with open(path, "wb") as file:
            _copy(stream, file)
    except OSError as error:
        raise CliError(f"cannot write the capture: {error.strerror or error}") from None
    finally:
        stream.close()


def _copy(stream: Stream, output: BinaryIO) -> None:
    while part := stream.read():
        output.write(part)
        output.flush()


def _to_wireshark(stream: Stream) -> None:
    import subprocess
    import tempfile

    from meshd.cli.commands.debug.dissector import SOURCE

    with tempfile.NamedTemporaryFile("w", prefix="mesh-", suffix=".lua") as script:
        script.write(SOURCE)
        script.flush()
        command = ["wireshark", "-X", f"lua_script:{script.name}", "-k", "-i", "-"]
        try:
            wireshark = subprocess.Popen(command, stdin=subprocess.PIPE)
        except FileNotFoundError:
            raise CliError("no 'wireshark' found: name a file with -o") from None
        assert wireshark.stdin is not None
        try:
            _copy(stream, wireshark.stdin)  # type: ignore[arg-type]
        except BrokenPipeError:
            pass  # it was closed: done
        finally:
            wireshark.wait()


COMMAND = Command(
    "capture",
    usage="mesh debug capture",
    short="Record packets",
    long="What they begin with is read by the dissector that --lua prints: save it among Wireshark's plugins.",
    flags=[
        Flag("o", STRING, "", 'file for the packets (pcap), "-" for stdout; wireshark is started when left out'),
        Flag("lua", BOOL, False, "print a dissector for Wireshark instead"),
    ],
    run=_run,
)
