"""A filter program that is changed decides like one made anew, and like the twin."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd._fast.filter import Filter, FlowTable
from tests.reference import filter as reference
from tests.reference import flow as reference_flow
from tests.unit.fast.packets import A4, B4, ipv4, tcp
from tests.unit.fast.test_filter import DEFAULT, LOCAL, LOCALS, PACKETS, RULES, host

Given = tuple[tuple[tuple[bytes, bytes], ...], tuple[tuple[bytes, bytes, int, int], ...], tuple[int, ...]]
SYN = 2


def fixed(rules: list[reference.Rule]) -> list[Given]:
    return [(tuple(sources), tuple(targets), tuple(protocols)) for sources, targets, protocols in rules]


def hosts(count: int) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(host(bytes([100, 64, n >> 8, n & 255])) for n in range(count))


def accepts(program: Filter, source: bytes, port: int) -> bool:
    return program.check_in(ipv4(6, tcp(1, port, SYN), source, B4), FlowTable()) == 0


# What happens to a list of rules from one map message to the next.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "drop", "sources", "targets", "all", "local", "swap"]),
        st.integers(0, 5),
        RULES,
        LOCALS,
    ),
    max_size=6,
)


def step(rules: list[Given], kind: str, at: int, others: list[Given]) -> list[Given]:
    """The next list of rules; those that stay are the same objects."""
    spot = at % len(rules) if rules else 0
    match kind:
        case "add":
            return [*rules[:spot], *others[:2], *rules[spot:]]
        case "drop":
            return rules[:spot] + rules[spot + 1 :]
        case "all":
            return others
        case "swap" if len(rules) > 1:
            first, last = rules[0], rules[-1]
            return [(last[0], *first[1:]), *rules[1:-1], (first[0], *last[1:])]
        case "sources" if rules and others:
            sources, targets, protocols = rules[spot]
            return [*rules[:spot], (sources[1:] + others[0][0], targets, protocols), *rules[spot + 1 :]]
        case "targets" if rules and others:
            sources, targets, protocols = rules[spot]
            return [*rules[:spot], (sources, targets[1:] + others[0][1], protocols), *rules[spot + 1 :]]
        case _:
            return rules


@settings(max_examples=80)
@given(RULES, LOCALS, STEPS, st.lists(PACKETS, max_size=15))
def test_change_any_sequence_decides_like_a_new_program_and_the_twin(
    first: list[reference.Rule],
    local: list[tuple[bytes, int]],
    steps: list[tuple[str, int, list[reference.Rule], list[tuple[bytes, int]]]],
    traffic: list[bytes],
) -> None:
    rules = fixed(first)
    program = Filter(rules, local)
    for kind, at, others, other_local in steps:
        rules = step(rules, kind, at, fixed(others))
        local = other_local if kind == "local" else local
        assert program.change(rules, local)
        anew, twin = Filter(rules, local), reference.Filter(rules, local)
        for packet in traffic:
            verdict = program.check_in(packet, FlowTable())
            assert verdict == anew.check_in(packet, FlowTable())
            assert verdict == twin.check_in(packet, reference_flow.FlowTable())
    assert program.change([], [])
    empty = Filter([], []).shape()
    kept = {name: program.shape()[name] for name in ("source_classes", "destination_classes", "verdicts")}
    assert kept == {name: empty[name] for name in kept}


def test_change_everybody_allowed_and_forbidden_again_leaves_hosts_as_they_were() -> None:
    """``*`` touches the class of everything, and no host's entry."""
    some: Given = (hosts(1000), ((B4, B4, 22, 22),), (6,))
    everybody: Given = (((bytes(4), b"\xff" * 4),), ((B4, B4, 80, 80),), (6,))
    program = Filter([some], LOCAL)
    before = program.shape()
    assert program.change([some, everybody], LOCAL)
    assert accepts(program, hosts(1000)[999][0], 22)
    assert accepts(program, hosts(1000)[999][0], 80)
    assert accepts(program, b"\x01\x02\x03\x04", 80)
    assert not accepts(program, b"\x01\x02\x03\x04", 22)
    assert program.change([some], LOCAL)
    assert accepts(program, hosts(1000)[999][0], 22)
    assert not accepts(program, hosts(1000)[999][0], 80)
    assert {**program.shape(), "bytes": 0} == {**before, "bytes": 0}


def test_change_a_range_around_hosts_gives_them_its_rights_and_takes_them_again() -> None:
    some: Given = (hosts(300), ((B4, B4, 22, 22),), (6,))
    wide: Given = (((bytes([100, 64, 0, 0]), bytes([100, 64, 0, 127])),), ((B4, B4, 80, 80),), (6,))
    program = Filter([some], LOCAL)
    assert program.change([some, wide], LOCAL)
    assert [accepts(program, hosts(300)[n][0], 80) for n in (0, 127, 128, 299)] == [True, True, False, False]
    assert program.change([some], LOCAL)
    assert not accepts(program, hosts(300)[0][0], 80)
    assert accepts(program, hosts(300)[0][0], 22)


def test_change_a_source_that_another_item_names_too_stays() -> None:
    ten = hosts(10)
    rule: Given = ((*ten, (ten[0][0], ten[3][0])), ((B4, B4, 22, 22),), (6,))
    program = Filter([rule], LOCAL)
    assert program.change([((*ten[1:], rule[0][-1]), *rule[1:])], LOCAL)
    assert accepts(program, ten[0][0], 22)
    assert program.change([((ten[1:]), *rule[1:])], LOCAL)
    assert not accepts(program, ten[0][0], 22)


def test_change_many_times_memory_stays() -> None:
    rules: list[Given] = [(hosts(500)[n * 5 : n * 5 + 5], ((B4, B4, n, n),), (6,)) for n in range(100)]
    program = Filter(rules, LOCAL)
    sizes = []
    for turn in range(600):
        rules[turn % 100] = (rules[turn % 100][0], ((B4, B4, 1000 + turn, 1000 + turn),), (6,))
        assert program.change(rules, LOCAL)
        sizes.append(program.shape()["bytes"])
    assert max(sizes[300:]) <= max(sizes[:300])


def test_change_of_nearly_everything_wants_a_new_program() -> None:
    program = Filter([(hosts(1000), ((B4, B4, 22, 22),), (6,))], LOCAL)
    assert not program.change([(hosts(2000)[1000:], ((B4, B4, 23, 23),), (6,))], LOCAL)


def test_change_too_many_pairs_of_classes_wants_a_new_program() -> None:
    far = [bytes([198, 18, n >> 8, n & 255]) for n in range(560)]
    rules: list[Given] = [((host(a),), ((a, a, 1, 1),), (6,)) for a in far]
    program = Filter(rules[:500], LOCAL)
    assert program.change(rules[:505], LOCAL)
    assert not program.change(rules, LOCAL)
    assert Filter(rules, LOCAL).shape()["linear_rules"] > 0
    assert not Filter(rules, LOCAL).change(rules[:500], LOCAL)


@pytest.mark.parametrize(
    "bad", [((B4, A4), ()), ((A4, A4), (B4, B4, 5, 4)), ((A4, A4), (B4, A4, 1, 2)), ((A4, A4), (B4, B4, 0, 65536))]
)
def test_change_bad_rule_is_refused_and_changes_nothing(bad: tuple[tuple[bytes, bytes], tuple[object, ...]]) -> None:
    good: Given = ((host(A4),), ((B4, B4, 22, 22),), DEFAULT)
    program = Filter([good], LOCAL)
    with pytest.raises(ValueError):
        program.change([good, ((bad[0],), (bad[1],) if bad[1] else (), (6,))], LOCAL)  # type: ignore[list-item]
    assert accepts(program, A4, 22)
    assert program.change([good, ((host(A4),), ((B4, B4, 80, 80),), (6,))], LOCAL)
    assert accepts(program, A4, 80)


def test_change_a_rule_given_twice_counts_once() -> None:
    rule: Given = ((host(A4),), ((B4, B4, 22, 22),), (6,))
    program = Filter([rule, rule], LOCAL)
    assert program.change([rule], LOCAL)
    assert accepts(program, A4, 22)
    assert program.change([], LOCAL)
    assert not accepts(program, A4, 22)
