from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd._fast.jsonnames import NameTable
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
    assert FAST.misspelled(text) is wanted
    assert TWIN.misspelled(text) is wanted


@given(st.text(alphabet='"\\:{},idIDNnOoeS \n', max_size=60))
def test_name_table_equals_its_twin_on_token_soup(text):
    data = text.encode()
    assert FAST.misspelled(data) == TWIN.misspelled(data)


@given(
    st.recursive(
        st.none() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["ID", "iD", "Os", "OS", "x"]) | st.text(), inner),
        max_leaves=12,
    )
)
def test_name_table_equals_its_twin_on_documents(document):
    data = json.dumps(document, ensure_ascii=False).encode()
    assert FAST.misspelled(data) == TWIN.misspelled(data)


@pytest.mark.parametrize("name", [b"", b"x" * 65, "é".encode(), "text"])
def test_name_table_unfit_name_refused(name):
    with pytest.raises((ValueError, TypeError)):
        NameTable([name])


def test_name_table_without_names_finds_nothing():
    assert not NameTable([]).misspelled(b'{"id":1}')
