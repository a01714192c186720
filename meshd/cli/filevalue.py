"""Secrets on the command line: better in a file, where others cannot read them from the list of processes."""

from __future__ import annotations

from meshd.cli.errors import CliError


def text_or_file(text: str, what: str) -> str:
    """The text itself, or the content of the file that `file:PATH` names; `what` it is, for the complaints.

    Raises:
        CliError: the file cannot be read or is empty.
    """
    if not text.startswith("file:"):
        return text
    path = text.removeprefix("file:")
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise CliError(f"cannot read {what} from {path}: {reason}") from None
    if not content:
        raise CliError(f"{what} file {path} is empty")
    return content
