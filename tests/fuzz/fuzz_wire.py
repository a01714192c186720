"""Fuzz targets of the codecs: one function per parser, any bytes in, nothing but `WireError` out.

The unit suite drives them with a few hundred inputs each. For a long run:

    python tests/fuzz/fuzz_wire.py fuzz_derp_frames [corpus directory] [atheris options]
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from meshd.base.errors import WireError
from meshd.base.keys import MachinePrivate
from meshd.wire import control, derp, disco, ippacket, noise, stun, tsmp, wireguard
from meshd.wire.control import codec
from meshd.wire.derpinfo import ClientInfo, ServerInfo, decode_info
from meshd.wire.earlypayload import EarlyPayloadReader
from meshd.wire.mapframe import MapFrameReader
from meshd.wire.zstd import decompress

_refused = contextlib.suppress(WireError)
_MACHINE = MachinePrivate(bytes(31) + b"\x40")
_RESPONDER = noise.Responder(_MACHINE)
_INITIATOR = noise.Initiator(_MACHINE, _MACHINE.public(), 113)


def fuzz_noise_initiation(data: bytes) -> None:
    with _refused:
        _RESPONDER.respond(data)


def fuzz_noise_response(data: bytes) -> None:
    with _refused:
        _INITIATOR.finish(data)


def fuzz_noise_records(data: bytes) -> None:
    with _refused:
        noise.RecordReader().feed(data)


def fuzz_early_payload(data: bytes) -> None:
    with _refused:
        EarlyPayloadReader().feed(data)


def fuzz_map_frames(data: bytes) -> None:
    for zstd in (False, True):
        with _refused:
            MapFrameReader(zstd, limit=1 << 16).feed(data)


def fuzz_zstd(data: bytes) -> None:
    with _refused:
        assert len(decompress(data, 1 << 16)) <= 1 << 16


def _fuzz_control(kind: type, data: bytes) -> None:
    with _refused:
        value = control.decode(kind, data)
        assert control.decode(kind, control.encode(value)) == value


def fuzz_map_response(data: bytes) -> None:
    _fuzz_control(control.MapResponse, data)


def fuzz_map_response_loosely(data: bytes) -> None:
    """The second way through, which decides the same as the first where both take the input."""
    loose: object = None
    with _refused:
        loose = codec._decode_loosely(control.MapResponse, data)
    with _refused:
        assert control.decode(control.MapResponse, data) == loose


def fuzz_map_request(data: bytes) -> None:
    _fuzz_control(control.MapRequest, data)


def fuzz_register_request(data: bytes) -> None:
    _fuzz_control(control.RegisterRequest, data)


def fuzz_register_response(data: bytes) -> None:
    _fuzz_control(control.RegisterResponse, data)


def fuzz_server_key(data: bytes) -> None:
    _fuzz_control(control.OverTLSPublicKey, data)


def fuzz_derp_frames(data: bytes) -> None:
    with _refused:
        derp.FrameReader(limit=1 << 16).feed(data)


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


def fuzz_derp_info(data: bytes) -> None:
    for kind in (ClientInfo, ServerInfo):
        with _refused:
            decode_info(kind, data)


def fuzz_disco(data: bytes) -> None:
    with _refused:
        disco.split(data)
    with _refused:
        message = disco.decode_message(data)
        assert disco.decode_message(disco.encode_message(message)) == message


def fuzz_stun(data: bytes) -> None:
    stun.is_stun(data)
    with _refused:
        stun.decode_request(data)
    with _refused:
        txid, seen = stun.decode_response(data)
        assert stun.decode_response(stun.encode_response(txid, seen)) == (txid, seen)


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


def fuzz_ip_packet(data: bytes) -> None:
    with _refused:
        packet = ippacket.decode_ip(data)
        for decode in (ippacket.decode_echo, ippacket.decode_udp):
            with _refused:
                decode(packet)


def fuzz_tsmp(data: bytes) -> None:
    with _refused:
        message = tsmp.decode_tsmp(data)
        if message is not None:
            assert tsmp.decode_tsmp(tsmp.encode_tsmp(message)) == message


TARGETS: dict[str, Callable[[bytes], None]] = {
    name: target for name, target in list(globals().items()) if name.startswith("fuzz_")
}


def main() -> None:
    """Run one target under atheris."""
    import atheris

    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit("usage: fuzz_wire.py TARGET [corpus] [options]\ntargets: " + " ".join(TARGETS))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
