"""What passes an interface, seen and sent by a third party in its namespace. One command a line, one JSON answer each.

    wiretap.py INTERFACE

``seen`` gives the UDP datagrams since the start, both directions: [source, port, destination, port, hex].
``send SOURCE PORT DESTINATION PORT HEX`` sends one. ``flood SOURCE DESTINATION PORT PUBLIC SECONDS`` sends
handshake initiations that pass the first check (mac1) and nothing after it, in bursts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time

from meshd.base.crypto import blake2s_mac
from meshd.core.cookie import mac1_key

ETH_P_IP = 0x0800
BURST = 1500
PAUSE_S = 0.04


def datagram_of(frame: bytes) -> list[object] | None:
    packet = frame[14:]
    header = (packet[0] & 15) * 4
    if packet[9] != socket.IPPROTO_UDP:
        return None
    ports = [int.from_bytes(packet[at : at + 2], "big") for at in (header, header + 2)]
    bytes_ = int.from_bytes(packet[header + 4 : header + 6], "big") - 8
    source, destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    return [source, ports[0], destination, ports[1], packet[header + 8 :][:bytes_].hex()]


def watch(interface: str, seen: list[list[object]], pause: threading.Event) -> None:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    tap.bind((interface, 0))
    while True:
        frame, address = tap.recvfrom(65535)
        if address[1] == ETH_P_IP and not pause.is_set() and (datagram := datagram_of(frame)) is not None:
            seen.append(datagram)


def socket_at(source: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((source, port))
    return sock


def flood(source: str, destination: str, port: int, public: bytes, seconds: float) -> int:
    key, sent = mac1_key(public), 0
    end = time.monotonic() + seconds
    with socket_at(source, 0) as sock:
        while time.monotonic() < end:
            for _ in range(BURST):
                body = b"\x01\0\0\0" + os.urandom(112)
                sock.sendto(body + blake2s_mac(key, body, 16) + bytes(16), (destination, port))
                sent += 1
            time.sleep(PAUSE_S)
    return sent


def main() -> None:
    seen: list[list[object]] = []
    pause = threading.Event()
    threading.Thread(target=watch, args=(sys.argv[1], seen, pause), daemon=True).start()
    time.sleep(0.2)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        answer: object = "done"
        if word == "seen":
            answer = list(seen)
        elif word == "send":
            with socket_at(rest[0], int(rest[1])) as sock:
                sock.sendto(bytes.fromhex(rest[4]), (rest[2], int(rest[3])))
        elif word == "flood":
            arguments = (rest[0], rest[1], int(rest[2]), bytes.fromhex(rest[3]), float(rest[4]))
            threading.Thread(target=flood, args=arguments, daemon=True).start()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
