"""The packet path stays clear of the interpreter, the allocator and locks: in the generated C, and when it runs."""

from __future__ import annotations

import os

import pytest

from perf import generated
from perf.alloc.__main__ import measure


@pytest.mark.slow
def test_packet_path_generated_c_is_free_of_interpreter_memory_and_locks():
    bodies = generated.packet_path()
    assert {"segment.emit_c", "coalesce.gro_add_c", "filter.filter_in_c", "lpm.lpm_lookup_c"} <= bodies.keys()
    assert {"ring.ring_put_c", "replay.replay_accept_c", "aead.sodium_seal", "aead.sodium_open"} <= bodies.keys()
    assert generated.offences(bodies) == []


@pytest.mark.slow
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer has an allocator of its own")
def test_packet_threads_under_traffic_ask_for_no_memory():
    found = measure()
    check = found.pop("check")
    assert "udp packets, several threads" in found
    assert check["noticed"] > 0
    assert check["main"] > 0
    assert all(figures["delivered"] for figures in found.values())
    assert {name: figures["requests"] for name, figures in found.items()} == dict.fromkeys(found, 0)


def test_functions_finds_bodies_and_drops_comments(tmp_path):
    path = tmp_path / "x.c"
    path.write_text(
        "static int __pyx_f_5meshd_5_fast_1x_f(int a); /*proto*/\n"
        "static int __pyx_f_5meshd_5_fast_1x_f(int a) {\n"
        "  /* free(a) */\n  __pyx_f_5meshd_5_fast_2yy_g(a);\n}\n"
        "static void __pyx_f_5meshd_5_fast_2yy_g(int a) {\n  { Py_INCREF(a); }\n}\n"
    )
    bodies = generated.functions([path])
    assert bodies.keys() == {"x.f", "yy.g"}
    assert "free" not in bodies["x.f"]
    assert generated.reachable(bodies, ["x.f"]).keys() == {"x.f", "yy.g"}
    assert generated.offences(bodies) == ["yy.g calls Py_INCREF"]


@pytest.mark.parametrize(
    "call",
    [
        "PyGILState_Ensure()",
        "__Pyx_WriteUnraisable(0)",
        "_Py_Dealloc(a)",
        "malloc(1)",
        "free (a)",
        "pthread_mutex_lock(a)",
        "munmap(a, 1)",
    ],
)
def test_offences_call_is_noticed(call):
    assert len(generated.offences({"x.f": f"  {call};"})) == 1


def test_offences_plain_c_is_none():
    assert generated.offences({"x.f": "  __pyx_t_1 = sendmmsg(fd, m, n, 0); Py_ssize_t n; freeze(x);"}) == []
