"""Two data planes over loopback: packets both ways, sessions, paths, events."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from meshd._fast import segment
from meshd._fast.filter import Filter
from meshd._fast.plane import (
    EV_ACTIVE,
    EV_CONFIRMED,
    EV_REKEY,
    EV_RELAY,
    EV_STAGED,
    EV_TSMP,
)
from tests.unit.fast import offload
from tests.unit.fast.packets import A4, B4, icmp, ipv4, udp
from tests.unit.fast.planepair import KEY_AB, KEY_BA, Node, allow_all, pair, sealed, send_raw

PLAIN = bytes(10)


@pytest.mark.parametrize("vnet_header", [True, False])
def test_plane_packets_cross_both_ways(vnet_header: bool) -> None:
    with pair(vnet_header=vnet_header) as nodes:
        header = PLAIN if vnet_header else b""
        for payload in (b"", b"x", b"y" * 1252):
            nodes.a.write(offload.udp(payload), header)
            assert nodes.b.read() == header + offload.udp(payload)
        answer = ipv4(1, icmp(0), B4, A4)
        nodes.b.write(answer, header)
        assert nodes.a.read() == header + answer


def test_plane_super_packet_comes_out_merged() -> None:
    with pair() as nodes:
        header, packet = offload.super_tcp(bytes(i % 251 for i in range(48 * 1240)), 1240)
        nodes.a.write(packet, header)
        got = nodes.b.read()
        assert segment.split(got[:10], got[10:]) == segment.split(header, packet)
        assert nodes.b.counted("tun_writes") == 1
        assert nodes.a.counted("udp_writes") == 1


def test_plane_super_packet_too_large_for_one_send_keeps_order() -> None:
    with pair() as nodes:
        header, packet = offload.super_tcp(bytes(i % 251 for i in range(65000)), 1240, flags=0x10)
        nodes.a.write(packet, header)
        wanted, got = segment.split(header, packet), list[bytes]()
        while len(got) < len(wanted):
            read = nodes.b.read()
            got += segment.split(read[:10], read[10:])
        assert got == wanted


def test_plane_many_packets_keep_their_order() -> None:
    with pair() as nodes:
        for i in range(300):
            nodes.a.write(offload.udp(struct.pack(">I", i) + bytes(i % 90)))
            if i % 50 == 49:  # no more than the socket pair holds
                nodes.b.counted("tun_writes", 1)
        numbers = list[int]()
        while len(numbers) < 300:
            read = nodes.b.read()
            numbers += [int.from_bytes(piece[28:32], "big") for piece in segment.split(read[:10], read[10:])]
        assert numbers == list(range(300))


def test_plane_counters_of_peer_follow_traffic() -> None:
    with pair() as nodes:
        before = time.monotonic()
        nodes.a.write(offload.udp(b"q"))
        nodes.b.read()
        sent, got = nodes.a.plane.peer_state(0), nodes.b.plane.peer_state(0)
        assert (sent.tx_packets, sent.tx_bytes, sent.rx_packets) == (1, 64, 0)
        assert sent.unanswered_since == sent.last_tx == sent.last_tx_data >= before
        assert got.owed_since == got.last_rx == got.last_rx_data >= before
        assert nodes.b.plane.send_keepalive(0)
        while not nodes.a.plane.peer_state(0).rx_packets:
            time.sleep(0.001)
        sent, got = nodes.a.plane.peer_state(0), nodes.b.plane.peer_state(0)
        assert sent.unanswered_since == 0
        assert sent.last_rx_data == 0
        assert sent.last_rx > before
        assert sent.owed_since == 0
        assert (got.owed_since, got.last_tx_data) == (0, 0)
        assert (got.tx_bytes, sent.rx_bytes) == (32, 32)
        assert got.current_local_index == 0xB0


def test_plane_active_told_once_until_cleared() -> None:
    with pair() as nodes:
        for _ in range(5):
            nodes.a.write(offload.udp(b"q"))
            nodes.b.read()
        assert [event for event in nodes.b.plane.drain() if event[0] == EV_ACTIVE] == [(EV_ACTIVE, 0)]
        nodes.b.plane.clear_active(0)
        nodes.a.write(offload.udp(b"q"))
        assert nodes.b.event(EV_ACTIVE) == (EV_ACTIVE, 0)


def test_plane_without_session_stages_whole_packet() -> None:
    with pair(session=False) as nodes:
        header, packet = offload.super_tcp(b"z" * 5000, 1240)
        nodes.a.write(packet, header)
        staged = nodes.a.event(EV_STAGED)
        assert staged == (EV_STAGED, 0, header + packet)
        assert nodes.a.plane.send_staged(0, [staged[2]]) == 0
        nodes.session()
        assert nodes.a.plane.send_staged(0, [staged[2]]) == 1
        got = nodes.b.read()
        assert segment.split(got[:10], got[10:]) == segment.split(header, packet)


def test_plane_staging_is_limited_per_second() -> None:
    with pair(session=False) as nodes:
        for i in range(400):
            nodes.a.write(offload.udp(b"q"))
            if i % 100 == 99:
                nodes.a.counted("tun_reads", i)
        nodes.a.counted("tun_reads", 400)
        nodes.a.counted("out_staged_limit")
        assert len(nodes.a.plane.drain(1000)) <= 256


def test_plane_unknown_destination_dropped_and_counted() -> None:
    with pair() as nodes:
        nodes.a.write(ipv4(1, icmp(8), A4, bytes([9, 9, 9, 9])))
        assert nodes.a.counted("out_no_route") == 1


def test_plane_multicast_never_leaves() -> None:
    with pair() as nodes:
        nodes.a.plane.add_route(0, bytes(4), 0)
        nodes.a.write(ipv4(1, icmp(8), A4, bytes([224, 0, 0, 1])))
        assert nodes.a.counted("out_filtered") == 1


def test_plane_responder_silent_until_confirmed() -> None:
    """dataplane 1.3: a responder must not send on a new pair before it received a packet on it."""
    with pair(session=False) as nodes:
        nodes.session(responder_slot="next")
        answer = ipv4(1, icmp(0), B4, A4)
        nodes.b.write(answer)
        assert nodes.b.event(EV_STAGED)[2] == PLAIN + answer
        assert nodes.a.plane.send_keepalive(0)
        assert nodes.b.event(EV_CONFIRMED) == (EV_CONFIRMED, 0, 0xB0)
        nodes.b.write(answer)
        assert nodes.a.read() == PLAIN + answer


def test_plane_previous_session_still_opens() -> None:
    with pair() as nodes:
        nodes.session(index=1)
        send_raw(nodes, sealed(offload.udp(b"old"), 0))
        assert nodes.b.read()[10:] == offload.udp(b"old")
        nodes.session(index=2)
        send_raw(nodes, sealed(offload.udp(b"too old"), 1))
        assert nodes.b.counted("in_no_session") == 1


def test_plane_promotion_keeps_the_previous_session() -> None:
    with pair() as nodes:
        nodes.session(index=1, responder_slot="next")
        assert nodes.a.plane.send_keepalive(0)
        assert nodes.b.event(EV_CONFIRMED)[2] == 0xB1
        send_raw(nodes, sealed(offload.udp(b"late"), 0))
        assert nodes.b.read()[10:] == offload.udp(b"late")
        assert nodes.b.plane.peer_state(0).current_local_index == 0xB1


def test_plane_old_initiator_session_asks_for_rekey_once() -> None:
    with pair(session=False) as nodes:
        nodes.session(created=time.monotonic() - 121)
        for _ in range(3):
            nodes.a.write(offload.udp(b"q"))
            nodes.b.read()
        events = [*nodes.a.plane.drain(), *nodes.b.plane.drain()]
        assert [event for event in events if event[0] == EV_REKEY] == [(EV_REKEY, 0, 0xA0)]


def test_plane_initiator_that_only_receives_asks_for_rekey_later() -> None:
    with pair(session=False) as nodes:
        nodes.session(created=time.monotonic() - 166)
        nodes.b.write(ipv4(1, icmp(0), B4, A4))
        nodes.a.read()
        assert nodes.a.event(EV_REKEY) == (EV_REKEY, 0, 0xA0)
        assert not any(event[0] == EV_REKEY for event in nodes.b.plane.drain())


def test_plane_untrusted_path_sends_both_ways() -> None:
    with pair() as nodes:
        nodes.connect(relay=7, trusted_until=time.monotonic() - 1)
        nodes.a.write(offload.udp(b"twice"))
        assert nodes.b.read()[10:] == offload.udp(b"twice")
        assert nodes.a.event(EV_RELAY) == (EV_RELAY, 7)
        frame = nodes.a.plane.take_relayed(7)
        assert (frame[0], int.from_bytes(frame[1:5], "big"), frame[5:37]) == (4, len(frame) - 5, b"B" * 32)
        assert nodes.b.plane.open_from([frame[37:]]) == []
        assert nodes.b.counted("in_replayed") == 1
        assert nodes.a.plane.take_relayed(7) == b""
        nodes.connect(relay=7, trusted_until=time.monotonic() + 60)
        nodes.a.write(offload.udp(b"once"))
        nodes.b.read()
        assert nodes.a.plane.take_relayed(7) == b""


def test_plane_relay_alone_carries_super_packets() -> None:
    with pair() as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, 3)
        header, packet = offload.super_tcp(b"r" * 20000, 1240)
        nodes.a.write(packet, header)
        nodes.a.event(EV_RELAY)
        frames, datagrams = nodes.a.plane.take_relayed(3), list[bytes]()
        while frames:
            size = int.from_bytes(frames[1:5], "big")
            datagrams.append(frames[37 : 5 + size])
            frames = frames[5 + size :]
        assert len(datagrams) == 17
        handshake = b"\2\0\0\0" + bytes(88)
        assert nodes.b.plane.open_from([*datagrams, handshake]) == [handshake]
        got = nodes.b.read()
        assert segment.split(got[:10], got[10:]) == segment.split(header, packet)


def test_plane_relay_queue_full_drops_and_counts() -> None:
    with pair() as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, 3)
        for _ in range(500):
            nodes.a.plane.send_packet(0, ipv4(17, bytes(1252)))
        assert nodes.a.plane.counters()["out_relay_full"] > 0
        assert len(nodes.a.plane.take_relayed(3)) <= 1 << 19


def test_plane_no_path_dropped_and_counted() -> None:
    with pair() as nodes:
        nodes.a.plane.set_path(0, None, 0, 0, 0)
        nodes.a.write(offload.udp(b"lost"))
        assert nodes.a.counted("out_no_path") == 1
        nodes.a.plane.set_path(0, bytes(15) + b"\1", 9, 1e8, 0)
        nodes.a.write(offload.udp(b"lost"))
        assert nodes.a.counted("out_no_socket") == 1


def test_plane_sockets_can_be_changed_while_running() -> None:
    with pair() as nodes:
        nodes.b.plane.set_udp(-1, -1)
        nodes.b.udp.close()
        nodes.b.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        nodes.b.udp.setblocking(False)
        nodes.b.udp.bind(("127.0.0.1", 0))
        nodes.b.port = nodes.b.udp.getsockname()[1]
        nodes.b.plane.set_udp(nodes.b.udp.fileno(), -1)
        nodes.connect()
        nodes.a.write(offload.udp(b"moved"))
        assert nodes.b.read()[10:] == offload.udp(b"moved")


def test_plane_routes_move_and_go() -> None:
    with pair(session=False) as nodes:
        other = nodes.a.plane.add_peer(b"C" * 32)
        nodes.a.plane.add_route(other, B4, 32)
        nodes.a.write(offload.udp(b"q"))
        assert nodes.a.event(EV_STAGED)[1] == other
        nodes.a.plane.add_route(0, bytes([100, 64, 0, 0]), 10)
        nodes.a.plane.remove_peer(other)
        nodes.a.write(offload.udp(b"q"))
        assert nodes.a.event(EV_STAGED)[1] == 0
        nodes.a.plane.remove_route(B4, 32)  # which was its own again
        nodes.a.write(offload.udp(b"q"))
        assert nodes.a.event(EV_STAGED)[1] == 0
        nodes.a.plane.remove_route(bytes([100, 64, 0, 0]), 10)
        nodes.a.write(offload.udp(b"q"))
        nodes.a.counted("out_no_route")


def test_plane_flows_go_on_under_other_rules_until_they_are_forgotten() -> None:
    """A peer's own packet began the flow, and the answer to it was remembered as if this node had."""
    question, answer = ipv4(17, udp(1000, 2000)), ipv4(17, udp(2000, 1000), B4, A4)
    with pair() as nodes:
        nodes.b.plane.set_rules(*allow_udp())
        nodes.a.write(question)
        assert nodes.b.read()[10:] == question
        nodes.b.write(answer)
        assert nodes.a.read()[10:] == answer
        nodes.b.plane.set_rules([], [(B4, 32)])
        nodes.a.write(question)
        assert nodes.b.read()[10:] == question
        nodes.b.plane.forget_flows()
        nodes.a.write(question)
        nodes.b.counted("in_filtered")
        assert nodes.b.nothing()
        nodes.b.write(answer)
        assert nodes.a.read()[10:] == answer
        nodes.a.write(question)
        assert nodes.b.read()[10:] == question


def allow_udp() -> tuple[list[Any], list[tuple[bytes, int]]]:
    return [(((A4, A4),), ((B4, B4, 2000, 2000),), (17,))], [(B4, 32)]


def test_plane_slots_of_removed_peers_are_used_again() -> None:
    with pair(start=False) as nodes:
        plane = nodes.a.plane
        assert [plane.add_peer(bytes([i]) * 32) for i in range(3)] == [1, 2, 3]
        plane.remove_peer(2)
        assert plane.add_peer(b"D" * 32) == 2
        assert plane.peer_state(2).tx_packets == 0


def test_plane_unknown_peer_raises_key_error() -> None:
    with pair(start=False) as nodes:
        for call in (
            nodes.a.plane.remove_peer,
            nodes.a.plane.peer_state,
            nodes.a.plane.clear_sessions,
            nodes.a.plane.send_keepalive,
        ):
            for peer in (1, -1, 70000):
                with pytest.raises(KeyError):
                    call(peer)


def test_plane_thousands_of_sessions_are_found_and_forgotten() -> None:
    node = Node(userspace=True)
    try:
        for i in range(3000):
            peer = node.plane.add_peer(i.to_bytes(32, "big"))
            node.plane.add_route(peer, i.to_bytes(4, "big"), 32)
            node.plane.install_session(
                peer,
                slot="current",
                local_index=i * 7919,
                remote_index=1,
                send_key=KEY_BA,
                receive_key=KEY_AB,
                created=time.monotonic(),
                initiator=False,
            )
        packet = ipv4(99, b"", (2999).to_bytes(4, "big"))
        node.plane.open_from([sealed(packet, 0, index=2999 * 7919)])
        assert node.event(EV_TSMP)[1:] == (2999, packet)
        for i in range(3000):
            node.plane.remove_peer(i)
        node.plane.open_from([sealed(packet, 1, index=2999 * 7919)])
        assert node.plane.counters()["in_no_session"] == 1
    finally:
        node.close()


def test_plane_starts_again_after_stop() -> None:
    with pair() as nodes:
        nodes.b.plane.stop()
        nodes.b.plane.stop()
        nodes.a.write(offload.udp(b"waits"))
        assert nodes.b.nothing()
        nodes.b.plane.start()
        assert nodes.b.read()[10:] == offload.udp(b"waits")
        with pytest.raises(RuntimeError):
            nodes.b.plane.start()


@pytest.mark.parametrize("room", [0, 1])
def test_plane_starts_all_its_threads_or_none(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    with pair(start=False) as nodes:
        begin, left = threading._start_new_thread, iter(range(room))  # type: ignore[attr-defined]

        def limited(*arguments: Any) -> Any:
            if next(left, None) is None:
                raise RuntimeError("can't start new thread")
            return begin(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(threading, "_start_new_thread", limited)
            with pytest.raises(RuntimeError, match="new thread"):
                nodes.b.plane.start()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("meshd-")]
        nodes.b.plane.stop()
        nodes.a.plane.start()
        nodes.b.plane.start()
        nodes.a.write(offload.udp(b"q"))
        assert nodes.b.read()[10:] == offload.udp(b"q")


def test_plane_sockets_change_and_threads_stop_at_once_while_the_line_is_dead() -> None:
    """The loop waited for each packet of a batch in turn: 40 ms, 64 times."""
    with pair(queues=2) as nodes:  # the second one is never lent
        # A stream stands in for a UDP socket before a dead line.
        listener = socket.create_server(("127.0.0.1", 0))
        full = socket.create_connection(listener.getsockname())
        full.setblocking(False)
        for _ in range(5):
            with contextlib.suppress(BlockingIOError):
                while True:
                    full.send(bytes(1 << 16))
            select.select([], [full], [], 0.1)
        nodes.a.plane.set_udp(full.fileno(), -1)
        for size in range(64):  # longer and longer: each is sent by itself
            nodes.a.hosts[1].send(PLAIN + offload.udp(bytes(16 * size)))
        nodes.a.counted("out_socket_full")
        begun = time.monotonic()
        nodes.a.plane.set_udp(full.fileno(), -1)
        nodes.a.plane.stop()
        assert time.monotonic() - begun < 1
        full.close()
        listener.close()


def test_plane_without_file_descriptors_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads ended silently, and the node was deaf and dumb."""
    with pair(start=False) as nodes, monkeypatch.context() as patched:
        made = iter([select.epoll()])
        patched.setattr(select, "epoll", lambda: next(made, None) or os.open("/nowhere", 0))
        with pytest.raises(OSError, match="nowhere"):
            nodes.a.plane.start()


def test_plane_bad_arguments_raise() -> None:
    with pair(start=False) as nodes:
        plane = nodes.a.plane
        keys = {"send_key": KEY_AB, "receive_key": KEY_BA, "created": 0.0, "initiator": True, "remote_index": 1}
        with pytest.raises(ValueError, match="in use"):
            plane.install_session(0, slot="current", local_index=0xA0, **keys)
        with pytest.raises(ValueError, match="key length"):
            plane.install_session(0, slot="current", local_index=1, **{**keys, "send_key": b"short"})
        with pytest.raises(ValueError, match="slot"):
            plane.install_session(0, slot="previous", local_index=1, **keys)  # type: ignore[arg-type]
        for call, arguments in (
            (plane.add_peer, (b"short",)),
            (plane.add_route, (0, bytes(5), 32)),
            (plane.add_route, (0, bytes(4), 33)),
            (plane.set_path, (0, bytes(5), 1, 0.0, 0)),
            (plane.set_path, (0, bytes(4), 65536, 0.0, 0)),
            (plane.send_packet, (0, b"")),
            (plane.send_staged, (0, [bytes(10)])),
            (plane.deliver, (b"",)),
            (plane.set_service_addresses, ([bytes(5)],)),
            (plane.set_own_addresses, ([bytes(5)],)),
        ):
            with pytest.raises(ValueError, match=r"."):
                call(*arguments)  # type: ignore[operator]


def test_packet_threads_never_take_the_interpreter_lock() -> None:
    """The sources of the packet path hold no Python object and no `with gil`, and allocate nothing per packet."""
    folder = Path(segment.__file__).parent
    for name in ("inbound", "outbound", "worker", "session", "peer", "epoch", "relayqueue", "planestate"):
        source = (folder / f"{name}.pyx").read_text()
        assert "with gil" not in source
        assert "alloc(" not in source or name in ("session", "peer", "epoch", "relayqueue")
        for line in source.splitlines():
            if line.startswith("cdef") and line.endswith(":") and "enum" not in line and "extern" not in line:
                assert line.endswith("noexcept nogil:"), line


def test_allow_all_is_a_filter() -> None:
    assert isinstance(allow_all(), Filter)


def test_plane_offload_can_be_switched_off() -> None:
    with pair() as nodes:
        nodes.a.plane.set_offload(udp_gso=False)
        header, packet = offload.super_tcp(b"s" * 20000, 1240)
        nodes.a.write(packet, header)
        wanted, got = segment.split(header, packet), list[bytes]()
        while len(got) < len(wanted):
            read = nodes.b.read()
            got += segment.split(read[:10], read[10:])
        assert got == wanted


def test_plane_equal_tail_forbidden_sends_a_runt_that_is_ignored() -> None:
    """Linux 7.0 to 7.1.4 corrupts batches whose segments are all equal."""
    with pair() as nodes:
        nodes.a.plane.set_offload(equal_tail=False)
        header, packet = offload.super_tcp(b"s" * 12400, 1240)
        nodes.a.write(packet, header)
        assert nodes.b.counted("in_runt") == 1
        got = nodes.b.read()
        assert segment.split(got[:10], got[10:]) == segment.split(header, packet)


def test_plane_two_queues_serve_one_tunnel() -> None:
    with pair(queues=2) as nodes:
        for queue in (0, 1):
            nodes.a.hosts[queue].send(PLAIN + offload.udp(bytes([queue])))
            assert select.select(nodes.b.hosts, [], [], 5)[0]
            came = [host.recv(70000) for host in select.select(nodes.b.hosts, [], [], 0)[0]]
            assert came == [PLAIN + offload.udp(bytes([queue]))]


def test_plane_closed_stand_in_does_not_spin() -> None:
    with pair() as nodes:
        nodes.a.host.close()
        nodes.a.plane.stop()
        assert nodes.a.plane.counters()["tun_reads"] == 0
