"""Flags about an exit node that the node chooses itself."""

from __future__ import annotations

from typing import Any

from tests.unit.cli.test_cli_up import SERVER, calls


def test_set_auto_exit_node(mesh: Any, localapi: Any) -> None:
    """PP-17."""
    assert mesh("set", "--exit-node=auto:any").code == 0
    edit = calls(localapi, "edit_prefs")[-1][1]
    assert (edit["AutoExitNode"], edit["AutoExitNodeSet"], edit["ExitNodeIP"]) == ("any", True, "")


def test_up_auto_exit_node_is_a_setting_like_others(mesh: Any, localapi: Any) -> None:
    """PP-17, U-4, cli:up --exit-node: `up` without it would revert it, and says so."""
    assert mesh("up", SERVER, "--exit-node=auto:any").code == 0
    edit = calls(localapi, "edit_prefs")[-1][1]
    assert (edit["AutoExitNode"], edit["AutoExitNodeSet"]) == ("any", True)
    localapi.backend.stored |= {"AutoExitNode": "any", "ExitNodeID": "auto:any"}
    got = mesh("up", SERVER)
    assert got.code == 1
    assert "--exit-node=auto:any" in got.err
    assert mesh("get", "exit-node").out == "auto:any\n"


def test_down_passes_the_reason_on(mesh: Any, localapi: Any) -> None:
    """SM-18."""
    assert mesh("down", "--reason=lunch time").code == 0
    assert calls(localapi, "edit_prefs")[-1][2] == "lunch time"
    assert mesh("logout", "--reason=moving").code == 0
    assert calls(localapi, "logout")[-1] == ("logout", "moving")
