"""`mesh file get`."""

from __future__ import annotations

import os
import time
from urllib.parse import quote

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import AccessDenied, CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.output import err, out, printable
from meshd.cli.progress import progress

_CONFLICTS = ("skip", "overwrite", "rename")
_MAX_NAMES = 100
"""Numbered names tried for one file."""
_MAX_ERRORS = 100
_PAUSE_AFTER_ERROR_S = 5.0
_WAIT_S = 3600


def _run(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 1:
        raise CliError("usage: mesh file get <target-directory>")
    conflict = flags.text("conflict").lower() or "skip"
    if conflict not in _CONFLICTS:
        raise CliError(f'"{printable(conflict)}" is not one of (skip|overwrite|rename)')
    directory = flags.args[0]
    if directory == "/dev/null":
        _wipe(client, flags)
        return
    if not os.path.isdir(directory):
        raise CliError(f'"{printable(directory)}" is not a directory')
    while True:
        errors = _batch(client, flags, directory, conflict)
        if not flags.on("loop"):
            break
        for text in errors:
            out(text)
        if errors:
            time.sleep(_PAUSE_AFTER_ERROR_S)
    if errors:
        for text in errors[:-1]:
            out(text)
        raise CliError(errors[-1])


def _waiting(client: LocalClient, *, seconds: int = 0) -> list[JSON]:
    found = client.json("GET", f"files/?waitsec={seconds}" if seconds else "files/")
    return [entry for entry in found or [] if isinstance(entry, dict)]


def _batch(client: LocalClient, flags: Parsed, directory: str, conflict: str) -> list[str]:
    """Fetch what is in the inbox; the complaints."""
    verbose = flags.on("verbose")
    files = _waiting(client)
    if not files and (flags.on("wait") or flags.on("loop")):
        if verbose:
            out("waiting for file...")
        with progress("waiting for a file"):
            while not files:
                files = _waiting(client, seconds=_WAIT_S)
    errors: list[str] = []
    moved = 0
    for index, entry in enumerate(files):
        if len(errors) > _MAX_ERRORS:
            errors.append(f"too many errors, {len(files) - index} files unexamined")
            break
        try:
            _fetch(client, str(entry.get("Name") or ""), directory, conflict, verbose=verbose)
            moved += 1
        except AccessDenied:
            raise
        except CliError as error:
            errors.append(error.message)
    if files and not moved:
        errors.append(f"moved {moved}/{len(files)} files")
    elif verbose:
        out(f"moved {moved}/{len(files)} files")
    return errors


def _fetch(client: LocalClient, name: str, directory: str, conflict: str, *, verbose: bool) -> None:
    # The name comes from another machine by way of the daemon: it must stay in the directory.
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise CliError(f'refusing the file name "{printable(name)}"')
    route = "files/" + quote(name, safe="")
    stream = client.stream("GET", route)
    expected = stream.headers.get("content-length")
    size = 0
    try:
        path, handle = _open(directory, name, conflict)
        try:
            with os.fdopen(handle, "wb") as file, progress(f"receiving {printable(name)}"):
                while part := stream.read():
                    size += file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if expected is not None and size != int(expected):
                raise CliError(f'only {size} of {expected} bytes of "{printable(name)}" have arrived')
        except BaseException:
            os.unlink(path)
            raise
    except OSError as error:
        raise CliError(f'failed to write "{printable(name)}": {error.strerror}') from None
    finally:
        stream.close()
    if verbose:
        out(f"wrote {printable(name)} as {printable(path)} ({size} bytes)")
    client.call("DELETE", route)


def _open(directory: str, name: str, conflict: str) -> tuple[str, int]:
    """A new file for a name that may exist already; never one that somebody else has put there as a link."""
    path = os.path.join(directory, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    stem, extension = os.path.splitext(name)
    numbered = [os.path.join(directory, f"{stem} ({n}){extension}") for n in range(1, _MAX_NAMES)]
    for candidate in [path, *(numbered if conflict == "rename" else [])]:
        try:
            return candidate, os.open(candidate, flags, 0o644)
        except FileExistsError:
            continue
    if conflict == "overwrite":
        os.unlink(path)
        return path, os.open(path, flags, 0o644)
    if conflict == "rename":
        raise CliError(f"unable to find a name for writing {printable(path)}")
    raise CliError(f"refusing to overwrite file: {printable(path)} exists")


def _wipe(client: LocalClient, flags: Parsed) -> None:
    if flags.on("wait"):
        raise CliError("can't use --wait with /dev/null target")
    files = _waiting(client)
    for entry in files:
        name = str(entry.get("Name") or "")
        if flags.on("verbose"):
            err(f"deleting {printable(name)} ...\n")
        client.call("DELETE", "files/" + quote(name, safe=""))
    if flags.on("verbose"):
        err(f"deleted {len(files)} files\n")


COMMAND = Command(
    "get",
    usage="mesh file get [--wait] [--verbose] [--conflict=(skip|overwrite|rename)] <target-directory>",
    short="Move files out of the inbox",
    long="The target /dev/null throws them away.",
    flags=[
        Flag("conflict", STRING, "skip", "what to do with a file that is there already: skip, overwrite or rename"),
        Flag("loop", BOOL, False, "go on for ever"),
        Flag("verbose", BOOL, False, "say more"),
        Flag("wait", BOOL, False, "wait for a file when there is none"),
    ],
    run=_run,
)
