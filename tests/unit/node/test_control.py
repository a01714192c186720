"""The control client against a server in the same process."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest
import uvloop

from meshd.base.addr import AddrPort
from meshd.base.errors import MeshdError
from meshd.base.keys import DiscoPrivate, MachinePrivate, NodePrivate
from meshd.core import controlsession
from meshd.core.controlstatus import ControlStatus, LoginFlags, Persist
from meshd.core.netmap import Netmap
from meshd.io.systemclock import SystemClock
from meshd.node import control as control_module
from meshd.node import controllink
from meshd.node.control import ControlClient
from meshd.node.controllink import ControlLink
from meshd.node.dialplan import DialPlan
from meshd.testing.fakecontrol import FakeControl, Refusal, node_json, welcome
from meshd.wire.control import (
    ControlDialPlan,
    ControlIPCandidate,
    Hostinfo,
    MapResponse,
    NetInfo,
    PingResponse,
    RegisterRequest,
    RegisterResponse,
)

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Watched:
    """A control client with everything it reported."""

    def __init__(self, url: str, **options: Any) -> None:
        self.reports: list[ControlStatus] = []
        self.news = asyncio.Event()
        self.machine = options.pop("machine_private", None) or MachinePrivate.generate()
        self.client = ControlClient(
            server_url=url,
            machine_private=lambda: self.machine,
            persist=options.pop("persist", Persist()),
            hostinfo=Hostinfo(hostname="here", os="linux", backend_log_id="0" * 64),
            disco_public=DiscoPrivate.generate().public(),
            clock=SystemClock(),
            on_status=self.note,
            **options,
        )

    def note(self, status: ControlStatus) -> None:
        self.reports.append(status)
        self.news.set()

    async def until(self, done: Callable[[ControlStatus], object]) -> ControlStatus:
        seen = 0
        async with asyncio.timeout(10):
            while True:
                for status in self.reports[seen:]:
                    seen += 1
                    if done(status):
                        return status
                self.news.clear()
                await self.news.wait()


def run(main: Callable[[], Awaitable[None]], loop: str = "uvloop") -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())  # type: ignore[arg-type]


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_control_client_auth_key_login_brings_a_netmap(loop: str) -> None:
    """LK-06, NM-02: one register request, then the map; the identity is reported to be stored."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url, auth_key="secret-key")
            node.client.login()
            finished = await node.until(lambda s: s.login_finished)
            assert finished.logged_in
            assert finished.persist is not None
            assert finished.persist.node_private is not None
            status = await node.until(lambda s: s.netmap)
            assert status.change is not None
            assert status.change.full
            assert status.in_map_poll
            [request] = control.registers
            assert request.auth is not None
            assert request.auth.auth_key == "secret-key"
            assert request.node_key == finished.persist.node_private.public().text()
            assert "secret-key" not in repr(node.reports)
            await node.client.shutdown()
            assert control.key_requests == 1

    run(main, loop)


def test_control_client_restart_uses_the_stored_key() -> None:
    """SM-10: no auth key, no new key, the old one beside it."""

    async def main() -> None:
        async with FakeControl() as control:
            old, current = NodePrivate.generate(), NodePrivate.generate()
            node = Watched(control.url, persist=Persist(node_private=current, old_node_private=old))
            node.client.login()
            await node.until(lambda s: s.netmap)
            [request] = control.registers
            assert request.node_key == current.public().text()
            assert request.old_node_key == old.public().text()
            assert request.auth is None
            await node.client.shutdown()

    run(main)


def test_control_client_machine_key_that_cannot_be_stored_yet_is_asked_for_again() -> None:
    """LK-01: a full disk ends; a server must not know a machine by a key that is lost."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            fails = [MeshdError("no space", code="unavailable"), None]

            def made() -> MachinePrivate:
                fault = fails.pop(0)
                if fault is not None:
                    raise fault
                return node.machine

            node.client._link._machine_private = made
            node.client.login()
            assert (await node.until(lambda s: s.error)).error.message == "no space"  # type: ignore[union-attr]
            await node.until(lambda s: s.netmap)
            assert control.machines == [node.machine.public()]
            control.drop()
            await control.until(lambda: len(control.machines) == 2)
            assert control.machines[1] == node.machine.public()
            await node.client.shutdown()

    run(main)


def test_control_client_interactive_login_follows_the_url() -> None:
    """LK-02: the URL is reported, the follow-up carries it and the same key; no answer, no busy loop."""

    async def main() -> None:
        def answer(request: RegisterRequest) -> RegisterResponse | None:
            return None if request.followup else RegisterResponse(auth_url="https://login.example/a/1")

        async with FakeControl(answer_register=answer) as control:
            node = Watched(control.url)
            node.client.login(LoginFlags.INTERACTIVE)
            status = await node.until(lambda s: s.auth_url)
            assert status.auth_url == "https://login.example/a/1"
            assert not status.can_continue
            await control.until(lambda: control.pending)
            first, second = control.registers
            assert second.followup == status.auth_url
            assert second.node_key == first.node_key
            assert node.client.persist.node_private is None
            control.release(welcome(second))
            await node.until(lambda s: s.netmap)
            assert node.client.auth_url == ""
            await node.client.shutdown()

    run(main)


def test_control_client_expired_key_is_rotated() -> None:
    """LK-10: NodeKeyExpired makes a new key that names the old one, once."""

    async def main() -> None:
        current = NodePrivate.generate()

        def answer(request: RegisterRequest) -> Any:
            expired = request.node_key == current.public().text()
            return RegisterResponse(node_key_expired=True) if expired else welcome(request)

        async with FakeControl(answer_register=answer) as control:
            node = Watched(control.url, persist=Persist(node_private=current))
            node.client.login()
            status = await node.until(lambda s: s.login_finished)
            first, second = control.registers
            assert second.old_node_key == first.node_key
            assert status.persist is not None
            assert status.persist.old_node_private == current
            await node.client.shutdown()

    run(main)


def test_control_client_key_may_be_ended_sooner() -> None:
    """LK-08: the request names the time; a server that refuses is heard, and without a key there is nothing to end."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            with pytest.raises(MeshdError, match="not logged in"):
                await node.client.set_expiry_sooner(1_800_000_000.0)
            node.client.login()
            await node.until(lambda s: s.netmap)
            await node.client.set_expiry_sooner(1_800_000_000.0)
            assert control.registers[-1].expiry == "2027-01-15T08:00:00Z"
            assert control.registers[-1].node_key == control.registers[0].node_key
            control.answer_register = lambda _: RegisterResponse(error="that is later than now")
            with pytest.raises(MeshdError, match="refused: that is later than now"):
                await node.client.set_expiry_sooner(1_900_000_000.0)
            assert node.client.in_map_poll
            await node.client.shutdown()

    run(main)


def test_control_client_logout_expires_and_forgets_the_key() -> None:
    """LK-07."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            key = control.registers[0].node_key
            await node.client.logout()
            assert control.registers[-1].expiry == "1970-01-01T00:02:03Z"
            assert control.registers[-1].node_key == key
            assert node.reports[-1].logged_out
            assert node.reports[-1].persist == Persist()
            assert node.client.netmap is None
            await node.client.shutdown()

    run(main)


def test_control_client_logout_with_server_away_still_forgets() -> None:
    """LK-07: the error is raised, the key is gone all the same."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
        with pytest.raises(MeshdError, match="cannot connect"):
            await node.client.logout()
        assert node.reports[-1].persist == Persist()
        await node.client.shutdown()

    run(main)


def test_control_client_that_ended_opens_no_connection_for_a_late_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's request was still connecting: the connection stayed, with nobody to close it."""
    gate, connect = asyncio.Event(), ControlLink._connect

    async def slow(link: ControlLink) -> Any:
        await gate.wait()
        return await connect(link)

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            asked = [asyncio.create_task(node.client.request("POST", "/machine/x", b"")) for _ in range(2)]
            await asyncio.sleep(0)
            await node.client.shutdown()
            gate.set()
            async with asyncio.timeout(5):
                ended = await asyncio.gather(*asked, return_exceptions=True)
            assert [str(error) for error in ended] == ["the login at the coordination server has ended meanwhile"] * 2
            assert node.client._link._client is None
            assert not control.answers

    monkeypatch.setattr(ControlLink, "_connect", slow)
    run(main)


def test_control_client_shortening_a_key_ends_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "REQUEST_TIMEOUT", 0.05)

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            control.answer_register = lambda _: None
            async with asyncio.timeout(5):
                with pytest.raises(MeshdError, match="does not answer"):
                    await node.client.set_expiry_sooner(1_900_000_000.0)
            await node.client.shutdown()

    run(main)


@pytest.mark.parametrize("overtake", ["login", "shutdown"])
def test_control_client_logout_that_is_overtaken_ends_at_once(overtake: str) -> None:
    """LK-07: its caller waited for the end of its patience, though the request was long cancelled."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            control.answer_register = lambda _: None
            leaving = [asyncio.create_task(node.client.logout(60.0)) for _ in range(2)]
            await control.until(lambda: control.registers[-1].expiry.startswith("1970"))
            leaves = len(control.registers)
            control.answer_register = welcome
            if overtake == "login":
                node.client.login()
            else:
                await node.client.shutdown()
            async with asyncio.timeout(5):
                ended = await asyncio.gather(*leaving, return_exceptions=True)
            assert [getattr(error, "code", "") for error in ended] == ["logout-failed"] * 2
            assert leaves == 2  # the second caller asked nothing again
            await node.client.shutdown()

    run(main)


def test_control_client_facts_reach_every_map_request() -> None:
    """NM-11, LK-01: full state in stream and update; latencies and order alone are no news; TS_DEBUG_CONTROL_FLAGS."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url, debug_flags=("warn-a",))
            one, two = AddrPort.parse("192.0.2.1:1"), AddrPort.parse("[2001:db8::1]:2")
            node.client.update_endpoints([(one, 1), (two, 2)])
            node.client.update_netinfo(NetInfo(preferred_derp=7, derp_latency={"7-v4": 0.5}))
            node.client.login()
            await control.until(lambda: control.updates and control.streams)
            for request in (control.updates[0], control.streams[0].request):
                assert request.endpoints == ("192.0.2.1:1", "[2001:db8::1]:2")
                assert request.endpoint_types == (1, 2)
                assert request.debug_flags == ("warn-a",)
                assert request.hostinfo is not None
                assert request.hostinfo.net_info is not None
                assert request.hostinfo.net_info.preferred_derp == 7
                assert request.disco_key != "discokey:" + "0" * 64
            node.client.update_endpoints([(two, 2), (one, 1)])
            node.client.update_netinfo(NetInfo(preferred_derp=7, derp_latency={"7-v4": 0.9}))
            node.client.update_netinfo(NetInfo(preferred_derp=8))
            await control.until(lambda: len(control.updates) == 2)
            assert control.updates[1].hostinfo.net_info.preferred_derp == 8  # type: ignore[union-attr]
            await node.client.shutdown()

    run(main)


def test_control_client_deltas_patch_the_netmap() -> None:
    """NM-03."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            control.push({"PeersChanged": [node_json(2, "nodekey:" + "2" * 64)]})
            await node.until(lambda s: s.change and s.change.added)
            control.push({"KeepAlive": True})
            control.push({"PeersChangedPatch": [{"NodeID": 2, "Endpoints": ["192.0.2.9:9"], "DERPRegion": 3}]})
            status = await node.until(lambda s: s.change and s.change.patched)
            [(_, new)] = status.change.patched  # type: ignore[union-attr]
            assert new.home_derp == 3
            assert status.netmap is not None
            assert status.netmap.peers[2] is new
            await node.client.shutdown()

    run(main)


def test_control_client_broken_connection_is_replaced_and_the_netmap_kept() -> None:
    """NM-02: an interruption is an error report, then a new stream that changes nothing."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            before = node.client.netmap
            control.drop()
            await node.until(lambda s: s.error)
            assert node.client.netmap is before
            await control.until(lambda: control.opened == 2)
            again = await node.until(lambda s: s.change and s is not node.reports[1] and s.in_map_poll)
            assert again.netmap is before
            assert len(control.registers) == 1
            await node.client.shutdown()

    run(main)


def test_control_client_finds_a_server_by_its_own_plan_when_dns_fails() -> None:
    """LK-13: the server told its address; the name is tried as well, and the plan ends with the login."""

    async def main() -> None:
        async with FakeControl() as control:
            port = control.url.rpartition(":")[2]
            url, plan = f"http://mesh.invalid:{port}", DialPlan()
            first = Watched(control.url, dial_plan=plan)
            first.client.login()
            await first.until(lambda s: s.netmap)
            control.push({"ControlDialPlan": {"Candidates": [{"IP": "127.0.0.1", "DialTimeoutSec": 3, "Priority": 2}]}})
            control.push({"Domain": "other.test"})
            await first.until(lambda s: s.netmap and s.netmap.domain == "other.test")
            [known] = plan.addresses(control.url)
            assert (str(known.address), known.delay_s, known.timeout_s) == ("127.0.0.1", 0.0, 3.0)
            assert plan.addresses(url) == ()
            plan.learn(url, ControlDialPlan(candidates=(ControlIPCandidate(ip="127.0.0.1"),)))
            second = Watched(url, persist=first.client.persist, machine_private=first.machine, dial_plan=plan)
            second.client.login()
            await second.until(lambda s: s.netmap)
            plan.forget()
            third = Watched(url, persist=first.client.persist, machine_private=first.machine, dial_plan=plan)
            third.client.login()
            failed = await third.until(lambda s: s.error)
            assert failed.error is not None
            assert failed.error.code == "control-unknown-host"
            for node in (first, second, third):
                await node.client.shutdown()

    run(main)


def test_dial_plan_is_kept_within_reason() -> None:
    """LK-13: best first, few, neither waiting long nor through hosts that we cannot use."""
    plan = DialPlan()
    candidates = [ControlIPCandidate(ip=f"192.0.2.{n}", priority=n, dial_timeout_sec=1e9) for n in range(1, 20)]
    other = ControlIPCandidate(ip="192.0.2.99", priority=99, ace_host="proxy.example", dial_start_delay_sec=-1)
    odd = [ControlIPCandidate(ip=text, priority=99) for text in ("", "fe80::1%eth0", "1:2:3")]
    plan.learn("https://c", ControlDialPlan(candidates=(*candidates, other, *odd)))
    found = plan.addresses("https://c")
    assert [str(p.address) for p in found] == [f"192.0.2.{n}" for n in range(19, 11, -1)]
    assert {(p.delay_s, p.timeout_s) for p in found} == {(0.0, 10.0)}
    plan.learn("https://c", ControlDialPlan())
    assert plan.addresses("https://c") == ()


def test_control_client_plan_and_name_that_both_fail_say_what_is_wrong_with_the_name() -> None:
    """LK-13: a plan that is of no use hides nothing."""

    async def main() -> None:
        plan = DialPlan()
        plan.learn("http://mesh.invalid:1", ControlDialPlan(candidates=(ControlIPCandidate(ip="127.0.0.1"),)))
        node = Watched("http://mesh.invalid:1", dial_plan=plan)
        node.client.login()
        status = await node.until(lambda s: s.error)
        assert status.error is not None
        assert status.error.code == "control-unknown-host"
        await node.client.shutdown()

    run(main)


def test_control_client_connection_from_an_address_that_is_gone_is_replaced() -> None:
    """SM-06: nobody tells us that it is dead, and the watchdog of the map stream would take minutes."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            here = ip_address("192.0.2.1")
            node.client.network_changed(frozenset(), gained=False)  # by loopback there is always a way
            node.client._link._local = here
            node.client.network_changed(frozenset({here}), gained=False)
            assert node.client.in_map_poll
            node.client.network_changed(frozenset({ip_address("192.0.2.2")}), gained=True)
            await control.until(lambda: control.opened == 2)
            assert len(control.registers) == 1
            await node.client.shutdown()

    run(main)


def test_control_client_connection_that_is_silent_after_a_change_of_the_network_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SM-06: the host has all its addresses still, and the way from this one is another one now, or closed."""
    monkeypatch.setattr(controllink, "PROBE_PATIENCE", 0.1)

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            node.client.network_changed(frozenset(), gained=False)
            await asyncio.sleep(0.2)
            assert (node.client.in_map_poll, control.opened) == (True, 1)
            client = node.client._link._client
            assert client is not None
            monkeypatch.setattr(client._stream, "write", lambda data: None)
            node.client.network_changed(frozenset(), gained=False)
            await control.until(lambda: control.opened == 2)
            await node.client.shutdown()

    run(main)


def test_control_client_login_that_is_replaced_before_it_begins_leaves_nothing() -> None:
    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            for _ in range(3):
                node.client.login()
            await node.until(lambda s: s.netmap)
            assert len(control.registers) == 1
            assert len(node.client._tasks) <= 2  # map stream and update
            await node.client.shutdown()

    run(main)


def test_control_client_after_silence_opens_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fell silent may be a connection into a hole: the next one is not looked for there."""
    monkeypatch.setattr(controlsession, "MAP_SILENCE", 0.3)

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            assert len(control.machines) == 1
            await node.until(lambda s: s.error and s.error.code == "control-silent")
            await control.until(lambda: control.opened > 1)
            assert len(control.machines) == 2
            await node.client.shutdown()

    run(main)


def test_control_client_paused_is_silent_and_resumes() -> None:
    """SM-05."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            node.client.set_paused(True)
            await asyncio.sleep(0)
            reports = len(node.reports)
            assert not node.client.in_map_poll
            node.client.update_netinfo(NetInfo(preferred_derp=3))
            node.client.set_paused(False)
            await control.until(lambda: control.opened == 2)
            assert not any(s.error for s in node.reports[reports:])
            assert len(control.registers) == 1
            await node.client.shutdown()

    run(main)


def test_control_client_answers_pings_and_calls() -> None:
    """HEAD for an empty type, POST over Noise for c2n, the callback for disco."""

    async def main() -> None:
        async def ping(kind: str, address: str) -> PingResponse:
            return PingResponse(type=kind, ip=address, latency_seconds=0.25)

        async with FakeControl() as control:
            node = Watched(control.url, on_ping=ping)
            node.client.login()
            await node.until(lambda s: s.netmap)
            control.push({"KeepAlive": True, "PingRequest": {"URL": f"{control.url}/machine/ping-response?id=1"}})
            control.push({"PingRequest": {"URL": "https://unused/noise-ping", "URLIsNoise": True}})
            payload = "R0VUIC9lY2hvIEhUVFAvMS4xDQpIb3N0OiB1bnVzZWQNCkNvbnRlbnQtTGVuZ3RoOiAyDQoNCmhp"
            control.push({"PingRequest": {"URL": "https://unused/c2n/1", "Types": "c2n", "Payload": payload}})
            disco = {"URL": "https://unused/disco", "URLIsNoise": True, "Types": "disco,TSMP", "IP": "100.64.0.9"}
            control.push({"PingRequest": disco})
            control.push({"PingRequest": disco})  # the same URL is answered once
            await control.until(lambda: len(control.answers) == 5)
            answers = {path: (method, body) for method, path, body in control.answers}
            assert answers["/machine/ping-response?id=1"] == ("HEAD", b"")
            assert answers["/noise-ping"] == ("HEAD", b"")
            assert answers["/c2n/1"][1].startswith(b"HTTP/1.1 200 OK\r\n")
            assert answers["/c2n/1"][1].endswith(b"\r\n\r\nhi")
            outcomes = [json.loads(body) for _, path, body in control.answers if path == "/disco"]
            assert sorted(o["Type"] for o in outcomes) == ["TSMP", "disco"]
            await node.client.shutdown()

    run(main)


def test_control_client_ping_that_fails_and_url_that_is_none_hold_up_no_other_answer() -> None:
    async def main() -> None:
        troubles: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))

        async def ping(kind: str, address: str) -> PingResponse:
            if kind == "disco":
                raise MeshdError("no such peer")
            return PingResponse(type=kind, ip=address)

        async with FakeControl() as control:
            node = Watched(control.url, on_ping=ping)
            node.client.login()
            await node.until(lambda s: s.netmap)
            for url in ("http://[", "http://127.0.0.1:99999/", "http://m\u00fcller..test/", "http://\u00e4/"):
                control.push({"PingRequest": {"URL": url}})
            request = {"URL": "https://unused/ping", "URLIsNoise": True, "Types": "disco,TSMP", "IP": "100.64.0.9"}
            control.push({"PingRequest": request})
            await control.until(lambda: control.answers)
            assert [json.loads(body)["Type"] for _, _, body in control.answers] == ["TSMP"]
            await node.client.shutdown()
        gc.collect()
        assert not troubles

    run(main)


@pytest.mark.parametrize(("host", "asked"), [("localhost", False), ("127.0.0.2", False), ("127.0.0.1", True)])
def test_control_client_ping_is_answered_to_the_address_of_the_server_and_no_other_local_one(
    host: str, asked: bool
) -> None:
    """A server must not reach what trusts this host or its networks; at its own address it has what it has."""

    async def main() -> None:
        heard: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(1000))
            ended.set()
            writer.close()

        async def ping(kind: str, address: str) -> PingResponse:
            return PingResponse(type=kind, ip=address)

        ended = asyncio.Event()
        service = await asyncio.start_server(serve, "0.0.0.0", 0)
        port = service.sockets[0].getsockname()[1]
        async with FakeControl() as control:
            assert control.url.startswith("http://127.0.0.1:")
            node = Watched(control.url, on_ping=ping)
            node.client.login()
            await node.until(lambda s: s.netmap)
            url = f"http://{host}:{port}/containers/1/stop"
            control.push({"PingRequest": {"URL": url, "Types": "disco", "IP": "100.64.0.9"}})
            await asyncio.wait_for(ended.wait(), 5)
            await node.client.shutdown()
        service.close()
        await service.wait_closed()
        assert heard[0].startswith(b"POST /containers/1/stop ") is asked
        assert asked or heard == [b""]

    run(main)


def test_control_client_rate_limit_honours_retry_after() -> None:
    """LK-21: after 429 nothing is asked before the given time."""

    async def main() -> None:
        async with FakeControl(answer_register=lambda _: Refusal(429, b"slow down")) as control:
            node = Watched(control.url)
            node.client.login()
            status = await node.until(lambda s: s.error)
            assert "429" in status.error.message  # type: ignore[union-attr]
            assert len(control.registers) == 1
            await node.client.shutdown()

    run(main)


def test_control_client_changed_server_key_is_fetched_again() -> None:
    """Pitfall 3: a server that came back with another key is found again without a restart."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            node.client.login()
            await node.until(lambda s: s.netmap)
            control.key = MachinePrivate.generate()
            control.drop()
            await control.until(lambda: control.opened == 2)
            assert control.key_requests == 2
            await node.client.shutdown()

    run(main)


def test_control_client_garbage_url_is_refused_at_once() -> None:
    async def main() -> None:
        for url in ("ftp://x", "https://", "http://host:99999", "https://h/path", "nonsense"):
            with pytest.raises(MeshdError, match="not the URL"):
                Watched(url)

    run(main)


@pytest.mark.parametrize("fault", [MeshdError("disk full"), ZeroDivisionError("planted")])
def test_control_client_report_that_is_not_digested_ends_no_map_stream(fault: Exception) -> None:
    """The fault is ours: a server that is asked again, and again, says the same."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            maps = 0

            def failing(status: ControlStatus) -> None:
                nonlocal maps
                node.note(status)
                if status.netmap is not None:
                    maps += 1
                    raise fault

            node.client._on_status = failing
            node.client.login()
            await node.until(lambda s: s.netmap)
            peer = NodePrivate.generate().public().text()
            control.push({"PeersChanged": [node_json(2, peer)]})
            await node.until(lambda s: s.netmap and s.netmap.peers)
            assert maps == 2
            assert control.opened == 1
            assert not [s for s in node.reports if s.error]
            await node.client.shutdown()

    run(main)


def test_control_client_own_fault_is_reported_and_retried() -> None:
    """A bug in the client itself must not leave it hanging."""

    async def main() -> None:
        async with FakeControl() as control:
            node = Watched(control.url)
            link = node.client._link
            working = link.connection

            async def broken() -> Any:
                link.connection = working  # type: ignore[method-assign]
                raise ZeroDivisionError("planted")

            link.connection = broken  # type: ignore[method-assign]
            node.client.login()
            status = await node.until(lambda s: s.error)
            assert "planted" in status.error.message  # type: ignore[union-attr]
            await node.until(lambda s: s.netmap)
            await node.client.shutdown()

    run(main)


def test_control_client_lets_go_of_maps_by_itself() -> None:
    """Ten thousand peers are tens of megabytes; the collector of cycles may not look for hours."""

    def maps() -> int:
        return sum(isinstance(found, MapResponse | Netmap) for found in gc.get_objects())

    async def main() -> None:
        async with FakeControl() as control:
            peers = [node_json(number, f"nodekey:{number:064x}") for number in range(2, 12)]
            control.first_map = lambda request: {  # type: ignore[method-assign]
                "Node": node_json(1, request.node_key),
                "Peers": peers,
            }
            gc.collect()
            before = maps()
            node = Watched(control.url)
            node.client.login()
            for _ in range(4):
                await node.until(lambda s: s.change is not None and s.change.full)
                await asyncio.sleep(0.01)
                assert maps() == before + 1  # the netmap in use; the messages it came from are gone
                node.reports.clear()
                control.drop()
                await node.until(lambda s: s.error)
                assert maps() == before + 1
                node.reports.clear()
            await node.client.shutdown()
            node.reports.clear()
            assert maps() == before

    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()
