"""The tunnel machine: sessions, every timer, limits, and mistakes that others have made."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from msgspec.structs import replace

from meshd.base.crypto import clamp
from meshd.core.cookie import CookieChecker
from meshd.core.handshake import Identity, open_initiation
from meshd.core.indextable import IndexTable
from meshd.core.staging import MAX_BYTES
from meshd.core.tai64n import TimestampSource
from meshd.core.tunnel import Tunnel
from meshd.core.tunnelcontext import TimerKind, TunnelContext
from meshd.core.tunneleffects import (
    NO_TRAFFIC,
    AllowActive,
    ClearSessions,
    FlushStaged,
    HandshakeGaveUp,
    InstallSession,
    SendDatagram,
    SendKeepalive,
    SessionEstablished,
    Traffic,
)
from meshd.wire.wireguard import decode_initiation, decode_response

START = 1000.0
WALL = 1_700_000_000.0


class Side:
    """A tunnel and the clock that its stamps come from."""

    def __init__(self, seed, peer_seed):
        rng = random.Random(seed)
        self.identity = _identity(seed)
        self.now = START
        self.stamps = TimestampSource()
        self.context = TunnelContext(
            self.identity, IndexTable(rng.randbytes), rng.randbytes, lambda key: self.stamps.next(key, self._wall())
        )
        self.tunnel = Tunnel(self.context, _identity(peer_seed).public)

    def _wall(self):
        return WALL + self.now - START

    def at(self, now):
        self.now = now
        return self.tunnel

    def effects(self, kind=None):
        effects = self.tunnel.drain()
        return effects if kind is None else [effect for effect in effects if isinstance(effect, kind)]

    def sent(self):
        return [effect.data for effect in self.effects(SendDatagram)]

    def tick(self, until, traffic=NO_TRAFFIC):
        """Run timers up to ``until`` with unchanging traffic; what happened, with its times."""
        log = []
        while (deadline := self.tunnel.next_timer()) is not None and deadline <= until:
            assert deadline >= self.now
            self.at(deadline).handle_timer(deadline, traffic)
            log += [(deadline, effect) for effect in self.effects()]
        self.now = until
        return log


def _identity(seed):
    return Identity.of(clamp(random.Random(f"static {seed}").randbytes(32)))


@pytest.fixture
def a():
    return Side("a", "b")


@pytest.fixture
def b():
    return Side("b", "a")


def _deliver_initiation(datagram, side, now):
    opened = open_initiation(side.identity, decode_initiation(datagram))
    return side.at(now).initiation_received(opened, now)


def _handshake(a, b, now):
    """A full handshake started by ``a``; the index that ``b`` must see confirmed."""
    a.at(now).initiate(now)
    (initiation,) = a.sent()
    assert _deliver_initiation(initiation, b, now)
    (response,) = b.sent()
    assert a.at(now).response_received(decode_response(response), now)
    return b.tunnel.next.local_index


def _established(a, b, now=START):
    index = _handshake(a, b, now)
    b.at(now).confirmed(index, now)
    a.effects()
    b.effects()


# -- handshakes and sessions


def test_initiate_sends_one_initiation_and_arms_the_retry_with_jitter(a):
    a.at(START).initiate(START)
    assert [len(data) for data in a.sent()] == [148]
    assert START + 5.0 <= a.tunnel.timers[TimerKind.RETRANSMIT] <= START + 5.333
    a.at(START + 1).initiate(START + 1)
    assert a.sent() == []


def test_handshake_gives_matching_sessions_and_the_initiator_speaks_first(a, b):
    a.at(START).initiate(START)
    _deliver_initiation(a.sent()[0], b, START)
    from_b = b.effects()
    assert [type(effect) for effect in from_b] == [InstallSession, SendDatagram]
    a.at(START).response_received(decode_response(from_b[1].data), START)
    from_a = a.effects()
    assert [type(effect) for effect in from_a] == [InstallSession, SendKeepalive, SessionEstablished]
    ours, theirs = from_a[0], from_b[0]
    assert (ours.slot, theirs.slot) == ("current", "next")
    assert ours.keys.send_key == theirs.keys.receive_key
    assert ours.keys.remote_index == theirs.keys.local_index
    assert TimerKind.RETRANSMIT not in a.tunnel.timers


def test_responder_sends_nothing_on_a_session_before_it_is_confirmed(a, b):
    b.at(START - 60).staged(b"packet", START - 60)
    b.sent()
    index = _handshake(a, b, START)
    assert b.effects() == []
    b.at(START).confirmed(index, START)
    assert b.effects() == [SessionEstablished(False, index), FlushStaged([b"packet"])]


def test_simultaneous_initiations_leave_two_sessions_that_both_sides_hold(a, b):
    for side in (a, b):
        side.at(START).initiate(START)
    from_a, from_b = a.sent()[0], b.sent()[0]
    assert _deliver_initiation(from_a, b, START)
    assert _deliver_initiation(from_b, a, START)
    response_b, response_a = b.sent()[0], a.sent()[0]
    assert a.at(START).response_received(decode_response(response_b), START)
    assert b.at(START).response_received(decode_response(response_a), START)
    for side in (a, b):
        assert side.tunnel.current.initiator
        assert not side.tunnel.previous.initiator
    assert len(a.context.indices) == len(b.context.indices) == 2


def test_indices_are_released_when_sessions_rotate_out(a, b):
    for number in range(10):
        _established(a, b, START + 130 * number)
    assert len(a.context.indices) <= 3
    assert len(b.context.indices) <= 3
    a.tunnel.close()
    b.tunnel.close()
    assert len(a.context.indices) == len(b.context.indices) == 0


def test_confirmation_that_arrives_after_the_next_answer_is_believed(a, b):
    """The data plane may have promoted a session while its replacement was being made."""
    first = _handshake(a, b, START)
    a.effects()
    second = _handshake(a, b, START + 6)
    assert b.tunnel.next.local_index == second
    b.at(START + 6).confirmed(first, START + 6)
    assert b.tunnel.current.local_index == first
    assert b.context.indices.owner(first) is b.tunnel


def test_indices_are_random_and_unique():
    """Another implementation had predictable receiver indices."""
    table = IndexTable(random.Random(1).randbytes)
    indices = [table.allocate("peer") for _ in range(2000)]
    assert len(set(indices)) == 2000
    assert 0 not in indices
    differences = Counter(second - first for first, second in itertools.pairwise(indices))
    assert differences.most_common(1)[0][1] == 1


# -- what must not happen


def test_invalid_response_does_not_kill_the_pending_handshake(a, b):
    """Another implementation dropped its handshake at the first forged response."""
    a.at(START).initiate(START)
    _deliver_initiation(a.sent()[0], b, START)
    response = decode_response(b.sent()[0])
    assert not a.at(START).response_received(replace(response, empty=bytes(16)), START)
    assert not a.at(START).response_received(replace(response, receiver=response.receiver ^ 1), START)
    assert a.effects() == []
    assert a.at(START).response_received(response, START)
    assert a.context.drops == {"response_forged": 1, "response_unexpected": 1}


def test_late_response_is_still_accepted(a, b):
    """Another implementation refused responses after 250 ms."""
    a.at(START).initiate(START)
    _deliver_initiation(a.sent()[0], b, START)
    assert a.at(START + 4.9).response_received(decode_response(b.sent()[0]), START + 4.9)


def test_response_is_accepted_once(a, b):
    a.at(START).initiate(START)
    _deliver_initiation(a.sent()[0], b, START)
    response = decode_response(b.sent()[0])
    assert a.at(START).response_received(response, START)
    a.effects()
    assert not a.at(START).response_received(response, START)
    assert a.effects() == []


def test_replayed_initiation_is_refused(a, b):
    a.at(START).initiate(START)
    initiation = a.sent()[0]
    assert _deliver_initiation(initiation, b, START)
    b.effects()
    assert not _deliver_initiation(initiation, b, START + 30)
    assert b.effects() == []
    assert b.context.drops == {"initiation_replayed": 1}


def test_initiations_faster_than_20_ms_are_refused(a, b):
    a.at(START).initiate(START)
    first = a.sent()[0]
    a.at(START + 10).initiate(START + 10)
    second = a.sent()[0]
    assert _deliver_initiation(first, b, START + 10)
    assert not _deliver_initiation(second, b, START + 10.019)
    assert b.context.drops == {"initiation_flood": 1}


def test_no_initiation_within_five_seconds_of_a_response(a, b):
    _handshake(a, b, START)
    b.effects()
    b.at(START + 1).staged(b"packet", START + 1)
    assert b.sent() == []
    assert b.tunnel.timers[TimerKind.DEFERRED] == START + 5
    log = b.tick(START + 5)
    assert [(when, type(effect)) for when, effect in log] == [(START + 5, SendDatagram)]


def test_deferred_initiation_is_forgotten_when_the_session_is_confirmed(a, b):
    index = _handshake(a, b, START)
    b.effects()
    b.at(START + 1).staged(b"packet", START + 1)
    b.at(START + 2).confirmed(index, START + 2)
    assert b.effects()[-1] == FlushStaged([b"packet"])
    assert b.tick(START + 60) == []


def test_gap_of_five_seconds_holds_for_any_sequence(a, b):
    rng = random.Random(7)
    times = []
    now = START
    for _ in range(400):
        now += rng.random() * 2
        for when, effect in a.tick(now):
            if isinstance(effect, SendDatagram):
                times.append((when, len(effect.data)))
        if rng.random() < 0.3:
            a.at(now).staged(b"x", now)
        elif rng.random() < 0.2:
            b.tick(now)
            b.at(now).initiate(now)
            for datagram in b.sent():
                if len(datagram) == 148:
                    _deliver_initiation(datagram, a, now)
        times += [(now, len(data)) for data in a.sent()]
    initiations = [index for index, (_, size) in enumerate(times) if size == 148]
    assert len(initiations) > 20
    assert all(times[index][0] - times[index - 1][0] >= 5.0 for index in initiations if index)


def test_cookie_is_kept_for_the_next_attempt_and_nothing_is_sent(a, b):
    a.at(START).initiate(START)
    first = a.sent()[0]
    checker = CookieChecker(b.identity.public, random.Random(3).randbytes)
    reply = checker.create_reply(first, int.from_bytes(first[4:8], "little"), b"source", START)
    timers = a.tunnel.timers
    assert a.at(START).cookie_received(reply, START)
    assert a.effects() == []
    assert a.tunnel.timers == timers
    assert not a.at(START).cookie_received(reply, START)
    ((_, retry),) = a.tick(START + 5.4)
    assert checker.check_mac2(retry.data, b"source", START + 5)


# -- staged packets


def test_staged_packets_are_bounded_and_the_oldest_goes_first(a, b):
    for number in range(200):
        a.at(START).staged(number.to_bytes(2, "big"), START)
    a.sent()
    assert a.context.drops == {"staged_overflow": 72}
    a.tick(START + 6)
    a.at(START + 60).initiate(START + 60)
    _deliver_initiation(a.sent()[-1], b, START + 60)
    a.at(START + 60).response_received(decode_response(b.sent()[0]), START + 60)
    (flush,) = a.effects(FlushStaged)
    assert [int.from_bytes(packet, "big") for packet in flush.packets] == list(range(72, 200))


def test_staged_bytes_are_bounded(a):
    for _ in range(20):
        a.at(START).staged(bytes(65536), START)
    assert a.context.drops["staged_overflow"] == 20 - MAX_BYTES // 65536


def test_staged_packets_that_are_given_up_are_counted(a):
    """By the end of the attempts, of the keys, or of the peer: none vanishes without a number."""
    a.at(START).staged(b"one", START)
    a.at(START).staged(b"two", START)
    a.tick(START + 120)
    assert a.context.drops == {"staged_given_up": 2}
    a.at(START + 130).staged(b"three", START + 130)
    a.tunnel.end()
    assert a.context.drops == {"staged_given_up": 3}


def test_staged_packets_survive_a_restart(a):
    a.at(START).staged(b"one", START)
    a.tunnel.restart(START + 1)
    a.tunnel.end()
    assert a.context.drops == {"staged_given_up": 1}


# -- timers


def test_retransmit_gives_up_after_ninety_seconds_and_drops_staged_packets(a):
    a.at(START).staged(b"packet", START)
    log = [(START, effect) for effect in a.effects()] + a.tick(START + 120)
    initiations = [when for when, effect in log if isinstance(effect, SendDatagram)]
    assert len(initiations) == 20
    assert all(5.0 <= later - earlier <= 5.334 for earlier, later in itertools.pairwise(initiations))
    assert len({effect.data[8:40] for _, effect in log if isinstance(effect, SendDatagram)}) == 20
    gave_up, effect = log[-1]
    assert effect == HandshakeGaveUp(dropped=1)
    assert gave_up - START > 90
    assert list(a.tunnel.timers) == [TimerKind.ZERO_KEYS]
    a.at(START + 130).staged(b"again", START + 130)
    assert len(a.sent()) == 1


def test_jitter_differs_between_attempts(a):
    a.at(START).initiate(START)
    a.sent()
    log = [when for when, effect in a.tick(START + 60) if isinstance(effect, SendDatagram)]
    assert len({round(later - earlier, 6) for earlier, later in itertools.pairwise(log)}) > 5


def test_keys_are_zeroed_540_seconds_after_the_last_session(a, b):
    _established(a, b)
    assert a.tunnel.timers[TimerKind.ZERO_KEYS] == START + 540
    log = a.tick(START + 541)
    assert log == [(START + 540, ClearSessions()), (START + 540, AllowActive())]
    assert not a.tunnel.in_use
    assert len(a.context.indices) == 0
    assert a.tunnel.next_timer() is None


def test_passive_keepalive_ten_seconds_after_unanswered_data_arrived(a, b):
    _established(a, b)
    heard = START + 3
    a.at(heard).activity(heard)
    log = a.tick(heard + 10.5, Traffic(0, heard, 0, owed_since=heard, unanswered_since=0))
    assert [(when, type(effect)) for when, effect in log] == [(heard + 10, SendKeepalive)]


def test_passive_keepalive_is_not_sent_when_something_else_was(a, b):
    _established(a, b)
    heard = START + 3
    a.at(heard).activity(heard)
    a.at(heard).handle_timer(heard, Traffic(0, heard, 0, owed_since=heard, unanswered_since=0))
    assert TimerKind.KEEPALIVE in a.tunnel.timers
    answered = Traffic(heard + 1, heard, heard + 1, owed_since=0, unanswered_since=0)
    assert [effect for _, effect in a.tick(heard + 30, answered)] == [AllowActive()]


def test_data_received_after_the_keepalive_counts_anew(a, b):
    _established(a, b)
    first, second = START + 1, START + 12
    a.at(first).activity(first)
    a.tick(first + 10, Traffic(0, first, 0, first, 0))
    log = a.tick(second + 10.1, Traffic(first + 10, second, 0, second, 0))
    assert [(when, type(effect)) for when, effect in log] == [(second + 10, SendKeepalive)]


def test_keepalives_received_do_not_ask_for_keepalives(a, b):
    """Two idle peers must not keep each other awake."""
    _established(a, b)
    a.at(START + 1).activity(START + 1)
    log = a.tick(START + 100, Traffic(START, START + 1, 0, 0, 0))
    assert [type(effect) for _, effect in log] == [AllowActive]
    assert list(a.tunnel.timers) == [TimerKind.ZERO_KEYS]


def test_new_handshake_fifteen_seconds_after_unanswered_data(a, b):
    _established(a, b)
    sent = START + 20
    a.at(sent).activity(sent)
    traffic = Traffic(sent, START, sent, 0, unanswered_since=sent)
    log = a.tick(sent + 16, traffic)
    assert [type(effect) for _, effect in log] == [SendDatagram]
    assert 15.0 <= log[0][0] - sent <= 15.334


def test_new_handshake_measures_from_the_first_unanswered_packet(a, b):
    _established(a, b)
    first = START + 20
    a.at(first).activity(first)
    for second in range(16):
        now = first + second
        log = a.tick(now, Traffic(now, START, now, 0, unanswered_since=first))
        assert not [effect for _, effect in log if isinstance(effect, SendDatagram)], second
    log = a.tick(first + 15.4, Traffic(first + 15, START, first + 15, 0, unanswered_since=first))
    assert [type(effect) for _, effect in log] == [SendDatagram]


def test_new_handshake_is_off_when_the_peer_answered(a, b):
    _established(a, b)
    sent = START + 20
    a.at(sent).activity(sent)
    a.at(sent).handle_timer(sent, Traffic(sent, START, sent, 0, sent))
    assert TimerKind.NEW_HANDSHAKE in a.tunnel.timers
    log = a.tick(sent + 100, Traffic(sent, sent + 1, sent, 0, 0))
    assert [type(effect) for _, effect in log] == [AllowActive]


def test_new_handshake_does_not_go_on_for_ever_without_new_data(a, b):
    _established(a, b)
    sent = START + 20
    a.at(sent).activity(sent)
    traffic = Traffic(sent, START, sent, 0, sent)
    log = a.tick(sent + 500, traffic)
    initiations = [when for when, effect in log if isinstance(effect, SendDatagram)]
    assert len(initiations) == 20
    assert a.tick(sent + 5000, traffic)[-1][1] in (ClearSessions(), AllowActive())
    assert a.tunnel.next_timer() is None


def test_persistent_keepalive_starts_at_once_and_follows_the_last_packet(a, b):
    _established(a, b)
    a.at(START + 30).set_keepalive(25, START + 30)
    log = a.tick(START + 61, Traffic(START + 35, START + 34, 0, 0, 0))
    assert log == [(START + 60, SendKeepalive())]


def test_persistent_keepalive_without_session_shakes_hands(a):
    a.at(START).set_keepalive(25, START)
    log = a.tick(START)
    assert [type(effect) for _, effect in log] == [SendDatagram]
    a.tunnel.set_keepalive(0, START)
    assert TimerKind.PERSISTENT not in a.tunnel.timers


def test_rekey_is_asked_for_the_current_session_only(a, b):
    _established(a, b)
    a.at(START + 120).rekey_asked(a.tunnel.current.local_index ^ 1, START + 120)
    assert a.sent() == []
    a.at(START + 120).rekey_asked(a.tunnel.current.local_index, START + 120)
    assert len(a.sent()) == 1


def test_handle_timer_early_does_nothing(a, b):
    _established(a, b)
    before = a.tunnel.timers
    a.at(START + 1).handle_timer(START + 1, NO_TRAFFIC)
    assert a.effects() == []
    assert a.tunnel.timers == before


def test_restart_shakes_hands_at_once_and_takes_an_older_stamp(a, b):
    _established(a, b)
    a.at(START + 30).restart(START + 30)
    assert [type(effect) for effect in a.effects()] == [ClearSessions, AllowActive, SendDatagram]
    reborn = Side("b", "a")
    reborn.now = START - 1000
    reborn.tunnel.initiate(START)
    assert _deliver_initiation(reborn.sent()[0], a, START + 31)


def test_restart_of_an_idle_peer_sends_nothing(a):
    a.at(START).restart(START)
    assert a.sent() == []
    assert a.tunnel.next_timer() is None
