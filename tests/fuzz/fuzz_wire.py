"""Fuzz targets of the wire protocols: any bytes in, nothing but `WireError` out.

What a reader of a stream decides may not depend on how the stream was cut: such targets read everything twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from meshd._fast import derpframes
from meshd.base.errors import WireError
from meshd.base.keys import MachinePrivate
from meshd.cli.dnsanswer import read_answers
from meshd.wire import control, derp, disco, dnsmessage, dnsresponse, ippacket, noise, stun, tsmp, wireguard
from meshd.wire.control import codec
from meshd.wire.derpinfo import ClientInfo, ServerInfo, decode_info
from meshd.wire.earlypayload import EarlyPayloadReader
from meshd.wire.mapframe import MapFrameReader
from meshd.wire.zstd import compress, decompress
from tests.fuzz.documents import control_messages, map_messages
from tests.fuzz.target import recorded, target, vector
from tests.reference import derpframes as derptwin

_refused = contextlib.suppress(WireError)
_MACHINE = MachinePrivate(bytes(31) + b"\x40")
_RESPONDER = noise.Responder(_MACHINE)
_INITIATOR = noise.Initiator(_MACHINE, _MACHINE.public(), 113)


_SERVER_KEY = b'{"legacyPublicKey":"mkey:%s","publicKey":"mkey:%s"}' % (b"0" * 64, b"ab" * 32)
_KEY = b'"nodekey:%s"' % (b"ab" * 32)
_HOSTINFO = (
    b'{"IPNVersion":"1.9","OS":"linux","Hostname":"a","RoutableIPs":["10.0.0.0/8"],"RequestTags":["tag:a"],'
    b'"Services":[{"Proto":"tcp","Port":22,"Description":"sshd"}],"NetInfo":{"PreferredDERP":1,"WorkingUDP":true,'
    b'"DERPLatency":{"1-v4":0.01}},"Userspace":false}'
)


def _early_payloads() -> list[bytes]:
    payload = bytes.fromhex(vector("frames")["early_payload"])
    return [payload, payload + b"PRI * HTTP/2.0", payload[:9]]


def _framed() -> list[bytes]:
    texts = [b"x", b'{"KeepAlive":true}', bytes(300), *map_messages()[:3]]
    plain = [len(text).to_bytes(4, "little") + text for text in texts]
    packed = [len(text).to_bytes(4, "little") + text for text in _compressed()]
    return [*plain, *packed, plain[0] + plain[1], packed[0] + packed[1], *recorded()]


def _compressed() -> list[bytes]:
    return [compress(text) for text in (b"", b"x", b"ab" * 200, bytes(40_000), *map_messages()[:3])]


def _map_requests() -> list[bytes]:
    return [
        b'{"Version":113,"Compress":"zstd","KeepAlive":true,"Stream":true,"NodeKey":%s}' % _KEY,
        b'{"Version":113,"Endpoints":["1.2.3.4:5","[::1]:6"],"EndpointTypes":[1,2],"OmitPeers":true}',
        b'{"Version":113,"Hostinfo":%s}' % _HOSTINFO,
    ]


def _register_requests() -> list[bytes]:
    return [
        b'{"Version":113,"NodeKey":%s,"OldNodeKey":%s,"Expiry":"2024-02-29T00:00:00Z","Followup":""}' % (_KEY, _KEY),
        b'{"Version":113,"Auth":{"AuthKey":"k"},"Ephemeral":true,"Timestamp":"2024-02-29T00:00:00.5Z"}',
        b'{"Version":113,"Hostinfo":%s,"NodeKeySignature":"AQI=","DeviceCert":null}' % _HOSTINFO,
    ]


def _derp_info() -> list[bytes]:
    vectors = vector("derp")
    return [
        *(vectors[name].encode() for name in ("client_info_json", "server_info_json")),
        b'{"meshKey":"a","version":2,"CanAckPings":true,"IsProber":false,"AppName":"x"}',
        b'{"version":2,"TokenBucketBytesPerSecond":1,"TokenBucketBytesBurst":2}',
    ]


def in_two(make: Callable[[], Any], data: bytes) -> None:
    """Feed a new reader with everything, another one with two parts: both refuse, or both have the same to say."""
    cut = data[0] % (len(data) + 1) if data else 0
    whole: Any = None
    with _refused:
        whole = make().feed(data)
    if data:
        parts: Any = None
        with _refused:
            reader = make()
            first = reader.feed(data[:cut])
            parts = first + reader.feed(data[cut:])
        assert whole == parts


@target(limit=120)
def fuzz_noise_initiation(data: bytes) -> None:
    with _refused:
        _RESPONDER.respond(data)


@target(limit=120)
def fuzz_noise_response(data: bytes) -> None:
    with _refused:
        _INITIATOR.finish(data)


@target()
def fuzz_noise_records(data: bytes) -> None:
    in_two(noise.RecordReader, data)


@target(seeds=_early_payloads)
def fuzz_early_payload(data: bytes) -> None:
    cut = data[-1] % (len(data) + 1) if data else 0
    whole: Any = None
    with _refused:
        whole = EarlyPayloadReader().feed(data)
    parts: Any = None
    with _refused:
        reader = EarlyPayloadReader()
        parts = reader.feed(data[:cut])
        if parts is None:
            parts = reader.feed(data[cut:])
        else:
            parts = parts[0], parts[1] + data[cut:]
    assert whole == parts


@target(seeds=_framed)
def fuzz_map_frames(data: bytes) -> None:
    in_two(lambda: MapFrameReader(False, limit=1 << 16), data)


@target(seeds=_framed)
def fuzz_map_frames_zstd(data: bytes) -> None:
    in_two(lambda: MapFrameReader(True, limit=1 << 16), data)


@target(seeds=_compressed)
def fuzz_zstd(data: bytes) -> None:
    with _refused:
        assert len(decompress(data, 1 << 16)) <= 1 << 16


def _fuzz_control(kind: type, data: bytes) -> None:
    with _refused:
        value = control.decode(kind, data)
        assert control.decode(kind, control.encode(value)) == value


@target(seeds=map_messages, text=True)
def fuzz_map_response(data: bytes) -> None:
    _fuzz_control(control.MapResponse, data)


@target(seeds=map_messages, text=True)
def fuzz_map_response_loosely(data: bytes) -> None:
    """The second way through decides the same as the first where both take the input.

    The first does not look into names that it skips; the second refuses them when they are not UTF-8.
    """
    with _refused:
        loose = codec._decode_loosely(control.MapResponse, data)
        assert control.decode(control.MapResponse, data) == loose


@target(seeds=_map_requests, text=True)
def fuzz_map_request(data: bytes) -> None:
    _fuzz_control(control.MapRequest, data)


@target(seeds=_register_requests, text=True)
def fuzz_register_request(data: bytes) -> None:
    _fuzz_control(control.RegisterRequest, data)


@target(seeds=lambda: control_messages("register"), text=True)
def fuzz_register_response(data: bytes) -> None:
    _fuzz_control(control.RegisterResponse, data)


@target(seeds=lambda: [_SERVER_KEY], text=True)
def fuzz_server_key(data: bytes) -> None:
    _fuzz_control(control.OverTLSPublicKey, data)


@target()
def fuzz_derp_frames(data: bytes) -> None:
    in_two(lambda: derp.FrameReader(limit=1 << 16), data)


def _relayed() -> list[bytes]:
    """What a relay sends: messages of all kinds, alone and in bundles."""

    def frame(kind: int, body: bytes) -> bytes:
        return bytes([kind]) + len(body).to_bytes(4, "big") + body

    def received(packet: bytes, source: int = 1) -> bytes:
        return frame(5, bytes([source]) * 32 + packet)

    message = b"\4\0\0\0" + bytes(range(44))
    bundles = [bytes((derpframes.BUNDLE_TYPE, 0, 0, size)) + message * 3 for size in (0, 1, 47, 48, 49, 255)]
    frames = [
        received(message),
        received(message, 2),
        received("TS💬 disco".encode() + bytes(40)),
        received(b"\1\0\0\0" + bytes(144)),
        received(b""),
        frame(6, b""),
        frame(8, b"\1" * 32 + b"\1"),
        frame(0x99, b"new"),
        *map(received, bundles),
    ]
    return [*frames, b"".join(frames[:3]), b"".join(frames[-6:-2]), frames[5] * 3 + frames[-3] + frames[0][:20]]


@target(seeds=_relayed)
def fuzz_derp_split(data: bytes) -> None:
    found, wanted = derpframes.split_frames(data), derptwin.split_frames(data)
    assert list(found.transport) == wanted.transport
    assert len(found.transport) == len(wanted.transport)
    assert found[:2] == wanted[:2]
    assert found[3:] == wanted[3:]


@target()
def fuzz_derp_payloads(data: bytes) -> None:
    decoders: tuple[Callable[[bytes], object], ...] = (
        derp.decode_server_key,
        derp.split_client_info,
        derp.decode_send_packet,
        derp.decode_recv_packet,
        derp.decode_forward_packet,
        derp.decode_note_preferred,
        derp.decode_peer_gone,
        derp.decode_peer_present,
        derp.decode_close_peer,
        derp.decode_ping,
        derp.decode_health,
        derp.decode_restarting,
    )
    for decode in decoders:
        with _refused:
            decode(data)
    with _refused:
        derp.decode_server_info(bytes(32), data)


@target(seeds=_derp_info, text=True)
def fuzz_derp_info(data: bytes) -> None:
    for kind in (ClientInfo, ServerInfo):
        with _refused:
            decode_info(kind, data)


@target()
def fuzz_disco(data: bytes) -> None:
    with _refused:
        disco.split(data)
    with _refused:
        message = disco.decode_message(data)
        assert disco.decode_message(disco.encode_message(message)) == message


@target()
def fuzz_stun(data: bytes) -> None:
    stun.is_stun(data)
    with _refused:
        stun.decode_request(data)
    with _refused:
        txid, seen = stun.decode_response(data)
        assert stun.decode_response(stun.encode_response(txid, seen)) == (txid, seen)


@target()
def fuzz_wireguard(data: bytes) -> None:
    kind = wireguard.message_type(data)
    decoders: tuple[Callable[[bytes], object], ...] = (
        wireguard.decode_initiation,
        wireguard.decode_response,
        wireguard.decode_cookie_reply,
        wireguard.decode_transport_header,
    )
    for number, decode in enumerate(decoders, 1):
        if kind == number:
            decode(data)
        else:
            with _refused:
                raise AssertionError(f"took a message of type {kind} for {number}: {decode(data)!r}")


@target()
def fuzz_ip_packet(data: bytes) -> None:
    with _refused:
        packet = ippacket.decode_ip(data)
        for decode in (ippacket.decode_echo, ippacket.decode_udp):
            with _refused:
                decode(packet)


_DNS_QUERY = dnsmessage.encode_query(1, "node.mesh.test", 1)
_DNS_QUESTION = _DNS_QUERY[12:]


def _dns_queries() -> list[bytes]:
    plain = [
        dnsmessage.encode_query(7, name, kind) for name in ("a", "a.b.mesh.test", ".") for kind in (1, 28, 12, 255)
    ]
    # One additional record: OPT (RFC 6891) with a size and an option.
    options = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x08\0\x0a\0\x04abcd"
    return [*plain, *(query[:11] + b"\1" + query[12:] + options for query in plain)]


@target(seeds=_dns_queries)
def fuzz_dns_query(data: bytes) -> None:
    with _refused:
        query = dnsmessage.decode_query(data)
        answer = dnsmessage.encode_response(query, dnsmessage.SUCCESS, [dnsmessage.Record(1, 5, bytes(4))])
        assert dnsresponse.answers(data, query.question, answer)
        assert len(dnsresponse.cut(answer, query.question, query.udp_limit)) <= query.udp_limit
        lowered = dnsmessage.with_payload(data, query, 600)
        assert dnsmessage.decode_query(lowered).question == query.question
    dnsmessage.refusal(data, dnsmessage.FORMAT_ERROR)


def _dns_answers() -> list[bytes]:
    address = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x64\x40\0\1"
    alias = b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\6\3abc\xc0\x11"
    text = b'\xc0\x0c\0\x10\0\1\0\0\0\x3c\0\5\4a"\\b'
    service = b"\xc0\x0c\0\x21\0\1\0\0\0\x3c\0\x0a\0\1\0\2\0\x50\1a\xc0\x0c"
    mail = b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\4\0\5\xc0\x0c"
    head = _DNS_QUERY[:2] + b"\x81\x80\0\1"
    return [
        head + bytes([0, len(records)]) + bytes(4) + _DNS_QUESTION + b"".join(records)
        for records in ([], [address], [alias, address], [text], [service], [mail], [address] * 30)
    ]


@target(seeds=_dns_answers)
def fuzz_dns_response(data: bytes) -> None:
    for message in (data, data[:12] + _DNS_QUESTION + data[12:]):
        if dnsresponse.answers(_DNS_QUERY, _DNS_QUESTION, message):
            assert len(dnsresponse.cut(message, _DNS_QUESTION, 512)) <= 512
            assert len(dnsresponse.for_asker(message, 2, _DNS_QUESTION)) == len(message)
        dnsresponse.answers_without_question(_DNS_QUERY, message)
    with contextlib.suppress(ValueError):
        for answer in read_answers(data)[1]:
            assert answer.body.isprintable()


@target()
def fuzz_tsmp(data: bytes) -> None:
    with _refused:
        message = tsmp.decode_tsmp(data)
        if message is not None:
            assert tsmp.decode_tsmp(tsmp.encode_tsmp(message)) == message
