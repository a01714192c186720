from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.jsonnames import MAX_DEPTH, MISSPELLED, TOO_DEEP, NameTable
from tests.reference import jsonnames as reference

NAMES = [b"ID", b"Node", b"node", b"Hostinfo", b"sshHostKeys", b"OS"]
FAST = NameTable(NAMES)
TWIN = reference.NameTable(NAMES)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b'{"Hostinfo":1}', False),
        (b'{"HostInfo":1}', True),
        (b'{"HOSTINFO" \r\n\t:1}', True),
        (b'{"x":"HostInfo"}', False),
        (b'{"x":["HostInfo","y"]}', False),
        (b'{"node":1,"Node":2}', False),
        (b'{"NODE":1}', True),
        (b'{"other":{"deep":[{"id":1}]}}', True),
        (b'{"x":"\\"id\\":"}', False),
        (b'{"x":"\\\\","id":1}', True),
        (b'{"\\u0049d":1}', False),
        (b'{"":1}', False),
        (b"", False),
        (b'"', False),
        (b'{"id"', False),
        (b'{"id\\', False),
        (b'{"i', False),
        (b'{"' + b"i" * 100_000 + b'":1}', False),
    ],
)
def test_name_table_spots_other_case_only(text, wanted):
    assert FAST.inspect(text) == wanted * MISSPELLED
    assert TWIN.inspect(text) == wanted * MISSPELLED


@given(st.text(alphabet='"\\:{}[],idIDNnOoeS \n', max_size=60))
def test_name_table_equals_its_twin_on_token_soup(text):
    data = text.encode()
    assert FAST.inspect(data) == TWIN.inspect(data)


@given(
    st.recursive(
        st.none() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["ID", "iD", "Os", "OS", "x"]) | st.text(), inner),
        max_leaves=12,
    )
)
def test_name_table_equals_its_twin_on_documents(document):
    data = json.dumps(document, ensure_ascii=False).encode()
    assert FAST.inspect(data) == TWIN.inspect(data)


@pytest.mark.parametrize("name", [b"", b"x" * 65, "é".encode(), "text"])
def test_name_table_unfit_name_refused(name):
    with pytest.raises((ValueError, TypeError)):
        NameTable([name])


def test_name_table_without_names_finds_nothing():
    assert not NameTable([]).inspect(b'{"id":1}')


@pytest.mark.parametrize("table", [FAST, TWIN])
def test_name_table_depth_is_counted_outside_strings(table):
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert table.inspect(deepest) == 0
    assert table.inspect(b"[" + deepest) == TOO_DEEP
    assert table.inspect(b'{"id":' + deepest) == TOO_DEEP | MISSPELLED
    assert table.inspect(b"[" + b'{"x":[]},' * 1000 + b'"' + b"[{" * 1000 + b'"]') == 0
