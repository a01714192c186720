"""Targets of HTTP/1.1 requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.wire.requesttarget import RequestTarget, read_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/", RequestTarget("/")),
        ("/key?v=1", RequestTarget("/key", "v=1")),
        ("/a?b?c", RequestTarget("/a", "b?c")),
        ("//a/b", RequestTarget("//a/b")),
        ("*", RequestTarget("*")),
        ("http://a", RequestTarget("/", "", "a")),
        ("http://a?b=/c", RequestTarget("/", "b=/c", "a")),
        ("HTTP://a:80/b%2Fc?d", RequestTarget("/b%2Fc", "d", "a:80")),
        ("https://[::1]:8080/x", RequestTarget("/x", "", "[::1]:8080")),
    ],
)
def test_request_target_is_a_path_or_a_whole_url(text: str, target: RequestTarget) -> None:
    assert read_target(text) == target


@pytest.mark.parametrize("text", ["", "a", "?a", "**", "http:/a", "http://", "http:///a", "http://u@a/", "ws://a/"])
def test_request_target_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a path|without a server's name"):
        read_target(text)


@given(st.text("abh/?:@.*tp[]%", max_size=30))
def test_request_target_has_a_path_or_is_refused(text: str) -> None:
    try:
        target = read_target(text)
    except ValueError:
        return
    assert target.path.startswith("/") or target.path == "*"
    assert "?" not in target.path
    assert not set(target.authority) & set("/?@")
