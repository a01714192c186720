"""The table of environment variables: true, complete, and loud about what has no effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshd.base import environment as table
from meshd.base.environment import LOGGERS, OF_COMMANDS, READ, SATISFIED, UNSUPPORTED, complaints, wanted_loggers

ROOT = Path(__file__).parents[3] / "meshd"
SOURCES = {
    path: path.read_text()
    for path in (*ROOT.rglob("*.py"), *ROOT.rglob("*.pyx"))
    if path != Path(table.__file__) and "testing" not in path.parts
}

NOT_HERE = """
DERP_PROBER_DEBUG_LOGS TAILSCALE_SSH_DEFAULT_PATH TSNET_FORCE_LOGIN TS_ALLOW_ADMIN_CONSOLE_REMOTE_UPDATE
TS_ALLOW_DEBUG_IP TS_ALLOW_SELF_INGRESS TS_AUTHKEY TS_BIND_TO_INTERFACE_BY_ROUTE TS_CONN25_DATAPATH_DEBUG
TS_DEBUG_ACME TS_DEBUG_ACME_DIRECTORY_URL TS_DEBUG_ACME_FORCE_RENEWAL TS_DEBUG_CONFIGURE_WSL
TS_DEBUG_CONNECT_FAILURES TS_DEBUG_CRASH_ON_UNEXPECTED TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH
TS_DEBUG_DERP_WS_CLIENT TS_DEBUG_DISABLE_WATCHDOG TS_DEBUG_DNS_CACHE TS_DEBUG_ENABLE_PMTUD
TS_DEBUG_ENABLE_SILENT_DISCO TS_DEBUG_EXIT_NODE_DNS_NET_PKG TS_DEBUG_FILTER_RATE_LIMIT_LOGS
TS_DEBUG_FORCE_CLIENT_SIDE_REACHABILITY_ROUTECHECK TS_DEBUG_FORCE_H1_LOGS TS_DEBUG_KEY_PATH TS_DEBUG_LOGTAIL
TS_DEBUG_LOGTAIL_FLUSHDELAY TS_DEBUG_LOGTAIL_WAKES TS_DEBUG_LOG_SSH TS_DEBUG_MAGICSOCK_PEERMAP
TS_DEBUG_MAGICSOCK_RING_BUFFER_MAX_SIZE_BYTES TS_DEBUG_MAGIC_DNS_DUAL_STACK TS_DEBUG_MEMORY TS_DEBUG_NETSTACK
TS_DEBUG_NETSTACK_LEAK_MODE TS_DEBUG_NETSTACK_LOOPBACK_PORT TS_DEBUG_PANIC_MACHINE_KEY TS_DEBUG_PATCHIFY_PEER
TS_DEBUG_PATCHIFY_PEER_MISS TS_DEBUG_PERMIT_HTTP_C2N TS_DEBUG_PMTUD TS_DEBUG_PREFER_IPV6_USERDIAL TS_DEBUG_PROXY_DNS
TS_DEBUG_RAW_DISCO TS_DEBUG_RECURSIVE_DNS TS_DEBUG_RESTUN_STOP_ON_IDLE TS_DEBUG_ROUTECHECK
TS_DEBUG_SCOPE_QUAD100_MACOS TS_DEBUG_SEND_CALLME_UNKNOWN_PEER TS_DEBUG_SLOW_PUSH TS_DEBUG_SSH_IGNORE_TAILNET_POLICY
TS_DEBUG_SSH_POLICY_FILE TS_DEBUG_SSH_VLOG TS_DEBUG_TPM TS_DEBUG_TRIM_WIREGUARD TS_DEBUG_TRUSTED_CIDRS
TS_DEBUG_USE_DERP_HTTP TS_DEBUG_USE_IP_COMMAND TS_DEBUG_VERBOSE_DROPS TS_DEBUG_WEB_CLIENT_DEV TS_DEBUG_WG_BATCH_SIZE
TS_DEBUG_WHOIS TS_DERP_DISABLE_RTT_STATS TS_DNSFALLBACK_DISABLE_RECURSIVE_RESOLVER TS_DNSFALLBACK_RECURSIVE_RESOLVER
TS_ENABLE_RAW_DISCO TS_FAKE_SYNOLOGY TS_FORCE_ALLOW_TSAPP_UPDATE TS_LOGS_DIR
TS_LOG_TARGET TS_NETSTACK_KEEPALIVE_IDLE TS_NETSTACK_KEEPALIVE_INTERVAL TS_PLEASE_PANIC TS_SERIAL_TESTS
TS_UNSAFE_SKIP_NKS_VERIFICATION TS_WAKE_MAC
"""
NOTHING_ASKED = """
TS_DEBUG_DISABLE_LIKELY_HOME_ROUTER_IP_SELF TS_DEBUG_DISABLE_RAW_DISCO TS_DEBUG_DNS_FORWARD_USE_ROUTES
TS_DEBUG_NETSTACK_SUBNETS
TS_DISABLE_PORTMAPPER TS_DISABLE_SSH_SERVER TS_DISABLE_TAILDROP TS_DISABLE_UPNP TS_OBSCURE_LOGGED_IPS
TS_SSH_DISABLE_FORWARDING TS_SSH_DISABLE_PTY TS_SSH_DISABLE_SFTP TS_USE_CONTROL_DIAL_PLAN
"""


def test_environment_variable_without_effect_is_answered_once_with_what_to_do() -> None:
    """DM-01: and NOT_HERE are all of them."""
    assert set(NOT_HERE.split()) == UNSUPPORTED.keys()
    for name in NOT_HERE.split():
        assert complaints({name: "1"}) == [(name, UNSUPPORTED[name])]
        assert complaints({name: "0"}) == complaints({name: "false"}) == complaints({name: ""}) == []


def test_environment_variable_that_forbids_what_is_not_done_needs_no_word() -> None:
    """NOTHING_ASKED are all of them."""
    assert set(NOTHING_ASKED.split()) == SATISFIED
    assert complaints(dict.fromkeys(NOTHING_ASKED.split(), "1")) == []


def test_environment_unknown_variable_of_ours_is_named_and_others_are_not() -> None:
    found = complaints({"TS_DEBUG_TYPO": "1", "PATH": "/bin", "MESHD_QUEUE": "2", "TSX": "1"})
    assert found == [
        ("MESHD_QUEUE", "meshd knows no such variable"),
        ("TS_DEBUG_TYPO", "meshd knows no such variable"),
    ]


def test_environment_variable_of_a_container_says_where_to_turn() -> None:
    for name in ("TS_STATE_DIR", "TS_ROUTES", "TS_USERSPACE"):
        ((_, why),) = complaints({name: "1"})
        assert "no entry point for containers yet" in why


def test_environment_variables_that_are_read_are_read_somewhere() -> None:
    for name in READ:
        assert any(f'"{name}"' in text for text in SOURCES.values()), name


def test_environment_variables_that_the_program_names_are_in_the_table() -> None:
    known = READ | LOGGERS.keys() | OF_COMMANDS
    for path, text in SOURCES.items():
        named = set(re.findall(r'"((?:TS|TSNET|TAILSCALE|MESHD)_[A-Z0-9_]+)"', text))
        assert named - known == set(), path


@pytest.mark.parametrize("variable", sorted(LOGGERS))
def test_environment_variable_raises_loggers_that_have_something_to_say(variable: str) -> None:
    """The variables: TS_DEBUG_MAP, TS_DEBUG_NETMAP, TS_DEBUG_REGISTER, TS_DEBUG_NOISE_DIAL, TS_DEBUG_TLS_DIAL,
    TS_DEBUG_DISCO, TS_DEBUG_DERP, DERP_DEBUG_LOGS, TS_DEBUG_NETCHECK, TS_DEBUG_NETLINK, TS_DEBUG_DNS_FORWARD_SEND,
    TS_DEBUG_MAGICSOCK_BIND_SOCKET, TS_DEBUG_PROFILES, TS_DEBUG_RAW_WGLOG.
    """
    assert variable in str(test_environment_variable_raises_loggers_that_have_something_to_say.__doc__)
    loggers = wanted_loggers({variable: "1"})
    assert loggers == sorted(LOGGERS[variable])
    assert wanted_loggers({variable: "0"}) == wanted_loggers({}) == []
    texts = [SOURCES[ROOT.parent / f"{logger.replace('.', '/')}.py"] for logger in loggers]
    assert any("log.debug(" in text for text in texts)
