"""Preferences as one line of a log: what is set, in the words that readers of such logs know.

Prefs{ra=false dns=true want=true routes=[10.0.0.0/8] snat=true nf=on host="gw" update=check Persist{…}}
"""

from __future__ import annotations

import json

from meshd.base.keys import NodePrivate
from meshd.core.prefs import DEFAULT_CONTROL_URL, Persist, Prefs

_NETFILTER = {0: "off", 1: "nodivert", 2: "on"}


def pretty(prefs: Prefs) -> str:
    """One line without keys (PP-15)."""
    words = [f"ra={_word(prefs.route_all)}", f"dns={_word(prefs.corp_dns)}", f"want={_word(prefs.want_running)}"]
    words += [
        f"{name}={_word(said)}"
        for name, said, shown in (
            ("ssh", True, prefs.run_ssh),
            ("webclient", True, prefs.run_web_client),
            ("loggedout", True, prefs.logged_out),
            ("sync", False, prefs.sync is False),
            ("server", True, prefs.force_daemon),
            ("notepad", True, prefs.notepad_urls),
            ("shields", True, prefs.shields_up),
            ("remoteconfig", True, prefs.remote_config),
        )
        if shown
    ]
    words += _exit_node(prefs) + _routes(prefs)
    if prefs.advertise_tags:
        words.append(f"tags={','.join(prefs.advertise_tags)}")
    if prefs.advertise_services:
        words.append(f"services={','.join(prefs.advertise_services)}")
    words.append(f"nf={_NETFILTER.get(prefs.netfilter_mode, prefs.netfilter_mode)}")
    if prefs.control_url not in ("", DEFAULT_CONTROL_URL):
        words.append(f"url={json.dumps(prefs.control_url)}")
    if prefs.hostname:
        words.append(f"host={json.dumps(prefs.hostname)}")
    if prefs.operator_user:
        words.append(f"op={json.dumps(prefs.operator_user)}")
    if prefs.netfilter_kind:
        words.append(f"netfilterKind={prefs.netfilter_kind}")
    words.append(f"update={'on' if prefs.auto_update.apply else 'check' if prefs.auto_update.check else 'off'}")
    if prefs.app_connector.advertise:
        words.append("appconnector=advertise")
    words.append("Persist=nil" if prefs.config is None else _persist(prefs.config))
    return "Prefs{" + " ".join(words) + "}"


def _word(value: bool) -> str:
    return "true" if value else "false"


def _exit_node(prefs: Prefs) -> list[str]:
    words = []
    node = prefs.exit_node_ip or prefs.exit_node_id
    if node:
        words.append(f"exit={node} lan={_word(prefs.exit_node_allow_lan_access)}")
    if prefs.auto_exit_node:
        words.append(f"auto={prefs.auto_exit_node}")
    return words


def _routes(prefs: Prefs) -> list[str]:
    routes = prefs.advertise_routes or ()
    words = [f"routes=[{' '.join(routes)}]"]
    if routes or prefs.no_snat:
        words.append(f"snat={_word(not prefs.no_snat)}")
    if routes or prefs.no_stateful_filtering:
        words.append(f"statefulFiltering={_word(not prefs.no_stateful_filtering)}")
    return words


def _persist(persist: Persist) -> str:
    old, now = (_short(key) for key in (persist.old_private_node_key, persist.private_node_key))
    return f"Persist{{o={old}, n={now} u={json.dumps(persist.user_profile.login_name)}}}"


def _short(key: str) -> str:
    private = NodePrivate.parse(key)
    return "" if private.is_zero else private.public().short()
