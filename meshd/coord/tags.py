"""The form of tags: `tag:` and a name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshd.base.errors import MeshdError

_TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]{0,49}", re.ASCII)


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def checked_tags(texts: Iterable[object]) -> tuple[str, ...]:
    """Tags as an administrator typed them, without doubles; MeshdError when one is malformed."""
    tags = tuple(dict.fromkeys(str(text) for text in texts))
    for tag in tags:
        if not is_tag(tag):
            raise MeshdError(
                f"{tag!r} is not a tag", code="usage", hint="A tag is `tag:` and a name of letters, digits and hyphens."
            )
    return tags
