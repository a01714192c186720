from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import WireError
from meshd.base.keys import MachinePrivate, MachinePublic
from meshd.wire import noise

MACHINE = MachinePrivate.generate()
CONTROL = MachinePrivate.generate()


def _keys(vectors):
    keys = vectors("noise_ik")["keys"]
    return {name: bytes.fromhex(pair["private"]) for name, pair in keys.items()}


def _handshake(version: int = 113):
    initiator = noise.Initiator(MACHINE, CONTROL.public(), version)
    reply, machine, seen, server = noise.Responder(CONTROL).respond(initiator.message())
    assert (machine, seen) == (MACHINE.public().raw, version)
    return initiator.finish(reply), server


@pytest.mark.parametrize("index", range(3))
def test_handshake_vectors_equal_byte_for_byte(vectors, index):
    keys = _keys(vectors)
    wanted = vectors("noise_ik")["handshakes"][index]
    control = MachinePrivate(keys["control_static"])
    initiator = noise.Initiator(
        MachinePrivate(keys["machine_static"]), control.public(), wanted["version"], keys["machine_ephemeral"]
    )
    assert initiator.message().hex() == wanted["initiation"]
    reply, machine, version, server = noise.Responder(control).respond(initiator.message(), keys["control_ephemeral"])
    assert reply.hex() == wanted["response"]
    assert MachinePublic(machine) == MachinePrivate(keys["machine_static"]).public()
    assert version == wanted["version"]
    client = initiator.finish(reply)
    assert client.handshake_hash.hex() == server.handshake_hash.hex() == wanted["handshake_hash"]


@pytest.mark.parametrize("index", range(3))
def test_record_vectors_both_directions(vectors, index):
    wanted = vectors("noise_ik")["handshakes"][index]
    c2s, s2c = (bytes.fromhex(wanted[f"key_{d}"]) for d in ("client_to_server", "server_to_client"))
    for record in wanted["records"]:
        client, server = noise.Transport(c2s, s2c, b""), noise.Transport(s2c, c2s, b"")
        sender, receiver = (client, server) if record["dir"] == "c2s" else (server, client)
        sender._seal_counter = receiver._open_counter = record["counter"]
        frame = sender.seal(bytes.fromhex(record["plaintext"]))
        assert frame.hex() == record["frame"]
        assert receiver.open(frame[noise.RECORD_HEADER_SIZE :]).hex() == record["plaintext"]


def test_record_of_maximum_size_fills_one_frame(vectors):
    wanted = vectors("noise_ik")["handshakes"][0]["max_record"]
    client, server = _handshake()
    frame = client.seal(bytes(wanted["plaintext_len"]))
    assert len(frame) == wanted["frame_len"] == noise.MAX_FRAME
    assert frame[:3].hex() == wanted["header"]
    assert server.open(frame[3:]) == bytes(noise.MAX_PLAINTEXT)
    with pytest.raises(WireError):
        client.seal(bytes(noise.MAX_PLAINTEXT + 1))


def test_record_counter_at_its_end_refused():
    client, _ = _handshake()
    client._seal_counter = 2**64 - 2
    client.seal(b"last")
    with pytest.raises(WireError, match="used up"):
        client.seal(b"one too many")


def test_record_replayed_or_altered_refused():
    client, server = _handshake()
    sealed = client.seal(b"once")[3:]
    assert server.open(sealed) == b"once"
    with pytest.raises(WireError, match="authenticate"):
        server.open(sealed)
    altered = bytearray(client.seal(b"twice")[3:])
    altered[0] ^= 1
    with pytest.raises(WireError):
        server.open(bytes(altered))


@pytest.mark.parametrize("position", [0, 1, 2, 4, 5, 36, 37, 84, 85, 100])
def test_responder_initiation_altered_anywhere_refused(position):
    message = bytearray(noise.Initiator(MACHINE, CONTROL.public(), 113).message())
    message[position] ^= 1
    with pytest.raises(WireError):
        noise.Responder(CONTROL).respond(bytes(message))


def test_responder_for_another_server_refused():
    message = noise.Initiator(MACHINE, CONTROL.public(), 113).message()
    with pytest.raises(WireError, match="machine key does not authenticate"):
        noise.Responder(MachinePrivate.generate()).respond(message)


@pytest.mark.parametrize("size", [0, 4, 100, 102])
def test_responder_initiation_of_wrong_length_refused(size):
    message = noise.Initiator(MACHINE, CONTROL.public(), 113).message() + b"x"
    with pytest.raises(WireError):
        noise.Responder(CONTROL).respond(message[:size])


def test_responder_low_order_ephemeral_refused():
    message = bytearray(noise.Initiator(MACHINE, CONTROL.public(), 113).message())
    message[5:37] = bytes(32)
    with pytest.raises(WireError, match="low order"):
        noise.Responder(CONTROL).respond(bytes(message))


def test_initiator_error_message_becomes_text():
    initiator = noise.Initiator(MACHINE, CONTROL.public(), 113)
    with pytest.raises(WireError, match="refused the handshake: 'too old'"):
        initiator.finish(b"\x03\x00\x07too old")


def test_initiator_response_altered_refused():
    initiator = noise.Initiator(MACHINE, CONTROL.public(), 113)
    reply = bytearray(noise.Responder(CONTROL).respond(initiator.message())[0])
    reply[-1] ^= 1
    with pytest.raises(WireError, match="handshake response"):
        initiator.finish(bytes(reply))


@pytest.mark.parametrize("version", [0, 65536, -1])
def test_initiator_version_outside_header_refused(version):
    with pytest.raises(ValueError, match="version"):
        noise.Initiator(MACHINE, CONTROL.public(), version)


def test_record_reader_bytewise_gives_whole_records():
    client, _ = _handshake()
    stream = client.seal(b"a") + client.seal(b"") + client.seal(b"ccc")
    reader = noise.RecordReader()
    records = [record for byte in stream for record in reader.feed(bytes([byte]))]
    assert [len(record) for record in records] == [17, 16, 19]


@pytest.mark.parametrize("header", ["030010", "04000f", "040ffe", "04ffff"])
def test_record_reader_bad_header_refused(header):
    with pytest.raises(WireError):
        noise.RecordReader().feed(bytes.fromhex(header))


@given(st.lists(st.binary(max_size=9000), max_size=4), st.integers(1, 5000))
def test_stream_cipher_any_cut_gives_the_same_bytes(pieces, cut):
    client, server = _handshake()
    sender, receiver = noise.StreamCipher(client), noise.StreamCipher(server)
    stream = b"".join(map(sender.seal_stream, pieces))
    plain = b"".join(receiver.open_stream(stream[i : i + cut]) for i in range(0, len(stream), cut))
    assert plain == b"".join(pieces)


def test_secrets_not_in_repr():
    machine = MachinePrivate(os.urandom(32))
    initiator = noise.Initiator(machine, CONTROL.public(), 113)
    reply, _, _, server = noise.Responder(CONTROL).respond(initiator.message())
    text = repr(initiator) + repr(initiator.finish(reply)) + repr(server)
    assert machine.raw.hex() not in text
    assert repr(machine.raw) not in text
    assert repr(server._seal_key) not in text
