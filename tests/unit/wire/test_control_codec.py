from __future__ import annotations

import json

import msgspec
import pytest

from meshd.base.errors import WireError
from meshd.wire import control
from meshd.wire.control import codec, decode, encode

ZERO_REGISTER = {
    "Version": 0,
    "NodeKey": control.ZERO_NODE_KEY,
    "OldNodeKey": control.ZERO_NODE_KEY,
    "NLKey": control.ZERO_LOCK_KEY,
    "Expiry": "0001-01-01T00:00:00Z",
    "Followup": "",
    "Hostinfo": None,
    "NodeKeySignature": None,
}


def _json(value: msgspec.Struct) -> object:
    return json.loads(encode(value))


# --- what is written --------------------------------------------------------------------------------------


def test_register_request_empty_writes_what_go_writes():
    assert _json(control.RegisterRequest()) == ZERO_REGISTER
    assert list(json.loads(encode(control.RegisterRequest()))) == list(ZERO_REGISTER)


def test_map_request_empty_writes_only_required_fields():
    assert list(json.loads(encode(control.MapRequest()))) == ["Version", "NodeKey", "DiscoKey", "Hostinfo"]


def test_map_request_endpoints_absent_and_empty_differ():
    assert "Endpoints" not in json.loads(encode(control.MapRequest()))
    assert json.loads(encode(control.MapRequest(endpoints=())))["Endpoints"] == []


def test_map_response_empty_is_empty_object():
    assert encode(control.MapResponse()) == b"{}"
    assert encode(control.MapResponse(keep_alive=True)) == b'{"KeepAlive":true}'


def test_map_response_empty_values_with_a_meaning_are_written():
    """Pitfall 6: null, absent and empty."""
    response = control.MapResponse(
        packet_filter=(), health=(), packet_filters={"x": None, "y": ()}, display_messages={"*": None}
    )
    wanted = {
        "PacketFilter": [],
        "PacketFilters": {"x": None, "y": []},
        "Health": [],
        "DisplayMessages": {"*": None},
    }
    assert _json(response) == wanted
    assert decode(control.MapResponse, encode(response)) == response


def test_node_empty_writes_the_six_fields_of_every_node():
    wanted = ["ID", "StableID", "Name", "User", "Key", "Addresses"]
    assert list(json.loads(encode(control.Node()))) == wanted


def test_node_allowed_ips_null_absent_and_empty():
    assert decode(control.Node, b'{"AllowedIPs":null}').allowed_ips is None
    assert decode(control.Node, b"{}").allowed_ips is None
    assert decode(control.Node, b'{"AllowedIPs":[]}').allowed_ips == ()
    assert json.loads(encode(control.Node(allowed_ips=())))["AllowedIPs"] == []


def test_peer_change_explicit_empty_values_survive():
    text = b'{"NodeID":1,"CapMap":{},"Endpoints":[],"KeySignature":""}'
    change = decode(control.PeerChange, text)
    assert (change.cap_map, change.endpoints, change.key_signature) == ({}, (), b"")
    assert encode(change) == text
    assert decode(control.PeerChange, b'{"NodeID":1,"Online":false}').online is False


def test_debug_exit_zero_is_not_absent():
    assert decode(control.Debug, b'{"Exit":0}').exit == 0
    assert decode(control.Debug, b"{}").exit is None
    assert encode(control.Debug(exit=0)) == b'{"Exit":0}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (control.Hostinfo(), "{}"),
        (
            control.Hostinfo(ssh_host_keys=("k",), ipn_version="1", os="linux", wol_macs=("a",)),
            '{"IPNVersion":"1","OS":"linux","WoLMACs":["a"],"sshHostKeys":["k"]}',
        ),
        (control.Hostinfo(container=False), '{"Container":false}'),
        (control.NetInfo(), '{"PreferredDERP":0}'),
        (
            control.NetInfo(
                os_has_ipv6=True, working_icmpv4=True, upnp=False, mapping_varies_by_dest_ip=True, preferred_derp=1
            ),
            '{"MappingVariesByDestIP":true,"OSHasIPv6":true,"WorkingICMPv4":true,"UPnP":false,"PreferredDERP":1}',
        ),
        (control.Service(proto="tcp", port=22), '{"Proto":"tcp","Port":22}'),
        (control.DERPMap(omit_default_regions=True), '{"Regions":null,"omitDefaultRegions":true}'),
        (control.DERPNode(name="1a", stun_port=-1), '{"Name":"1a","RegionID":0,"HostName":"","STUNPort":-1}'),
        (control.FilterRule(src_ips=("*",)), '{"SrcIPs":["*"]}'),
        (control.NetPortRange(ip="*"), '{"IP":"*","Ports":{"First":0,"Last":0}}'),
        (control.DNSConfig(), "{}"),
        (control.DNSConfig(routes={"a": ()}), '{"Routes":{"a":[]}}'),
        (control.SSHPolicy(rules=()), '{"rules":[]}'),
        (
            control.SSHRule(principals=(control.SSHPrincipal(node_ip="1.2.3.4"),), ssh_users={"*": "="}),
            '{"principals":[{"nodeIP":"1.2.3.4"}],"sshUsers":{"*":"="},"action":null}',
        ),
        (
            control.SSHAction(
                session_duration=1, on_recording_failure=control.SSHRecorderFailureAction(notify_url="u")
            ),
            '{"sessionDuration":1,"onRecordingFailure":{"NotifyURL":"u"}}',
        ),
        (control.TKAInfo(disabled=True), '{"Disabled":true}'),
        (control.ControlDialPlan(candidates=()), '{"Candidates":[]}'),
        (control.UserProfile(id=1), '{"ID":1,"LoginName":"","DisplayName":""}'),
        (control.PingResponse(type="disco", node_ip="a"), '{"Type":"disco","NodeIP":"a"}'),
        (control.PingRequest(url="u", url_is_noise=True), '{"URL":"u","URLIsNoise":true}'),
        (
            control.Node(is_wireguard_only=True, self_node_v4_masq_addr_for_this_peer="1.2.3.4"),
            '"SelfNodeV4MasqAddrForThisPeer":"1.2.3.4","IsWireGuardOnly":true}',
        ),
        (control.Node(derp="127.3.3.40:1", home_derp=1), '"DERP":"127.3.3.40:1","HomeDERP":1}'),
        (control.DERPAdmitResponse(allow=True), '{"Allow":true}'),
    ],
)
def test_encode_spells_names_and_presence_as_go(value, text):
    encoded = encode(value).decode()
    assert encoded == text or (not text.startswith("{") and encoded.endswith(text))
    assert decode(type(value), encode(value)) == value


def test_encode_text_that_is_not_unicode_refused():
    with pytest.raises(WireError, match="not Unicode"):
        encode(control.Hostinfo(hostname="\ud800"))


def test_key_answer_round_trip(vectors):
    key = vectors("frames")["key_text"]["machine_public"]
    text = json.dumps({"legacyPublicKey": control.ZERO_MACHINE_KEY, "publicKey": key}, separators=(",", ":"))
    answer = decode(control.OverTLSPublicKey, text.encode())
    assert answer.public_key == key
    assert encode(answer) == text.encode()


def test_node_key_signature_is_padded_base64(vectors):
    signature = vectors("frames")["node_key_signature"]
    text = json.dumps({"KeySignature": signature["direct_json_base64"]}).encode()
    node = decode(control.Node, text)
    assert node.key_signature.hex() == signature["direct"]
    assert json.loads(encode(node))["KeySignature"] == signature["direct_json_base64"]


def test_auth_key_not_in_repr():
    request = control.RegisterRequest(auth=control.RegisterAuth(auth_key="tskey-secret"))
    assert "tskey-secret" not in repr(request)
    assert b'"Auth":{"AuthKey":"tskey-secret"}' in encode(request)


# --- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "field"),
    [
        (control.MapResponse, '{"Node":{"ID":5.0}}', "Node.ID"),
        (control.MapResponse, '{"Node":{"ID":5e0}}', "Node.ID"),
        (control.MapResponse, '{"Node":{"ID":"5"}}', "Node.ID"),
        (control.MapResponse, '{"Node":{"ID":9223372036854775808}}', "Node.ID"),
        (control.MapResponse, '{"OnlineChange":{"5.0":true}}', "OnlineChange"),
        (control.MapResponse, '{"PeersRemoved":[1,"2"]}', "PeersRemoved[1]"),
        (control.Hostinfo, '{"Services":[{"Proto":"tcp","Port":65536}]}', "Services[0].Port"),
        (control.Hostinfo, '{"Services":[{"Proto":"tcp","Port":-1}]}', "Services[0].Port"),
        (control.Hostinfo, '{"ShieldsUp":1}', "ShieldsUp"),
        (control.Hostinfo, '{"Container":"true"}', "Container"),
        (control.NetPortRange, '{"IP":"*","Ports":{"First":0,"Last":65536}}', "Ports.Last"),
        (control.SSHAction, '{"sessionDuration":1.5}', "sessionDuration"),
    ],
)
def test_decode_number_of_wrong_kind_names_the_field(kind, text, field):
    """Pitfall 4: integers must be written as integers."""
    with pytest.raises(WireError) as caught:
        decode(kind, text.encode())
    assert field in str(caught.value)


@pytest.mark.parametrize(
    "time",
    [
        "2024-05-01T00:00:00",
        "2024-05-01 00:00:00Z",
        "2024-05-01t00:00:00Z",
        "1-01-01T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2024-05-01T24:00:00Z",
        "2024-05-01T00:60:00Z",
        "2024-05-01T00:00:60Z",
        "2024-05-01T00:00:00+0100",
        "2024-05-01T00:00:00.Z",
        "2024-05-01T00:00:00Z\n",
        "",
    ],
)
def test_decode_bad_time_names_the_field(time):
    """Pitfall 5."""
    with pytest.raises(WireError, match="KeyExpiry is malformed, expected an RFC 3339 time"):
        decode(control.Node, json.dumps({"KeyExpiry": time}).encode())


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00Z",
        "2024-02-29T23:59:59.123456789+14:00",
        "2000-02-29T00:00:00-23:59",
        "9999-12-31T23:59:59Z",
        "2026-11-23T09:06:36.452196094Z",
    ],
)
def test_decode_good_time_kept_as_it_is(time):
    assert decode(control.Node, json.dumps({"KeyExpiry": time}).encode()).key_expiry == time


HEX = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Key", "nodekey:" + HEX[:-1]),
        ("Key", "nodekey:" + HEX + "00"),
        ("Key", "nodekey:" + HEX[:-1] + "g"),
        ("Key", "mkey:" + HEX),
        ("Key", HEX),
        ("Key", ""),
        ("Key", "nodekey:" + HEX + "\n"),
        ("Machine", "nodekey:" + HEX),
        ("DiscoKey", "discokey"),
        ("Addresses", ["100.64.0.1"]),
        ("Addresses", ["100.64.0.1/33"]),
        ("Addresses", ["100.64.0.256/32"]),
        ("Addresses", ["100.64.0.01/32"]),
        ("AllowedIPs", ["::/129"]),
        ("AllowedIPs", ["fe80::1%eth0/64"]),
        ("PrimaryRoutes", ["10.0.0.0/8 "]),
        ("Endpoints", ["1.2.3.4"]),
        ("Endpoints", ["1.2.3.4:65536"]),
        ("Endpoints", ["::1:5"]),
        ("Endpoints", ["[1.2.3.4]:5"]),
        ("Endpoints", ["example.com:5"]),
        ("SelfNodeV4MasqAddrForThisPeer", "1.2.3.4/32"),
    ],
)
def test_decode_bad_key_or_address_names_the_field(field, value):
    """Pitfalls 5 and 12: one bad text fails the document."""
    with pytest.raises(WireError) as caught:
        decode(control.MapResponse, json.dumps({"Peers": [{field: value}]}).encode())
    assert f"Peers[0].{field}" in str(caught.value)
    assert HEX[:20] not in str(caught.value), "the value itself is not repeated"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Key", "nodekey:" + HEX.upper()),
        ("Addresses", ["0.0.0.0/0", "::/0", "fd7a:115c:a1e0::1/128", "::ffff:1.2.3.4/128"]),
        ("Endpoints", ["1.2.3.4:0", "[::1]:65535", "[fe80::1%eth0]:41641", "[::ffff:1.2.3.4]:1"]),
        ("SelfNodeV6MasqAddrForThisPeer", "fd7a::1"),
    ],
)
def test_decode_good_key_or_address_taken(field, value):
    decode(control.Node, json.dumps({field: value}).encode())


@pytest.mark.parametrize("text", ["AQI", "AQ_-", "AQI=\n", "A", "!!!!", "AQI=AQI="])
def test_decode_byte_string_of_other_base64_refused(text):
    """Pitfall 8: standard alphabet, with padding."""
    with pytest.raises(WireError, match="NodeKeySignature"):
        decode(control.RegisterRequest, json.dumps({"NodeKeySignature": text}).encode())


def test_decode_ids_beyond_53_bits_exact():
    text = b'{"PeersRemoved":[9007199254740993,9223372036854775807]}'
    assert decode(control.MapResponse, text).peers_removed == (9007199254740993, 9223372036854775807)
    capability = b'{"CapMap":{"x":[18446744073709551617]}}'
    assert decode(control.Node, capability).cap_map == {"x": (18446744073709551617,)}


def test_decode_names_of_the_rust_client_taken():
    """Pitfall 7: the names that one client derives mechanically."""
    text = (
        b'{"Version":113,"HostInfo":{"IpnVersion":"1.0","Os":"linux","OsVersion":"6","NetInfo":{"PreferredDerp":7,'
        b'"DerpLatency":{"7-v4":0.01},"WorkingIpv6":true,"WorkingUdp":false}},"Endpoints":["1.2.3.4:5"]}'
    )
    request = decode(control.MapRequest, text)
    assert request.endpoints == ("1.2.3.4:5",)
    assert request.hostinfo is not None
    assert (request.hostinfo.ipn_version, request.hostinfo.os, request.hostinfo.os_version) == ("1.0", "linux", "6")
    assert request.hostinfo.net_info == control.NetInfo(
        preferred_derp=7, derp_latency={"7-v4": 0.01}, working_ipv6=True, working_udp=False
    )


def test_decode_other_case_checks_as_strictly():
    with pytest.raises(WireError, match="Version: Expected int"):
        decode(control.MapRequest, b'{"version":"5"}')
    with pytest.raises(WireError, match="Version: Expected int"):
        decode(control.MapRequest, b'{"version":5.0}')
    with pytest.raises(WireError, match="NodeKey is malformed"):
        decode(control.MapRequest, b'{"nodekey":"x"}')
    signed = decode(control.RegisterRequest, b'{"nodekeysignature":"AQI="}')
    assert signed.node_key_signature == b"\x01\x02"
    changes = decode(control.MapResponse, b'{"onlinechange":{"7":true},"PEERSREMOVED":[1]}')
    assert (changes.online_change, changes.peers_removed) == ({7: True}, (1,))


def test_decode_exact_names_take_the_one_pass_way(monkeypatch, vectors):
    def fail(*_: object) -> None:
        raise AssertionError("took the slow way")

    monkeypatch.setattr(codec, "_decode_loosely", fail)
    for message in vectors("control_recorded")["messages"]:
        if "map" in message:
            decode(control.MapResponse, json.dumps(message["map"]).encode())
    decode(control.MapResponse, b'{"SSHPolicy":{"rules":null},"PacketFilters":{"base":null},"Brandnew":{"id2":1}}')


def test_decode_unknown_names_ignored_everywhere():
    text = b'{"Future":{"a":[1]},"Node":{"Future":null,"Hostinfo":{"future":[[]]}},"KeepAlive":true}'
    assert decode(control.MapResponse, text) == control.MapResponse(
        keep_alive=True, node=control.Node(hostinfo=control.Hostinfo())
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"Peers":null,"OnlineChange":null,"UserProfiles":null,"Domain":null,"Seq":null,"KeepAlive":null}', {}),
        ('{"Peers":[null]}', {}),
        ('{"Health":null,"PacketFilter":null,"Node":null,"Debug":null}', {}),
        ('{"PeersChanged":[{"ID":1,"Addresses":null}]}', {"peers_changed": (control.Node(id=1),)}),
        ('{"PacketFilter":[{"SrcIPs":null}]}', {"packet_filter": (control.FilterRule(),)}),
        ('{"DERPMap":{"Regions":{"1":null}}}', {"derp_map": control.DERPMap(regions={})}),
    ],
)
def test_decode_null_leaves_the_default(text, wanted):
    assert decode(control.MapResponse, text.encode()) == control.MapResponse(**wanted)


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{", b"{}{}", b'{"Domain":"\xff"}', b'{"Domain":"\\ud800"}'])
def test_decode_not_an_object_refused(text):
    with pytest.raises(WireError, match="MapResponse"):
        decode(control.MapResponse, text)


def test_decode_deep_nesting_refused():
    for text in (b'{"Node":{"CapMap":{"x":' + b"[" * 100_000, b'{"x":' * 65 + b"1" + b"}" * 65):
        with pytest.raises(WireError, match="nested deeper"):
            decode(control.MapResponse, text)


def test_decode_number_of_absurd_length_refused():
    with pytest.raises(WireError):
        decode(control.MapRequest, b'{"Version":' + b"9" * 100_000 + b"}")


# --- recorded traffic -------------------------------------------------------------------------------------


def test_recorded_map_messages_survive_decoding_and_encoding(vectors):
    messages = [message["map"] for message in vectors("control_recorded")["messages"] if "map" in message]
    assert len(messages) > 3
    for message in messages:
        response = decode(control.MapResponse, json.dumps(message).encode())
        assert json.loads(encode(response)) == message


def test_recorded_register_answers_survive_decoding_and_encoding(vectors):
    found = 0
    for message in vectors("control_recorded")["messages"]:
        if "register" in message:
            answer = decode(control.RegisterResponse, json.dumps(message["register"]).encode())
            assert json.loads(encode(answer)) == message["register"]
            assert answer.machine_authorized
            found += 1
        elif "register_bad_key" in message:
            body = message["register_bad_key"]["body"].encode()
            assert decode(control.RegisterResponse, body).error == "invalid pre auth key"
            assert encode(decode(control.RegisterResponse, body)) == body.strip()
            found += 1
    assert found == 2
