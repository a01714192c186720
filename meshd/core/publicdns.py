"""Public resolvers that can be asked over HTTPS at the addresses at which they answer plain DNS.

The providers publish them; only those stand here whose HTTPS service is at the very same addresses.
"""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address, ip_network

from meshd.base.addr import IPAddress

_PROVIDERS = {
    "https://cloudflare-dns.com/dns-query": "1.1.1.1 1.0.0.1 2606:4700:4700::1111 2606:4700:4700::1001",
    "https://security.cloudflare-dns.com/dns-query": "1.1.1.2 1.0.0.2 2606:4700:4700::1112 2606:4700:4700::1002",
    "https://family.cloudflare-dns.com/dns-query": "1.1.1.3 1.0.0.3 2606:4700:4700::1113 2606:4700:4700::1003",
    "https://dns.google/dns-query": "8.8.8.8 8.8.4.4 2001:4860:4860::8888 2001:4860:4860::8844",
    "https://dns.quad9.net/dns-query": "9.9.9.9 149.112.112.112 2620:fe::fe 2620:fe::9",
    "https://dns11.quad9.net/dns-query": "9.9.9.11 149.112.112.11 2620:fe::11 2620:fe::fe:11",
    "https://dns10.quad9.net/dns-query": "9.9.9.10 149.112.112.10 2620:fe::10 2620:fe::fe:10",
    "https://dns.mullvad.net/dns-query": "194.242.2.2 2a07:e340::2",
    "https://adblock.dns.mullvad.net/dns-query": "194.242.2.3 2a07:e340::3",
    "https://base.dns.mullvad.net/dns-query": "194.242.2.4 2a07:e340::4",
    "https://extended.dns.mullvad.net/dns-query": "194.242.2.5 2a07:e340::5",
    "https://family.dns.mullvad.net/dns-query": "194.242.2.6 2a07:e340::6",
    "https://all.dns.mullvad.net/dns-query": "194.242.2.9 2a07:e340::9",
    "https://wikimedia-dns.org/dns-query": "185.71.138.138 2001:67c:930::1",
    "https://freedns.controld.com/p0": "76.76.2.0 76.76.10.0 2606:1a40:: 2606:1a40:1::",
    "https://freedns.controld.com/p1": "76.76.2.1 76.76.10.1 2606:1a40::1 2606:1a40:1::1",
    "https://freedns.controld.com/p2": "76.76.2.2 76.76.10.2 2606:1a40::2 2606:1a40:1::2",
    "https://freedns.controld.com/p3": "76.76.2.3 76.76.10.3 2606:1a40::3 2606:1a40:1::3",
    "https://freedns.controld.com/family": "76.76.2.4 76.76.10.4 2606:1a40::4 2606:1a40:1::4",
    "https://private.canadianshield.cira.ca/dns-query": (
        "149.112.121.10 149.112.122.10 2620:10a:80bb::10 2620:10a:80bc::10"
    ),
    "https://protected.canadianshield.cira.ca/dns-query": (
        "149.112.121.20 149.112.122.20 2620:10a:80bb::20 2620:10a:80bc::20"
    ),
    "https://family.canadianshield.cira.ca/dns-query": (
        "149.112.121.30 149.112.122.30 2620:10a:80bb::30 2620:10a:80bc::30"
    ),
}
_BY_URL = {url: tuple(map(ip_address, text.split())) for url, text in _PROVIDERS.items()}
_BY_ADDRESS = {address: url for url, addresses in _BY_URL.items() for address in addresses}

# A customer of NextDNS is a number: in the path of the URL, and in the last 12 bytes of IPv6 addresses.
_NEXTDNS = "https://dns.nextdns.io/"
_NEXTDNS_V6 = (IPv6Network("2a07:a8c0::/33"), IPv6Network("2a07:a8c1::/33"))
_NEXTDNS_V4 = (ip_address("45.90.28.0"), ip_address("45.90.30.0"))
_CONTROLD = "https://dns.controld.com/"
_CONTROLD_ADDRESSES = tuple(map(ip_address, ("76.76.2.22", "76.76.10.22", "2606:1a40::22", "2606:1a40:1::22")))

_HTTPS_ONLY = frozenset(map(ip_address, ("76.76.2.22", "76.76.10.22", "185.71.138.138", "2001:67c:930::1")))
_HTTPS_ONLY_NETWORKS = (
    *_NEXTDNS_V6,
    *map(ip_network, ("45.90.28.0/24", "45.90.30.0/24", "2606:1a40::/48", "2606:1a40:1::/48")),
)


def doh_url(address: IPAddress) -> tuple[str, bool] | None:
    """Where a resolver can be asked over HTTPS, and whether it answers nothing else; None for one that is not known."""
    url = _BY_ADDRESS.get(address)
    if url is not None:
        return url, False
    if address.version == 6 and any(address in network for network in _NEXTDNS_V6):
        return _NEXTDNS + address.packed[4:].lstrip(b"\0").hex(), True
    return None


def is_https_only(address: IPAddress) -> bool:
    """Whether a resolver is not to be asked in plain DNS by programs that know nothing of it."""
    return address in _HTTPS_ONLY or any(address in network for network in _HTTPS_ONLY_NETWORKS)


def doh_addresses(url: str) -> tuple[IPAddress, ...]:
    """The addresses at which a known provider is asked under this URL; none for others."""
    known = _BY_URL.get(url)
    if known is not None:
        return known
    if url.startswith(_CONTROLD):
        return _CONTROLD_ADDRESSES
    if url.startswith(_NEXTDNS):
        customer = url.removeprefix(_NEXTDNS).partition("?")[0].partition("/")[0]
        try:
            number = bytes.fromhex(customer)
        except ValueError:
            return ()
        if customer and customer.isalnum() and len(number) <= 12:
            low = int.from_bytes(number, "big")
            return (*_NEXTDNS_V4, *(network.network_address + low for network in _NEXTDNS_V6))
    return ()
