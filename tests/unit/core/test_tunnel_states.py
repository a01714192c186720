"""Two tunnels, a network that does what it wants, and rules that hold whatever happens."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshd.base.crypto import clamp
from meshd.core.handshake import Identity, open_initiation
from meshd.core.indextable import IndexTable
from meshd.core.tai64n import TimestampSource
from meshd.core.tunnel import Tunnel
from meshd.core.tunnelcontext import TunnelContext
from meshd.core.tunneleffects import NO_TRAFFIC, FlushStaged, InstallSession, SendDatagram, SendKeepalive
from meshd.wire.wireguard import decode_initiation, decode_response

IDENTITIES = [Identity.of(clamp(random.Random(f"state {n}").randbytes(32))) for n in (0, 1)]
sides = st.integers(0, 1)


class Pair(RuleBasedStateMachine):
    """Side 0 and side 1; ``sessions[n]`` is what the data plane of side n would hold."""

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed):
        rng = random.Random(seed)
        self.now = 1000.0
        self.tunnels, self.contexts = [], []
        for own, peer in ((0, 1), (1, 0)):
            stamps = TimestampSource()
            context = TunnelContext(
                IDENTITIES[own],
                IndexTable(rng.randbytes),
                rng.randbytes,
                lambda key, stamps=stamps: stamps.next(key, self.now),
            )
            self.contexts.append(context)
            self.tunnels.append(Tunnel(context, IDENTITIES[peer].public))
        self.sessions = [{}, {}]
        self.flushed = [0, 0]
        self.staged = [0, 0]
        self.network = []
        self.handshakes = [[], []]

    def _settle(self, side):
        for effect in self.tunnels[side].drain():
            if isinstance(effect, SendDatagram):
                self.handshakes[side].append((self.now, effect.data[0]))
                self.network.append((1 - side, effect.data))
            elif isinstance(effect, InstallSession):
                assert effect.keys.local_index not in self.sessions[side], "an index was used twice"
                self.sessions[side][effect.keys.local_index] = effect
            elif isinstance(effect, SendKeepalive):
                current = self.tunnels[side].current
                self.network.append((1 - side, self.sessions[side][current.local_index].keys.remote_index))
            elif isinstance(effect, FlushStaged):
                self.flushed[side] += len(effect.packets)

    def _deliver(self, side, message):
        tunnel = self.tunnels[side]
        if isinstance(message, int):
            if tunnel.next is not None and tunnel.next.local_index == message:
                assert self.sessions[side][message].slot == "next"
                tunnel.confirmed(message, self.now)
        elif message[0] == 1:
            tunnel.initiation_received(open_initiation(IDENTITIES[side], decode_initiation(message)), self.now)
        else:
            tunnel.response_received(decode_response(message), self.now)
        self._settle(side)

    @rule(side=sides)
    def stage(self, side):
        self.staged[side] += 1
        self.tunnels[side].staged(b"packet", self.now)
        self._settle(side)

    @rule(data=st.data(), keep=st.booleans())
    def deliver_any(self, data, keep):
        if self.network:
            at = data.draw(st.integers(0, len(self.network) - 1))
            side, message = self.network[at] if keep else self.network.pop(at)
            self._deliver(side, message)

    @rule()
    def lose_everything(self):
        self.network.clear()

    @rule(seconds=st.sampled_from([0.01, 0.5, 4.99, 5.0, 12.0, 100.0, 600.0]))
    def wait(self, seconds):
        self._run_until(self.now + seconds)

    def _run_until(self, end):
        while True:
            deadlines = [(timer, side) for side in (0, 1) if (timer := self.tunnels[side].next_timer()) is not None]
            if not deadlines or min(deadlines)[0] > end:
                break
            deadline, side = min(deadlines)
            self.now = max(self.now, deadline)
            self.tunnels[side].handle_timer(self.now, NO_TRAFFIC)
            self._settle(side)
        self.now = end

    @rule(side=sides)
    def restart_unless_fresh(self, side):
        self.tunnels[side].restart(self.now)
        self.handshakes[side].clear()
        self._settle(side)

    @rule()
    def calm_network_connects_both(self):
        """With nothing lost for a while, whoever has packets gets them through."""
        self.network.clear()
        for side in (0, 1):
            self.stage(side)
        for _ in range(60):
            while self.network:
                side, message = self.network.pop(0)
                self._deliver(side, message)
            self._run_until(self.now + 0.25)
        for side in (0, 1):
            assert self.tunnels[side].current is not None
            assert self.flushed[side] > 0

    @invariant()
    def memory_is_bounded(self):
        if hasattr(self, "tunnels"):
            for side in (0, 1):
                assert len(self.contexts[side].indices) <= 4
                assert len(self.tunnels[side].timers) <= 7

    @invariant()
    def initiations_keep_their_distance(self):
        if hasattr(self, "handshakes"):
            for sent in self.handshakes:
                for (earlier, _), (later, kind) in itertools.pairwise(sent):
                    assert kind != 1 or later >= earlier + 5.0  # rounded as the tunnel does it


Pair.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_tunnels_keep_their_rules_on_any_network = pytest.mark.slow(Pair.TestCase)
