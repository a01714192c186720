"""Registering machines with a server over real sockets."""

from __future__ import annotations

import asyncio
import time

import pytest

from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time, parse_time
from meshd.base.keys import NodePrivate
from meshd.coord import pending, store
from meshd.coord.records import TAGGED_USER_ID
from meshd.coord.registration import Registrar
from meshd.testing.controlmachine import ControlMachine, RequestFailed, fetch_key
from meshd.wire.control import ZERO_NODE_KEY, Hostinfo, RegisterAuth, RegisterRequest, encode


def test_register_with_key_gets_owner_and_authorization(run_coord):
    async def scenario(coord):
        machine = await coord.machine("web")
        answer = await machine.register(coord.join_key)
        assert (answer.error, answer.auth_url, answer.machine_authorized) == ("", "", True)
        assert (answer.user.id, answer.login.login_name) == (1, "default")
        (node,) = coord.service.network.nodes.values()
        assert (node.name, node.v4, node.v6) == ("web", "100.64.0.1", "fd7a:115c:a1e0::1")

    run_coord(scenario)


@pytest.mark.parametrize("key", ["nonsense", "mesh-auth-000000000000-" + "0" * 64, "mesh-auth-é"])
def test_register_with_unknown_key_is_refused_with_text(run_coord, key):
    async def scenario(coord):
        machine = await coord.machine()
        answer = await machine.register(key)
        assert answer.error == "invalid auth key"
        assert not coord.service.network.nodes

    run_coord(scenario)


def test_register_hundred_machines_with_one_off_key_lets_exactly_one_in(run_coord):
    async def scenario(coord):
        key = await coord.admin("authkeys.create", reusable=False)
        machines = [await coord.machine(f"m{i}") for i in range(100)]
        answers = await asyncio.gather(*(machine.register(key["key"]) for machine in machines))
        assert sorted(answer.error for answer in answers).count("") == 1
        assert {answer.error for answer in answers} == {"", "auth key was already used"}
        assert len(coord.service.network.nodes) == 1

    run_coord(scenario)


def test_register_used_one_off_key_again_by_the_same_node_key_succeeds(run_coord):
    async def scenario(coord):
        key = await coord.admin("authkeys.create")
        machine = await coord.machine()
        assert not (await machine.register(key["key"])).error
        again = await coord.machine(like=machine)
        assert not (await again.register(key["key"])).error
        assert len(coord.service.network.nodes) == 1

    run_coord(scenario)


def test_register_same_machine_in_parallel_makes_one_node(run_coord):
    async def scenario(coord):
        first = await coord.machine()
        others = [await coord.machine(like=first) for _ in range(10)]
        answers = await asyncio.gather(*(m.register(coord.join_key) for m in (first, *others)))
        assert {answer.error for answer in answers} == {""}
        assert len(coord.service.network.nodes) == 1

    run_coord(scenario)


def test_register_of_one_machine_waits_for_each_that_came_before():
    """Else two of them find no node yet, and each makes one."""

    class Registry:
        network = None

    async def whole():
        registrar = Registrar(Registry(), None, None)
        running = worst = 0

        async def work():
            nonlocal running, worst
            running += 1
            worst = max(worst, running)
            await asyncio.sleep(0.01)
            running -= 1

        waiting = [asyncio.create_task(registrar._alone("m", work())) for _ in range(2)]
        await waiting[0]
        waiting.append(asyncio.create_task(registrar._alone("m", work())))
        await asyncio.gather(*waiting)
        assert worst == 1
        del waiting
        assert not registrar._locks

    asyncio.run(whole())


def test_register_revoked_and_expired_keys_say_so(run_coord):
    async def scenario(coord):
        revoked = await coord.admin("authkeys.create", reusable=True)
        await coord.admin("authkeys.revoke", id=revoked["id"])
        expired = await coord.admin("authkeys.create", reusable=True, expiry_s=-1)
        machine = await coord.machine()
        assert (await machine.register(revoked["key"])).error == "auth key was revoked"
        assert (await machine.register(expired["key"])).error == "auth key has expired"

    run_coord(scenario)


def test_register_tagged_key_gives_tags_and_no_expiry(run_coord):
    async def scenario(coord):
        key = await coord.admin("authkeys.create", tags=["tag:web"])
        machine = await coord.machine()
        answer = await machine.register(key["key"])
        assert answer.user.id == TAGGED_USER_ID
        (node,) = coord.service.network.nodes.values()
        assert (node.tags, node.expiry) == (("tag:web",), None)

    run_coord(scenario, node_key_lifetime_s=3600.0)


def test_register_wished_tags_without_policy_are_refused(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        machine.hostinfo = type(machine.hostinfo)(hostname="a", request_tags=("tag:web",))
        answer = await machine.register(coord.join_key)
        assert "tag:web" in answer.error

    run_coord(scenario)


def test_register_foreign_machine_cannot_claim_a_node_key(run_coord):
    async def scenario(coord):
        owner = await coord.joined()
        thief = await coord.machine()
        thief.node = owner.node
        assert (await thief.register(coord.join_key)).error == "node exists with a different machine key"
        with pytest.raises(RequestFailed) as caught:
            await thief.stream()
        assert caught.value.status == 404

    run_coord(scenario)


def test_register_rotation_keeps_id_name_and_addresses(run_coord):
    async def scenario(coord):
        machine = await coord.joined("keep")
        (before,) = coord.service.network.nodes.values()
        was = (before.id, before.name, before.v4, before.v6)
        old = machine.node.public().text()
        machine.node = NodePrivate.generate()
        assert not (await machine.register(coord.join_key, old_node_key=old)).error
        (after,) = coord.service.network.nodes.values()
        assert (after.id, after.name, after.v4, after.v6) == was
        assert after.node_key == machine.node.public().text()
        assert old not in coord.service.network.by_node_key

    run_coord(scenario)


def test_register_again_under_another_hostname_renames_the_node_unless_an_admin_named_it(run_coord):
    async def scenario(coord):
        machine = await coord.joined("old")
        (node,) = coord.service.network.nodes.values()
        machine.hostinfo = type(machine.hostinfo)(hostname="new")
        machine.node = NodePrivate.generate()
        assert not (await machine.register(coord.join_key)).error
        await machine.update()
        assert node.name == "new"
        await coord.admin("nodes.rename", node="new", name="chosen")
        machine.hostinfo = type(machine.hostinfo)(hostname="newer")
        await machine.update()
        assert (node.name, node.hostname) == ("chosen", "newer")
        await coord.admin("nodes.rename", node="chosen", name="newer-prod")
        machine.hostinfo = type(machine.hostinfo)(hostname="newest")
        await machine.update()
        assert (node.name, node.hostname) == ("newer-prod", "newest")

    run_coord(scenario)


def test_register_expired_node_is_told_to_make_a_new_key(run_coord):
    async def scenario(coord):
        machine = await coord.joined()
        await coord.admin("nodes.expire", node="1")
        assert (await machine.register(coord.join_key)).node_key_expired
        old = machine.node.public().text()
        machine.node = NodePrivate.generate()
        assert not (await machine.register(coord.join_key, old_node_key=old)).error
        (node,) = coord.service.network.nodes.values()
        assert not node.expired(time.time())

    run_coord(scenario)


def test_register_logout_expires_the_node_and_deletes_an_ephemeral_one(run_coord):
    async def scenario(coord):
        machine = await coord.joined("lasting")
        key = await coord.admin("authkeys.create", ephemeral=True)
        fleeting = await coord.machine("fleeting")
        await fleeting.register(key["key"])
        for each in (machine, fleeting):
            await each.register(expiry="1970-01-01T00:02:03Z")
        (node,) = coord.service.network.nodes.values()
        assert node.name == "lasting"
        assert node.expired(time.time())

    run_coord(scenario)


def test_register_expiry_can_be_shortened_and_not_extended(run_coord):
    async def scenario(coord):
        machine = await coord.joined()
        (node,) = coord.service.network.nodes.values()
        sooner = time.time() + 100
        assert not (await machine.register(expiry=format_time(sooner))).error
        assert node.expiry == pytest.approx(sooner)
        assert (await machine.register(expiry=format_time(sooner + 900))).error == "extending key is not allowed"
        assert parse_time(format_time(node.expiry)) == pytest.approx(sooner)

    run_coord(scenario, node_key_lifetime_s=3600.0)


def test_register_interactive_waits_until_approved(run_coord):
    async def scenario(coord):
        machine = await coord.machine("laptop")
        asked = await machine.register()
        assert asked.auth_url.startswith("http://127.0.0.1:8080/register/")
        waiting = asyncio.create_task(machine.register(followup=asked.auth_url))
        (entry,) = await coord.admin("nodes.pending")
        assert entry["hostname"] == "laptop"
        node = await coord.admin("nodes.approve", id=asked.auth_url)
        answer = await waiting
        assert (answer.error, answer.auth_url, answer.machine_authorized) == ("", "", True)
        assert node["name"] == "laptop"
        assert await coord.admin("nodes.pending") == []

    run_coord(scenario)


def test_register_interactive_refused_machine_is_told(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        asked = await machine.register()
        waiting = asyncio.create_task(machine.register(followup=asked.auth_url))
        await asyncio.sleep(0)
        await coord.admin("nodes.refuse", id=asked.auth_url)
        assert "refused" in (await waiting).error

    run_coord(scenario)


def test_register_refused_machine_that_goes_on_asking_waits_no_more(run_coord):
    """tailscaled asks about a page for ever; a minute after the refusal it was in the list again."""

    async def scenario(coord):
        machine = await coord.machine()
        asked = await machine.register()
        await coord.admin("nodes.refuse", id=asked.auth_url)
        (entry,) = coord.service._control._registrar.pending._by_id.values()
        entry.deadline = now = asyncio.get_running_loop().time() + 30.0
        assert "refused" in (await machine.register(followup=asked.auth_url)).error
        assert entry.deadline > now + 20.0
        assert await coord.admin("nodes.pending") == []
        assert (await machine.register()).auth_url not in ("", asked.auth_url)  # a person tries again

    run_coord(scenario)


def test_register_followup_unknown_gets_a_new_address(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        answer = await machine.register(followup="http://127.0.0.1:8080/register/0123")
        assert answer.auth_url
        assert not answer.error

    run_coord(scenario)


def test_register_followup_repeated_after_approval_succeeds(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        asked = await machine.register()
        await coord.admin("nodes.approve", id=asked.auth_url)
        assert (await machine.register(followup=asked.auth_url)).machine_authorized

    run_coord(scenario)


def test_register_too_many_waiting_machines_are_answered_with_429(run_coord, monkeypatch):
    monkeypatch.setattr(pending, "MAX_PENDING", 64)

    async def scenario(coord):
        machine = await coord.machine()
        for _ in range(64):
            machine.node = NodePrivate.generate()
            assert (await machine.register()).auth_url
        machine.node = NodePrivate.generate()
        with pytest.raises(RequestFailed) as caught:
            await machine.register()
        assert caught.value.status == 429

    run_coord(scenario)


def test_register_old_client_version_is_refused(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        with pytest.raises(RequestFailed) as caught:
            await machine.register(coord.join_key, version=60)
        assert caught.value.status == 400
        old = ControlMachine()
        with pytest.raises(RequestFailed) as caught:
            await old.connect("127.0.0.1", coord.port, await fetch_key("127.0.0.1", coord.port), version=60)
        assert "too old" in str(caught.value)

    run_coord(scenario)


def test_register_hang_up_in_the_middle_leaves_memory_and_disk_equal(run_coord):
    async def scenario(coord):
        machine = await coord.machine()
        request = RegisterRequest(
            version=113, node_key=machine.node.public().text(), auth=RegisterAuth(auth_key=coord.join_key)
        )
        machine.send("/machine/register", encode(request))
        await machine.close()
        again = await coord.machine(like=machine)
        assert not (await again.register(coord.join_key)).error
        stored = await coord.service._database.run(store.load_nodes)
        assert [node.id for node in stored] == list(coord.service.network.nodes)

    run_coord(scenario)


def _hold_joins(registry):
    """Joins stop between the disk and the memory; events "one has stopped" and "they may go on"."""
    stopped, go_on = asyncio.Event(), asyncio.Event()
    store_joined = registry._store_joined

    async def hold(*args, **kwargs):
        await store_joined(*args, **kwargs)
        stopped.set()
        await go_on.wait()

    registry._store_joined = hold
    return stopped, go_on


async def _rotated(coord, old):
    machine = await coord.machine(like=old)
    machine.node, machine.hostinfo = NodePrivate.generate(), old.hostinfo
    return machine


@pytest.mark.parametrize(
    ("op", "args", "field", "value"),
    [
        ("nodes.approve-routes", {"routes": []}, "approved_routes", ()),
        ("nodes.tag", {"tags": ["tag:web"]}, "tags", ("tag:web",)),
        ("nodes.rename", {"name": "db"}, "name", "db"),
    ],
)
def test_register_new_key_keeps_what_an_administrator_changes_meanwhile(run_coord, op, args, field, value):
    """The machine had its old key again after a restart, and the administrator's change was gone."""

    async def scenario(coord):
        old = await coord.joined()
        old.hostinfo = Hostinfo(hostname="machine", routable_ips=("10.0.0.0/8",))
        await old.update()
        await coord.admin("nodes.approve-routes", node="1", all=True)
        machine = await _rotated(coord, old)
        stopped, go_on = _hold_joins(coord.service._registry)
        joining = asyncio.create_task(machine.register(coord.join_key))
        await stopped.wait()
        changing = asyncio.create_task(coord.admin(op, node="1", **args))
        await asyncio.sleep(0.05)
        go_on.set()
        assert not (await joining).error
        await changing
        (node,) = coord.service.network.nodes.values()
        (stored,) = await coord.service._database.run(store.load_nodes)
        assert getattr(node, field) == getattr(stored, field) == value
        assert node.node_key == stored.node_key == machine.node.public().text()

    run_coord(scenario)


def test_register_new_key_is_on_disk_whatever_the_machine_tells_meanwhile(run_coord):
    """After a restart the server did not know the key that it had accepted."""

    async def scenario(coord):
        old = await coord.joined()
        machine = await _rotated(coord, old)
        stopped, go_on = _hold_joins(coord.service._registry)
        joining = asyncio.create_task(machine.register(coord.join_key))
        await stopped.wait()
        telling = asyncio.create_task(old.update(endpoints=("192.0.2.1:41641",)))
        await asyncio.sleep(0.05)
        go_on.set()
        assert not (await joining).error
        await telling
        (stored,) = await coord.service._database.run(store.load_nodes)
        assert stored.node_key == machine.node.public().text()

    run_coord(scenario)


def test_register_new_key_stores_the_name_of_a_machine_that_hangs_up_meanwhile(run_coord):
    """Else a machine that takes the name that became free is refused until the next start."""

    async def scenario(coord):
        old = await coord.joined("web")
        machine = await _rotated(coord, old)
        stopped, go_on = _hold_joins(coord.service._registry)
        joining = asyncio.create_task(machine.register(coord.join_key))
        await stopped.wait()
        old.hostinfo = Hostinfo(hostname="db")
        telling = asyncio.create_task(old.update())
        await asyncio.sleep(0.05)
        telling.cancel()
        await old.close()
        await asyncio.sleep(0.05)
        go_on.set()
        assert not (await joining).error
        (stored,) = await coord.service._database.run(store.load_nodes)
        assert stored.name == "db"

    run_coord(scenario)


def test_register_new_key_of_a_node_that_is_deleted_meanwhile_ends_every_wait(run_coord):
    async def scenario(coord):
        old = await coord.joined()
        machine = await _rotated(coord, old)
        stopped, go_on = _hold_joins(coord.service._registry)
        joining = asyncio.create_task(machine.register(coord.join_key))
        await stopped.wait()
        deleting = asyncio.create_task(coord.admin("nodes.delete", node="1"))
        expiring = asyncio.create_task(coord.admin("nodes.expire", node="1"))
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(joining, deleting)
        with pytest.raises(MeshdError, match="deleted"):
            await expiring
        assert not coord.service.network.nodes
        assert not coord.service._registry._busy
        assert await coord.service._database.run(store.load_nodes) == []

    run_coord(scenario)


@pytest.mark.parametrize("rotates", [True, False])
def test_register_ephemeral_machine_that_is_back_has_its_full_time_to_connect(run_coord, rotates):
    """It was deleted right after it was told that it is in."""

    async def scenario(coord):
        key = await coord.admin("authkeys.create", ephemeral=True, reusable=True)
        machine = await coord.machine()
        assert not (await machine.register(key["key"])).error
        presence, now = coord.service._presence, asyncio.get_running_loop().time()
        presence._gone_since[1] = now - 59.0
        if rotates:
            machine.node = NodePrivate.generate()
        assert not (await machine.register(key["key"])).error
        await presence.sweep(now + 2.0, time.time())
        assert list(coord.service.network.nodes) == [1]
        await presence.sweep(now + 100.0, time.time())
        assert not coord.service.network.nodes

    run_coord(scenario, ephemeral_timeout_s=60.0)


def test_register_ephemeral_machine_is_not_deleted_while_it_registers_again(run_coord):
    async def scenario(coord):
        key = await coord.admin("authkeys.create", ephemeral=True, reusable=True)
        machine = await coord.machine()
        assert not (await machine.register(key["key"])).error
        presence, now = coord.service._presence, asyncio.get_running_loop().time()
        machine.node = NodePrivate.generate()
        stopped, go_on = _hold_joins(coord.service._registry)
        joining = asyncio.create_task(machine.register(key["key"]))
        await stopped.wait()
        presence._gone_since[1] = now - 61.0
        sweeping = asyncio.create_task(presence.sweep(now, time.time()))
        await asyncio.sleep(0)
        go_on.set()
        assert not (await joining).error
        await sweeping
        assert list(coord.service.network.nodes) == [1]

    run_coord(scenario, ephemeral_timeout_s=60.0)


def test_register_ephemeral_machine_with_a_stream_never_counts_as_gone(run_coord):
    async def scenario(coord):
        key = await coord.admin("authkeys.create", ephemeral=True, reusable=True)
        machine = await coord.machine()
        assert not (await machine.register(key["key"])).error
        await (await machine.stream()).next()
        assert not (await machine.register(key["key"])).error
        await coord.service._presence.sweep(asyncio.get_running_loop().time() + 100.0, time.time())
        assert list(coord.service.network.nodes) == [1]

    run_coord(scenario, ephemeral_timeout_s=60.0)


def test_register_known_key_of_a_node_that_is_just_deleted_is_not_accepted(run_coord):
    async def scenario(coord):
        machine = await coord.joined()
        registry = coord.service._registry
        (node,) = coord.service.network.nodes.values()
        deleted, go_on = asyncio.Event(), asyncio.Event()
        run = registry.database.run

        async def hold(work):
            result = await run(work)
            deleted.set()
            await go_on.wait()
            return result

        registry.database.run = hold
        deleting = asyncio.create_task(registry.delete(node))
        await deleted.wait()
        registry.database.run = run
        again = asyncio.create_task(machine.register())
        await asyncio.sleep(0.05)
        go_on.set()
        await deleting
        assert (await again).auth_url

    run_coord(scenario)


def test_register_refusal_that_comes_after_an_approval_says_so(run_coord):
    """The administrator was told that the machine is refused, the machine too, and it was in the network."""

    async def scenario(coord):
        machine = await coord.machine()
        asked = await machine.register()
        waiting = asyncio.create_task(machine.register(followup=asked.auth_url))
        stopped, go_on = _hold_joins(coord.service._registry)
        approving = asyncio.create_task(coord.admin("nodes.approve", id=asked.auth_url))
        await stopped.wait()
        refusing = asyncio.create_task(coord.admin("nodes.refuse", id=asked.auth_url))
        await asyncio.sleep(0.05)
        go_on.set()
        await approving
        with pytest.raises(MeshdError, match="no machine waits"):
            await refusing
        answer = await waiting
        assert (answer.error, answer.machine_authorized) == ("", True)

    run_coord(scenario)


def test_register_of_a_machine_whose_owner_is_deleted_meanwhile_keeps_the_owner(run_coord):
    """The administrator saw an internal error."""

    async def scenario(coord):
        await coord.admin("users.create", name="bob")
        key = await coord.admin("authkeys.create", user="bob", reusable=True)
        machine = await coord.machine()
        stopped, go_on = _hold_joins(coord.service._registry)
        joining = asyncio.create_task(machine.register(key["key"]))
        await stopped.wait()
        with pytest.raises(MeshdError, match="still owns a node") as caught:
            await coord.admin("users.delete", name="bob")
        assert caught.value.code == "conflict"
        go_on.set()
        assert not (await joining).error
        assert key["id"] in [entry["id"] for entry in await coord.admin("authkeys.list")]

    run_coord(scenario)


def test_user_deleted_twice_at_once_is_deleted(run_coord):
    async def scenario(coord):
        await coord.admin("users.create", name="bob")
        await asyncio.gather(*(coord.admin("users.delete", name="bob") for _ in range(2)))
        assert [user["name"] for user in await coord.admin("users.list")] == ["default"]

    run_coord(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_map_under_a_key_that_was_replaced_meanwhile_is_refused(run_coord, stream):
    """It got a stream, which nothing ended any more, and the map under a key that holds no longer."""

    async def scenario(coord):
        old = await coord.joined()
        machine = await _rotated(coord, old)
        stopped, go_on = _hold_joins(coord.service._registry)
        joining = asyncio.create_task(machine.register(coord.join_key))
        await stopped.wait()
        old.endpoints = ("192.0.2.1:41641",)
        request = encode(old.map_request(stream=stream))
        asking = asyncio.create_task(old.request("/machine/map", request))
        await asyncio.sleep(0.05)
        go_on.set()
        assert not (await joining).error
        with pytest.raises(RequestFailed) as caught:
            await asyncio.wait_for(asking, 2)
        assert caught.value.status == 404
        assert coord.service._distributor.stream_of(1) is None

    run_coord(scenario)


def test_auth_key_for_a_user_who_is_deleted_meanwhile_is_refused(run_coord):
    """The administrator got no answer, and the log a traceback."""

    async def scenario(coord):
        await coord.admin("users.create", name="bob")
        deleting = asyncio.create_task(coord.admin("users.delete", name="bob"))
        await asyncio.sleep(0)
        with pytest.raises(MeshdError, match="deleted a moment ago") as caught:
            await coord.admin("authkeys.create", user="bob")
        assert caught.value.code == "not-found"
        await deleting

    run_coord(scenario)


def test_approval_for_a_user_who_is_deleted_meanwhile_names_the_user(run_coord):
    """It said that another machine had taken the key."""

    async def scenario(coord):
        await coord.admin("users.create", name="bob")
        machine = await coord.machine()
        asked = await machine.register()
        deleting = asyncio.create_task(coord.admin("users.delete", name="bob"))
        await asyncio.sleep(0)
        with pytest.raises(MeshdError, match="user .* deleted"):
            await coord.admin("nodes.approve", id=asked.auth_url, user="bob")
        await deleting
        assert not (await coord.admin("nodes.approve", id=asked.auth_url, user="default"))["tags"]

    run_coord(scenario)


@pytest.mark.parametrize("way", ["gives up its key", "logged out"])
@pytest.mark.parametrize("tags", [[("tag:web",), ()], [(), ("tag:web",)]])
def test_register_with_tags_instead_of_a_user_or_back_goes_on_as_the_same_node(run_coord, way, tags):
    """It became a second node with another name, and the first one stayed for ever."""

    async def scenario(coord):
        machine = await coord.machine("web")
        for wanted in tags:
            key = await coord.admin("authkeys.create", tags=wanted)
            old = machine.node.public().text()
            if way == "logged out" and coord.service.network.nodes:
                await coord.admin("nodes.expire", node="1")
                old = ZERO_NODE_KEY
            machine.node = NodePrivate.generate()
            assert not (await machine.register(key["key"], old_node_key=old)).error
        (node,) = coord.service.network.nodes.values()
        assert (node.id, node.name, node.v4, node.tags) == (1, "web", "100.64.0.1", tags[-1])
        assert node.expiry is None

    run_coord(scenario)


def test_register_of_another_users_profile_on_the_same_machine_is_another_node(run_coord):
    async def scenario(coord):
        await coord.admin("users.create", name="bob")
        machine = await coord.joined()
        machine.node = NodePrivate.generate()
        for key in (
            await coord.admin("authkeys.create", user="bob", tags=["tag:web"]),
            await coord.admin("authkeys.create", user="default", tags=()),
        ):
            machine.node = NodePrivate.generate()
            assert not (await machine.register(key["key"])).error
        assert [(node.user_id, node.tags) for node in coord.service.network.nodes.values()] == [
            (1, ()),
            (2, ("tag:web",)),
        ]

    run_coord(scenario)


def test_auth_key_revoked_while_its_user_is_deleted_is_not_found(run_coord):
    """The administrator read of a malformed request."""

    async def scenario(coord):
        await coord.admin("users.create", name="bob")
        key = await coord.admin("authkeys.create", user="bob")
        run = coord.service._database.run

        async def delete_before(work):
            if work is not store.auth_keys:
                coord.service._registry.database.run = run
                await coord.admin("users.delete", name="bob")
            return await run(work)

        coord.service._registry.database.run = delete_before
        with pytest.raises(MeshdError, match="there is no auth key"):
            await coord.admin("authkeys.revoke", id=str(key["id"]))

    run_coord(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_map_of_a_node_that_is_deleted_meanwhile_is_refused(run_coord, stream):
    """One that asked without a stream was told of the whole network once more."""

    async def scenario(coord):
        machine = await coord.joined()
        registry = coord.service._registry
        (node,) = coord.service.network.nodes.values()
        write, stopped, go_on = registry._write, asyncio.Event(), asyncio.Event()

        async def hold(*nodes):
            stopped.set()
            await go_on.wait()
            await write(*nodes)

        registry._write = hold
        machine.endpoints = ("192.0.2.1:41641",)
        asking = asyncio.create_task(machine.request("/machine/map", encode(machine.map_request(stream=stream))))
        await stopped.wait()
        await registry.delete(node)
        go_on.set()
        with pytest.raises(RequestFailed) as caught:
            await asking
        assert caught.value.status == 404

    run_coord(scenario)


@pytest.mark.parametrize("tags", [(), ("tag:web",)])
def test_register_with_a_key_ends_the_wait_for_an_approval(run_coord, tags):
    """It stood among the machines that wait, and to approve it failed or made something else of it."""

    async def scenario(coord):
        machine = await coord.machine()
        asked = await machine.register()
        waiting = asyncio.create_task(machine.register(followup=asked.auth_url))
        await asyncio.sleep(0.05)
        key = await coord.admin("authkeys.create", tags=tags)
        again = await coord.machine(like=machine)
        assert not (await again.register(key["key"])).error
        assert (await waiting).machine_authorized
        assert await coord.admin("nodes.pending") == []
        with pytest.raises(MeshdError, match="no machine waits"):
            await coord.admin("nodes.approve", id=asked.auth_url)
        (node,) = coord.service.network.nodes.values()
        assert (node.method, node.tags) == ("authkey", tags)

    run_coord(scenario)
