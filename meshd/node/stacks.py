"""Where every task and every thread of this process stands."""

from __future__ import annotations

import asyncio
import sys


def stack_dump() -> str:
    """Every task of the event loop and every thread, with the lines they stand at; no values of variables."""
    import traceback  # needed here only, and not small

    lines: list[str] = []
    for task in sorted(asyncio.all_tasks(), key=lambda t: t.get_name()):
        lines.append(f"task {task.get_name()}:")
        lines += [f"    {f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_qualname}" for f in task.get_stack()]
    for ident, frame in sys._current_frames().items():
        lines.append(f"thread {ident}:")
        lines += [line.rstrip() for line in traceback.format_stack(frame)]
    del frame  # it may be this one, which would then keep itself and its callers
    return "\n".join(lines) + "\n"
