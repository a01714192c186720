"""Translation between IPv4 and IPv6 headers, from C only; see translate.pxd."""
