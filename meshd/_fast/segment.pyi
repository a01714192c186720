"""Segmentation of what a TUN with a virtio-net header delivers."""

from _typeshed import ReadableBuffer

def split(vnet_header: ReadableBuffer, packet: ReadableBuffer) -> list[bytes]:
    """Cut one super packet into IP packets with complete checksums.

    vnet_header: 10 bytes as read (flags u8, gso_type u8, hdr_len, gso_size, csum_start, csum_offset
    u16 in host order). Without segmentation the packet comes back alone, its checksum completed when
    the header asks for it. Raises ValueError when header and packet contradict each other.
    """

def padded(length: int, mtu: int = 0) -> int:
    """Plaintext bytes that carry a packet of length bytes (WireGuard paper 5.4.6).

    Rounded up to 16, but never beyond mtu; 0 = no such limit.
    """
