"""Preferences as one line."""

from __future__ import annotations

from meshd.base.keys import NodePrivate
from meshd.core.prefs import AutoUpdatePrefs, Persist, Prefs
from meshd.core.prefsline import pretty


def test_pretty_says_what_is_set_in_the_known_words() -> None:
    """pref:masks; PP-15."""
    assert (
        pretty(Prefs(want_running=True, hostname="gw", control_url="https://m.example"))
        == "Prefs{ra=false dns=true want=true routes=[] statefulFiltering=false nf=on "
        'url="https://m.example" host="gw" update=check Persist=nil}'
    )
    line = pretty(
        Prefs(
            logged_out=True,
            shields_up=True,
            sync=False,
            exit_node_id="n1",
            auto_exit_node="any",
            advertise_routes=("10.0.0.0/8",),
            advertise_tags=("tag:a", "tag:b"),
            no_stateful_filtering=False,
            netfilter_mode=0,
            auto_update=AutoUpdatePrefs(check=False),
            operator_user="ann",
        )
    )
    for word in ("loggedout=true", "sync=false", "shields=true", "exit=n1 lan=false auto=any", "snat=true"):
        assert f" {word} " in line
    for word in ("routes=[10.0.0.0/8]", "statefulFiltering=true", "tags=tag:a,tag:b", "nf=off", "update=off"):
        assert f" {word} " in line


def test_pretty_shows_no_key() -> None:
    """PP-15, INV-3."""
    key = NodePrivate.generate()
    line = pretty(Prefs(config=Persist(private_node_key=key.text())))
    assert key.raw.hex() not in line
    assert key.public().short() in line
