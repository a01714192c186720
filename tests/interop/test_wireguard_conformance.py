"""WireGuard to the letter, beside Debian's wireguard-go: roaming, cookies, replays, and who counts what."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.interop.wireguardlab import NEEDED, ROOT, WireGuardLab, assert_counters_agree, run, wait_for

pytestmark = NEEDED
US, GO = ("192.0.2.1", 41641), ("192.0.2.2", 51820)
STRANGER = "192.0.2.77"


class Tap:
    """A third party on one end of the cable."""

    def __init__(self, namespace):
        run("ip", "-n", namespace, "addr", "add", f"{STRANGER}/24", "dev", "up0")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", "tests.interop.wiretap", "up0"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert json.loads(self.process.stdout.readline()) == "ready"

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def seen(self, source, kind=None):
        """Datagrams that left ``source`` (address, port), of one WireGuard message type or any."""
        sent = [bytes.fromhex(data) for address, port, _, _, data in self.ask("seen") if (address, port) == source]
        return [data for data in sent if kind is None or data[0] == kind]

    def send(self, source, target, data):
        self.ask("send", *source, *target, data.hex())

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def lab(tmp_path):
    lab = WireGuardLab(tmp_path)
    try:
        lab.start_wireguard()
        lab.start_node()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def tap_at(lab):
    taps = []

    def start(namespace):
        taps.append(Tap(namespace))
        return taps[-1]

    yield start
    for tap in taps:
        tap.close()


def _endpoint(lab):
    """Where wireguard-go believes us to be."""
    return lab.wg("show", lab.interface, "endpoints").split()[1]


def _move(namespace, old, new):
    """Other addresses of the network go with the old one."""
    run("ip", "-n", namespace, "addr", "del", old, "dev", "up0")
    run("ip", "-n", namespace, "addr", "replace", new, "dev", "up0")


def _refused(lab, reason):
    return lab.ask("counters").get(reason, 0)


def test_counters_equal_what_a_sniffer_sees(lab, tap_at):
    tap = tap_at(lab.us)
    assert lab.ping(lab.go, "100.64.0.1", "-c", "20", "-i", "0.02", "-s", "900") == 0
    assert lab.ping(lab.us, "100.64.0.2", "-c", "20", "-i", "0.02", "-s", "33") == 0
    assert_counters_agree(lab)
    status = lab.ask("status")
    wait_for(lambda: sum(map(len, tap.seen(US))) == status["tx"], "a sniffer saw other bytes than were counted as sent")
    assert sum(map(len, tap.seen(GO))) == status["rx"]


def test_we_move_and_wireguard_go_follows_our_authenticated_packets(lab, tap_at):
    tap = tap_at(lab.us)
    assert lab.ping(lab.us, "100.64.0.2", "-c", "2", "-i", "0.1") == 0
    # What was seen before comes again from a stranger: nobody may be led away by it.
    for data in tap.seen(US, kind=4):
        tap.send((STRANGER, 5000), GO, data)
    assert lab.ping(lab.go, "100.64.0.1", "-c", "2", "-i", "0.1") == 0
    assert _endpoint(lab) == "192.0.2.1:41641"
    _move(lab.us, "192.0.2.1/24", "192.0.2.9/24")
    assert lab.ping(lab.us, "100.64.0.2", "-c", "3", "-i", "0.2") == 0
    assert _endpoint(lab) == "192.0.2.9:41641"
    assert lab.ping(lab.go, "100.64.0.1", "-c", "3", "-i", "0.2") == 0


def test_wireguard_go_moves_and_its_handshake_takes_us_along(lab):
    assert lab.ping(lab.us, "100.64.0.2", "-c", "2", "-i", "0.1") == 0
    _move(lab.go, "192.0.2.2/24", "192.0.2.12/24")
    lab.wg("set", lab.interface, "listen-port", "51999")
    # Its packets go unanswered, since our answers go to where it was: after 15 s it shakes hands again.
    lab.ping(lab.go, "100.64.0.1", "-c", "90", "-i", "0.2", "-q")
    assert lab.ask("status")["endpoint"] == "192.0.2.12:51999"
    assert lab.ping(lab.us, "100.64.0.2", "-c", "3", "-i", "0.2") == 0


def test_replayed_and_altered_datagrams_change_nothing(lab, tap_at):
    tap = tap_at(lab.go)
    assert lab.ping(lab.go, "100.64.0.1", "-c", "10", "-i", "0.02") == 0
    before = lab.ask("counters")
    packets = tap.seen(GO, kind=4)
    (initiation,) = tap.seen(GO, kind=1)
    assert len(packets) >= 10
    for data in packets:
        tap.send((STRANGER, 5000), US, data)
        tap.send((STRANGER, 5000), US, data[:-1] + bytes((data[-1] ^ 1,)))
    wait_for(lambda: _refused(lab, "in_replayed") >= len(packets), "replays are not counted")
    wait_for(lambda: _refused(lab, "in_forged") >= len(packets), "forgeries are not counted")
    sessions = lab.ask("status")["sessions"]
    tap.send((STRANGER, 5000), US, initiation)
    tap.send((STRANGER, 5000), US, initiation[:-40] + b"\1" + initiation[-39:])
    wait_for(lambda: _refused(lab, "mac1") == before.get("mac1", 0) + 1, "an altered initiation passed mac1")
    assert lab.ping(lab.go, "100.64.0.1", "-c", "5", "-i", "0.02") == 0
    assert lab.ask("status")["sessions"] == sessions
    assert lab.ask("status")["endpoint"] == "192.0.2.2:51820"
    assert not tap.seen(US, kind=2)[1:], "a replayed initiation was answered"


def test_a_flood_of_initiations_makes_wireguard_go_ask_us_for_a_cookie(lab, tap_at):
    tap = tap_at(lab.us)
    tap.ask("flood", STRANGER, *GO, lab.theirs.public().raw.hex(), 12)
    time.sleep(0.5)
    # Four attempts, one of them after the flood: on a busy machine wireguard-go itself may not get to the others.
    assert lab.ping(lab.us, "100.64.0.2", "-c", "90", "-i", "0.2") < 100
    replies = [data for data in tap.seen(GO, kind=3) if len(data) == 64]
    assert replies, "it was never under load"
    initiations = tap.seen(US, kind=1)
    assert initiations[0][-16:] == bytes(16), "a second mac before there is a cookie"
    assert initiations[-1][-16:] != bytes(16), "the cookie was not used"
    assert lab.ask("status")["sessions"] >= 1


def test_a_flood_of_initiations_makes_us_ask_wireguard_go_for_a_cookie(lab, tap_at):
    tap = tap_at(lab.go)
    tap.ask("flood", STRANGER, *US, lab.ours.public().raw.hex(), 12)
    time.sleep(0.5)
    assert lab.ping(lab.go, "100.64.0.1", "-c", "90", "-i", "0.2") < 100
    assert _refused(lab, "cookie_asked") > 0
    initiations = tap.seen(GO, kind=1)
    assert initiations[-1][-16:] != bytes(16), "it never used a cookie"
    assert lab.ask("status")["sessions"] >= 1
    # And once it has a session, the flood costs it nothing.
    assert lab.ping(lab.go, "100.64.0.1", "-c", "20", "-i", "0.02") == 0
