"""The commands of `mesh`, in the order of its help."""

from __future__ import annotations

import os

from meshd.cli.client import DEFAULT_SOCKET
from meshd.cli.command import Command, Part
from meshd.cli.flags import BOOL, STRING, Flag

PARTS = [
    Part("up", "Connect to the mesh, logging in if needed", "up_command"),
    Part("down", "Disconnect from the mesh", "down_command"),
    Part("set", "Change the settings that are named", "set_command"),
    Part("get", "Show the current settings", "get_command"),
    Part("login", "Log in to a network", "login_command"),
    Part("logout", "Disconnect and expire the node key", "logout_command"),
    Part("switch", "Switch to another login profile", "switch_command"),
    Part("configure", "Let other programs of this host use the mesh", "configure_command"),
    Part("syspolicy", "Show the settings that a system policy enforces", "syspolicy_command"),
    Part("netcheck", "Report on the network that this machine is in", "netcheck_command"),
    Part("ip", "Show mesh IP addresses", "ip_command"),
    Part("dns", "Diagnose the DNS of the mesh", "dns_command"),
    Part("status", "Show the state of meshd and its connections", "status_command"),
    Part("metrics", "Show the metrics of this node", "metrics_command"),
    Part("ping", "Ping a node through the mesh and see how it was reached", "ping_command"),
    Part("nc", "Connect to a port of a node and join it with stdin and stdout", "nc_command"),
    Part("ssh", "SSH to a node of the mesh", "ssh_command"),
    Part("funnel", "Show what this node serves to the internet", "serve_command", "FUNNEL"),
    Part("serve", "Show what this node serves to the mesh", "serve_command"),
    Part("service", "Show the services of the network", "service_command"),
    Part("version", "Print the version", "version_command"),
    Part("file", "Send and receive files", "file_command"),
    Part("bugreport", "Print a marker to find this moment in the logs", "bugreport_command"),
    Part("cert", "Get TLS certificates", "cert_command"),
    Part("lock", "Show and manage tailnet lock", "lock_command"),
    Part("licenses", "Print the licences of meshd and of what it uses", "licenses_command"),
    Part("exit-node", "Show the nodes that offer to be exit nodes", "exitnode_command"),
    Part("update", "Update meshd", "update_command"),
    Part("whois", "Show the machine and user behind a mesh address", "whois_command"),
    Part("whoami", "Show the machine and user that this node is", "whoami_command"),
    Part("debug", "Look into a running meshd", "debug_command", hidden=True),
    Part("drive", "Share directories with the mesh", "drive_command"),
    Part("id-token", "Get an identity token for this machine", "idtoken_command", hidden=True),
    Part("appc-routes", "Show the routes of this app connector", "appcroutes_command"),
    Part("wait", "Wait until the mesh interface and its addresses are ready", "wait_command"),
    Part("routecheck", "Show which routers of the same routes can be reached", "routecheck_command", hidden=True),
    Part("web", "Control meshd with a browser", "web_command", hidden=True),
    Part("completion", "Print completion scripts for shells", "completion_command"),
]


def default_socket() -> str:
    """The daemon's socket unless --socket says otherwise."""
    return os.environ.get("MESHD_SOCKET") or DEFAULT_SOCKET


def root_command() -> Command:
    """`mesh` itself."""
    return Command(
        "mesh",
        usage="mesh [flags] <subcommand> [command flags]",
        short="A mesh of WireGuard tunnels.",
        long='For help on a command, add --help after it: "mesh status --help".',
        flags=[
            Flag("socket", STRING, default_socket(), "path of meshd's socket"),
            Flag("json-docs", BOOL, False, "print the help of all commands as JSON", hidden=True),
        ],
        parts=PARTS,
    )
