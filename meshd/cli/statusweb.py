"""The status as a web page, for people on this machine: `mesh status --web`."""

from __future__ import annotations

import html
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from meshd.cli.client import JSON, LocalClient
from meshd.cli.errors import CliError
from meshd.cli.nodes import display_name, peers

_STYLE = (
    "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ccc;vertical-align:top}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def page(status: JSON, rows: list[list[str]]) -> str:
    """The page of a status whose peers are given as rows of text; everything is escaped."""

    def cells(kind: str, row: list[str]) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"

    own = status.get("Self") or {}
    name = html.escape(display_name(status, own) if own else "this node")
    addresses = html.escape(", ".join(status.get("TailscaleIPs") or []))
    health = "".join(f"<li>{html.escape(str(text))}</li>" for text in status.get("Health") or [])
    head = cells("th", ["Address", "Name", "Owner", "OS", "State"])
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{name}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{name}</h1><p>{html.escape(str(status.get('BackendState')))} {addresses}</p>"
        f"{f'<h2>Health</h2><ul>{health}</ul>' if health else ''}"
        f"<table>{head}{''.join(cells('td', row) for row in rows)}</table></body></html>\n"
    )


def serve(client: LocalClient, listen: str, row: Any, order: Any, *, browser: bool) -> None:
    """Serve the page until interrupted. `row` makes the text of a node, `order` is the key that peers are sorted by.

    Raises:
        CliError: `listen` is no address, or cannot be listened on.
    """
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise CliError(f'invalid --listen="{listen}", expected ADDRESS:PORT')
    host = host.strip("[]")
    try:
        server = StatusServer((host, int(port)), client, row, order)
    except (OSError, UnicodeError) as error:
        raise CliError(f"cannot listen on {listen}: {getattr(error, 'strerror', None) or error}") from None
    with server:
        sys.stdout.write(f"Serving the status at {server.url()} ...\n")
        sys.stdout.flush()
        if browser:
            open_browser(server.url())
        server.serve_forever()


def open_browser(url: str) -> None:
    """Show a page to a person who has a display; nothing happens for anybody else."""
    import os

    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        import webbrowser

        webbrowser.open(url)


class StatusServer(ThreadingHTTPServer):
    """Serves the page of `client`'s status at `/`."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], client: LocalClient, row: Any, order: Any) -> None:
        import socket

        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.client, self.row, self.order = client, row, order

    def url(self) -> str:
        """Where a browser of this machine finds the page."""
        host, port = self.server_address[:2]
        name = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{'127.0.0.1' if name == '0.0.0.0' else name}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing of a browser that has left; a line for anything else."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            sys.stderr.write(f"mesh: cannot show the page: {type(error).__name__}: {error}\n")

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names an address, or localhost: a page that a name was rebound for reads nothing."""
        from meshd.cli.nodes import canonical_ip

        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        return name.strip("[]").lower() == "localhost" or canonical_ip(name.strip("[]")) is not None


class _Handler(BaseHTTPRequestHandler):
    server: StatusServer
    timeout = 30
    server_version = "mesh"
    sys_version = ""

    def do_GET(self) -> None:
        server = self.server
        if not server.is_ours(self.headers.get("Host") or ""):
            return self._say(403, "text/plain", "open this page by its address\n")
        if self.path != "/":
            return self._say(404, "text/plain", "404 page not found\n")
        try:
            status = server.client.status()
        except CliError as error:
            return self._say(500, "text/plain", error.message + "\n")
        nodes = [status["Self"]] if status.get("Self") else []
        rows = [server.row(status, node) for node in nodes + sorted(peers(status), key=server.order)]
        return self._say(200, "text/html", page(status, rows))

    def _say(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who looks at the page is no news."""
