"""What is known of environment variables with names like ours: who reads them, and what becomes of the others.

Operators bring scripts and unit files that set variables of tailscaled. Each is read here, or asks for nothing, or is
answered once in the log with what to do instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PREFIXES: Final = ("TS_", "TAILSCALE_", "TSNET_", "DERP_", "MESHD_")

READ: Final = frozenset(
    (
        "MESHD_AEAD",
        "MESHD_AEAD_LIBRARY",
        "MESHD_NETMAP_CACHE",
        "MESHD_QUEUES",
        "TS_ASSUME_NETWORK_UP_FOR_TEST",
        "TS_BE_CLI",
        "TS_DEBUG_ALWAYS_USE_DERP",
        "TS_DEBUG_BACKEND_DELAY_SEC",
        "TS_DEBUG_CONTROL_FLAGS",
        "TS_DEBUG_DISABLE_PORTLIST",
        "TS_DEBUG_DISABLE_UDP_GRO",
        "TS_DEBUG_DISABLE_UDP_GSO",
        "TS_DEBUG_ENV_FILE",
        "TS_DEBUG_FAKE_HEALTH_ERROR",
        "TS_DEBUG_FIREWALL_MODE",
        "TS_DEBUG_FORCE_ALL_IPV6_ENDPOINTS",
        "TS_DEBUG_LOG_RATE",
        "TS_DEBUG_LOG_TIME",
        "TS_DEBUG_MTU",
        "TS_DEBUG_NEVER_DIRECT_UDP",
        "TS_DEBUG_OMIT_LOCAL_ADDRS",
        "TS_DEBUG_PRETENDPOINT",
        "TS_DEBUG_STRIP_CAPS",
        "TS_DEBUG_STRIP_ENDPOINTS",
        "TS_DEBUG_STRIP_HOME_DERP",
        "TS_DEBUG_USE_DERP_ADDR",
        "TS_DISCO_PONG_IPV4_DELAY",
        "TS_DNS_FORWARD_SKIP_TCP_RETRY",
        "TS_FORCE_LINUX_BIND_TO_DEVICE",
        "TS_FORCE_NOISE_443",
        "TS_LOG_VERBOSITY",
        "TS_NO_LOGS_NO_SUPPORT",
        "TS_PANIC_IF_HIT_MAIN_CONTROL",
        "TS_PARENT_DEATH_FD",
        "TS_PERMIT_CERT_UID",
        "TS_PORTLIST",
        "TS_TUN_DISABLE_TCP_GRO",
        "TS_TUN_DISABLE_UDP_GRO",
        "TS_USE_CACHED_NETMAP",
    )
)
"""Variables that the daemon or its parts read."""

LOGGERS: Final[Mapping[str, tuple[str, ...]]] = {
    "DERP_DEBUG_LOGS": ("meshd.node.derp", "meshd.node.derplink"),
    "TS_DEBUG_DERP": ("meshd.node.derp", "meshd.node.derplink"),
    "TS_DEBUG_DISCO": ("meshd.node.peerpaths",),
    "TS_DEBUG_DNS_FORWARD_SEND": ("meshd.node.dnsforwarder",),
    "TS_DEBUG_MAGICSOCK_BIND_SOCKET": ("meshd.io.udp",),
    "TS_DEBUG_MAP": ("meshd.node.control",),
    "TS_DEBUG_NETCHECK": ("meshd.node.netprobe",),
    "TS_DEBUG_NETLINK": ("meshd.host.linux.monitor",),
    "TS_DEBUG_NETMAP": ("meshd.node.control",),
    "TS_DEBUG_NOISE_DIAL": ("meshd.io.noise", "meshd.node.controllink"),
    "TS_DEBUG_PROFILES": ("meshd.node.profiles",),
    "TS_DEBUG_RAW_WGLOG": ("meshd.node.engine",),
    "TS_DEBUG_REGISTER": ("meshd.node.controlcalls",),
    "TS_DEBUG_TLS_DIAL": ("meshd.io.noise", "meshd.node.controllink"),
}
"""Variables that ask for more lines in the log: the loggers that write them."""

SATISFIED: Final = frozenset(
    (
        "TS_DEBUG_DISABLE_LIKELY_HOME_ROUTER_IP_SELF",
        "TS_DEBUG_DISABLE_RAW_DISCO",
        "TS_DEBUG_DNS_FORWARD_USE_ROUTES",
        "TS_DEBUG_NETSTACK_SUBNETS",
        "TS_DISABLE_PORTMAPPER",
        "TS_DISABLE_SSH_SERVER",
        "TS_DISABLE_TAILDROP",
        "TS_DISABLE_UPNP",
        "TS_OBSCURE_LOGGED_IPS",
        "TS_SSH_DISABLE_FORWARDING",
        "TS_SSH_DISABLE_PTY",
        "TS_SSH_DISABLE_SFTP",
        "TS_USE_CONTROL_DIAL_PLAN",
    )
)
"""Variables that forbid what meshd does not do, ask for what it always does, or are about logs that never leave:
nothing is to be said."""

OF_COMMANDS: Final = frozenset(
    (
        "MESHD_DEBUG",
        "MESHD_SOCKET",
        "TAILSCALE_USE_WIP_CODE",
        "TS_DEBUG_FAKE_IPC_VERSION",
        "TS_DEBUG_NETCHECK_UDP_BIND",
        "TS_DEBUG_SSH_EXEC",
        "TS_DEBUG_UP_FLAG_GOOS",
        "TS_DUMP_HELP",
        "TS_UPDATE_SKIP_VERSION_CHECK",
    )
)
"""Variables of the command line; a daemon that inherits them has nothing to do with them."""

OF_CONTAINERS: Final = frozenset(
    (
        "TS_ACCEPT_DNS",
        "TS_AUDIENCE",
        "TS_AUTH_KEY",
        "TS_AUTH_ONCE",
        "TS_BOOT_TIMEOUT",
        "TS_CLIENT_ID",
        "TS_CLIENT_SECRET",
        "TS_DEBUG_ADDR_PORT",
        "TS_DEST_IP",
        "TS_EGRESS_PROXIES_CONFIG_PATH",
        "TS_ENABLE_HEALTH_CHECK",
        "TS_ENABLE_METRICS",
        "TS_EXPERIMENTAL_CERT_SHARE",
        "TS_EXPERIMENTAL_DEST_DNS_NAME",
        "TS_EXPERIMENTAL_ENABLE_FORWARDING_OPTIMIZATIONS",
        "TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR",
        "TS_EXTRA_ARGS",
        "TS_HEALTHCHECK_ADDR_PORT",
        "TS_HOSTNAME",
        "TS_ID_TOKEN",
        "TS_INGRESS_PROXIES_CONFIG_PATH",
        "TS_KUBE_SECRET",
        "TS_LOCAL_ADDR_PORT",
        "TS_OUTBOUND_HTTP_PROXY_LISTEN",
        "TS_ROUTES",
        "TS_SERVE_CONFIG",
        "TS_SOCKET",
        "TS_SOCKS5_SERVER",
        "TS_STATE_DIR",
        "TS_TAILNET_TARGET_FQDN",
        "TS_TAILNET_TARGET_IP",
        "TS_TAILSCALED_EXTRA_ARGS",
        "TS_TEST_ONLY_ROOT",
        "TS_USERSPACE",
    )
)
"""Variables of the entry point of a container image."""

_NO_ENTRY_POINT = "meshd has no entry point for containers yet; use the flags of meshd, and mesh up"
_HOST_RESOLVER = "the names of relays and servers are looked up by this host's resolver"
_NO_UPLOAD = "meshd sends logs to nobody"
_NO_SSH = "this version of meshd has no SSH server"
_NO_CERTIFICATES = "this version of meshd fetches no certificates"
_NO_MTU_PROBES = "this version of meshd does not probe the MTU of paths; --tun has MTU 1280, or TS_DEBUG_MTU"
_GO = "it is about the runtime of another program"
_TEST = "it is for the tests of another program"

UNSUPPORTED: Final[Mapping[str, str]] = {
    "DERP_PROBER_DEBUG_LOGS": "meshd does not probe relays of others",
    "TAILSCALE_SSH_DEFAULT_PATH": _NO_SSH,
    "TSNET_FORCE_LOGIN": "it is for programs that contain a node; use: mesh up --force-reauth",
    "TS_ALLOW_ADMIN_CONSOLE_REMOTE_UPDATE": "meshd is updated by the package manager of this host",
    "TS_ALLOW_DEBUG_IP": "the server of --debug answers programs of this host only; use a tunnel such as ssh -L",
    "TS_ALLOW_SELF_INGRESS": "this version of meshd serves nothing through Funnel",
    "TS_AUTHKEY": "the daemon reads no key from it; use: mesh up --auth-key=file:PATH, or AuthKey in --config",
    "TS_BIND_TO_INTERFACE_BY_ROUTE": "it is for macOS",
    "TS_CONN25_DATAPATH_DEBUG": "this version of meshd has no app connector",
    "TS_DEBUG_ACME": _NO_CERTIFICATES,
    "TS_DEBUG_ACME_DIRECTORY_URL": _NO_CERTIFICATES,
    "TS_DEBUG_ACME_FORCE_RENEWAL": _NO_CERTIFICATES,
    "TS_DEBUG_CONFIGURE_WSL": "it is for Windows",
    "TS_DEBUG_CONNECT_FAILURES": _TEST,
    "TS_DEBUG_CRASH_ON_UNEXPECTED": _TEST,
    "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH": "it is for relays, and mesh-relay has a fixed limit",
    "TS_DEBUG_DERP_WS_CLIENT": "meshd reaches relays without WebSockets, through HTTP proxies as well",
    "TS_DEBUG_DISABLE_WATCHDOG": _GO,
    "TS_DEBUG_DNS_CACHE": "see the answers with: mesh dns query NAME",
    "TS_DEBUG_ENABLE_PMTUD": _NO_MTU_PROBES,
    "TS_DEBUG_ENABLE_SILENT_DISCO": "meshd sends heartbeats only while there is traffic",
    "TS_DEBUG_EXIT_NODE_DNS_NET_PKG": "this version of meshd resolves no names for others",
    "TS_DEBUG_FILTER_RATE_LIMIT_LOGS": "dropped packets are counted and not logged; see: mesh metrics",
    "TS_DEBUG_FORCE_CLIENT_SIDE_REACHABILITY_ROUTECHECK": "this version of meshd does not probe routes",
    "TS_DEBUG_FORCE_H1_LOGS": _NO_UPLOAD,
    "TS_DEBUG_KEY_PATH": _TEST,
    "TS_DEBUG_LOGTAIL": _NO_UPLOAD,
    "TS_DEBUG_LOGTAIL_FLUSHDELAY": _NO_UPLOAD,
    "TS_DEBUG_LOGTAIL_WAKES": _NO_UPLOAD,
    "TS_DEBUG_LOG_SSH": _NO_SSH,
    "TS_DEBUG_MAGICSOCK_PEERMAP": "see the paths with: mesh debug peer-endpoint-changes",
    "TS_DEBUG_MAGICSOCK_RING_BUFFER_MAX_SIZE_BYTES": "the number of path changes that are kept is fixed",
    "TS_DEBUG_MAGIC_DNS_DUAL_STACK": "names of the network have the addresses that they have",
    "TS_DEBUG_MEMORY": "see the memory of the process with: systemctl status meshd",
    "TS_DEBUG_NETSTACK": "this version of meshd has no TCP stack of its own",
    "TS_DEBUG_NETSTACK_LEAK_MODE": "this version of meshd has no TCP stack of its own",
    "TS_DEBUG_NETSTACK_LOOPBACK_PORT": "this version of meshd has no TCP stack of its own",
    "TS_DEBUG_PANIC_MACHINE_KEY": _TEST,
    "TS_DEBUG_PATCHIFY_PEER": "see map messages with TS_DEBUG_MAP=1",
    "TS_DEBUG_PATCHIFY_PEER_MISS": "see map messages with TS_DEBUG_MAP=1",
    "TS_DEBUG_PERMIT_HTTP_C2N": "calls of the coordination server are answered inside its encrypted connection only",
    "TS_DEBUG_PMTUD": _NO_MTU_PROBES,
    "TS_DEBUG_PREFER_IPV6_USERDIAL": "the order of addresses is that of this host",
    "TS_DEBUG_PROXY_DNS": "the network's DNS settings are taken as they are",
    "TS_DEBUG_RAW_DISCO": "meshd receives disco on its UDP sockets",
    "TS_DEBUG_RECURSIVE_DNS": _HOST_RESOLVER,
    "TS_DEBUG_RESTUN_STOP_ON_IDLE": "meshd asks STUN servers only while there is traffic, always",
    "TS_DEBUG_ROUTECHECK": "this version of meshd does not probe routes",
    "TS_DEBUG_SCOPE_QUAD100_MACOS": "it is for macOS",
    "TS_DEBUG_SEND_CALLME_UNKNOWN_PEER": _TEST,
    "TS_DEBUG_SLOW_PUSH": _TEST,
    "TS_DEBUG_SSH_IGNORE_TAILNET_POLICY": _NO_SSH,
    "TS_DEBUG_SSH_POLICY_FILE": _NO_SSH,
    "TS_DEBUG_SSH_VLOG": _NO_SSH,
    "TS_DEBUG_TPM": "the state file is sealed by systemd-creds, see --encrypt-state",
    "TS_DEBUG_TRIM_WIREGUARD": "peers are set up when there is traffic with them, always",
    "TS_DEBUG_TRUSTED_CIDRS": "the server of --debug answers programs of this host only; use a tunnel such as ssh -L",
    "TS_DEBUG_USE_DERP_HTTP": "meshd speaks to relays over TLS only",
    "TS_DEBUG_USE_IP_COMMAND": "meshd speaks netlink with the kernel, always",
    "TS_DEBUG_VERBOSE_DROPS": "dropped packets are counted and not logged; see: mesh metrics",
    "TS_DEBUG_WEB_CLIENT_DEV": "this version of meshd has no web client",
    "TS_DEBUG_WG_BATCH_SIZE": "the size of batches is fixed",
    "TS_DEBUG_WHOIS": "ask with: mesh whois ADDRESS",
    "TS_DERP_DISABLE_RTT_STATS": "it is for relays, and mesh-relay measures no round trips",
    "TS_DNSFALLBACK_DISABLE_RECURSIVE_RESOLVER": _HOST_RESOLVER,
    "TS_DNSFALLBACK_RECURSIVE_RESOLVER": _HOST_RESOLVER,
    "TS_ENABLE_RAW_DISCO": "meshd receives disco on its UDP sockets",
    "TS_FAKE_SYNOLOGY": "it is for Synology devices",
    "TS_FORCE_ALLOW_TSAPP_UPDATE": "meshd is updated by the package manager of this host",
    "TS_LOGS_DIR": "meshd writes its log to standard error, or with --syslog to the system's log",
    "TS_LOG_TARGET": _NO_UPLOAD,
    "TS_NETSTACK_KEEPALIVE_IDLE": "this version of meshd has no TCP stack of its own",
    "TS_NETSTACK_KEEPALIVE_INTERVAL": "this version of meshd has no TCP stack of its own",
    "TS_PLEASE_PANIC": _TEST,
    "TS_SERIAL_TESTS": _TEST,
    "TS_UNSAFE_SKIP_NKS_VERIFICATION": "this version of meshd does not check the signatures of tailnet lock",
    "TS_WAKE_MAC": "meshd does not tell others by which hardware address this host can be woken",
}
"""Variables that ask for what meshd does not do, with what to know or do instead."""

_OFF = frozenset(("", "0", "f", "false"))


def complaints(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that will have no effect, and why; sorted. Those that are switched off ask for nothing."""
    known = READ | LOGGERS.keys() | SATISFIED | OF_COMMANDS
    found = []
    for name in sorted(environment):
        if not name.startswith(PREFIXES) or name in known or environment[name].lower() in _OFF:
            continue
        why = _NO_ENTRY_POINT if name in OF_CONTAINERS else "meshd knows no such variable"
        found.append((name, UNSUPPORTED.get(name, why)))
    return found


def wanted_loggers(environment: Mapping[str, str]) -> list[str]:
    """The loggers that are to write all they have."""
    names = {
        logger
        for variable, loggers in LOGGERS.items()
        if environment.get(variable, "").lower() not in _OFF
        for logger in loggers
    }
    return sorted(names)
