"""TCP connections to relays: which server of a region, which address, and how long to try."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from meshd.base.addr import IPAddress, parse_ip
from meshd.base.errors import MeshdError
from meshd.core.relaymap import RelayNode, RelayRegion
from meshd.io import dial
from meshd.io.mark import mark_socket
from meshd.io.proxy import Proxy, proxy_for
from meshd.io.streams import SocketStream
from meshd.io.tls import CertificateCheck
from meshd.io.tlsstream import TlsStream

NODE_TIMEOUT_S = 1.5
V4_DELAY_S = 0.200  # the head start of IPv6 when it is known to work
PROXY_TIMEOUT_S = 5.0  # a proxy has to connect as well
MAX_PROXY_ANSWER_BYTES = 16 * 1024
LATENCY_PATH = "/derp/latency-check"


class Dialled(NamedTuple):
    """A connected socket and the server it leads to."""

    sock: socket.socket
    node: RelayNode


def certificate_check(node: RelayNode) -> CertificateCheck:
    """How this relay proves itself."""
    return CertificateCheck(node.host, node.cert_name, insecure=node.insecure_for_tests)


async def dial_region(region: RelayRegion, *, prefer_v6: bool = False, mark: bool = True) -> Dialled:
    """Connect to the first server of the region that answers. MeshdError names the last failure."""
    reason = "no server to connect to"
    for node in region.derp_nodes:
        try:
            proxied = proxy_for("https", node.host, node.derp_port) is not None
            async with asyncio.timeout(PROXY_TIMEOUT_S if proxied else NODE_TIMEOUT_S):
                return Dialled(await _dial_node(node, prefer_v6, mark), node)
        except (OSError, MeshdError) as error:  # TimeoutError is an OSError
            reason = _reason(error)
    raise MeshdError(f"relay {region.code or region.id} cannot be reached: {reason}", code="relay-unreachable")


async def measure_https(region: RelayRegion, *, mark: bool = True) -> float:
    """Seconds from request to answer on a warm TLS connection to the region.

    MeshdError, ConnectionError or TimeoutError when there is no answer.
    """
    dialled = await dial_region(region, mark=mark)
    loop = asyncio.get_running_loop()
    _, inner = await loop.create_connection(SocketStream, sock=dialled.sock)
    stream = TlsStream(inner, certificate_check(dialled.node))
    try:
        await stream.handshake()
        started = loop.time()
        stream.write(f"GET {LATENCY_PATH} HTTP/1.1\r\nHost: {dialled.node.host}\r\nConnection: close\r\n\r\n".encode())
        head = await stream.read()
        elapsed = loop.time() - started
    finally:
        stream.close()
    status = head[:64].split(b" ", 2)
    if len(status) < 2 or not status[1].isdigit() or int(status[1]) > 299:
        raise MeshdError(f"relay {region.code or region.id} does not answer latency checks", code="relay")
    return elapsed


async def resolve(node: RelayNode, family: int) -> IPAddress | None:
    """The address of a relay in family 4 or 6, by its map entry or DNS; None when it has none."""
    if not node.uses(family):
        return None
    literal = node.address(family)
    if literal is not None:
        return literal
    if node.ipv4 and node.ipv4 != "none" and node.host == node.ipv4:
        return None  # an address stands for the name: there is nothing to look up
    try:
        return _of_family(parse_ip(node.host), family)
    except ValueError:
        pass  # a name
    wanted = socket.AF_INET if family == 4 else socket.AF_INET6
    try:
        found = await asyncio.get_running_loop().getaddrinfo(node.host, 0, family=wanted, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    for entry in found:
        try:
            return parse_ip(str(entry[4][0]))
        except ValueError:
            continue  # link-local with a zone
    return None


async def _dial_node(node: RelayNode, prefer_v6: bool, mark: bool) -> socket.socket:
    proxy = proxy_for("https", node.host, node.derp_port)
    if proxy is not None:
        return await _connect_through(proxy, node, mark)
    attempts = {
        asyncio.ensure_future(_connect(node, family, V4_DELAY_S if prefer_v6 and family == 4 else 0.0, mark))
        for family in (4, 6)
        if node.uses(family)
    }
    failure: BaseException | None = None
    winner: socket.socket | None = None
    try:
        while attempts and winner is None:
            done, attempts = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                if error is not None:
                    if failure is None or not isinstance(error, _NoAddressError):
                        failure = error
                elif winner is None:
                    winner = attempt.result()
                else:
                    attempt.result().close()
    finally:
        for attempt in attempts:
            attempt.cancel()
        for outcome in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()
    if winner is not None:
        return winner
    if not isinstance(failure, OSError | MeshdError):
        raise OSError(f"{node.host} has no address")
    try:
        raise failure
    finally:
        del failure, error, attempt, done  # it knows this frame, and they know it


class _NoAddressError(OSError):
    """The relay does not exist in this family: less telling than any other failure."""


async def _connect(node: RelayNode, family: int, delay_s: float, mark: bool) -> socket.socket:
    if delay_s:
        await asyncio.sleep(delay_s)
    address = await resolve(node, family)
    if address is None:
        raise _NoAddressError(f"{node.host} has no IPv{family} address")
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    return await _open(family, (str(address), node.derp_port), mark)


async def _open(family: int, where: Any, mark: bool) -> socket.socket:
    """A connection to a socket address; its host may have a zone."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if mark:
            mark_socket(sock, parse_ip(where[0].partition("%")[0]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dial.keep_alive(sock)
        await loop.sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _open_proxy(proxy: Proxy, mark: bool) -> socket.socket:
    try:
        found = await dial.resolve(proxy.host, proxy.port)
    except MeshdError as error:  # its hint is about the coordination server
        raise ConnectionError(error.message) from None
    return await dial.first_success([_open(family, where, mark) for family, where in found], dial.ATTEMPT_DELAY)


async def _connect_through(proxy: Proxy, node: RelayNode, mark: bool) -> socket.socket:
    """A tunnel made by an HTTP proxy (RFC 9110 9.3.6). Nothing follows its answer until we speak."""
    loop = asyncio.get_running_loop()
    target = f"[{node.host}]:{node.derp_port}" if ":" in node.host else f"{node.host}:{node.derp_port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.authorization:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    sock = await _open_proxy(proxy, mark)
    try:
        await loop.sock_sendall(sock, (head + "\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await loop.sock_recv(sock, 4096)
            if not data or len(answer) > MAX_PROXY_ANSWER_BYTES:
                raise ConnectionError("the proxy gave no answer")
            answer += data
        status = answer[: answer.index(b"\r\n")].split(b" ")
        if len(status) < 2 or not status[1].startswith(b"2"):
            raise ConnectionError(f"the proxy refused: {b' '.join(status[1:]).decode('ascii', 'replace')}")
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error)


def _of_family(address: IPAddress, family: int) -> IPAddress | None:
    return address if address.version == family else None
