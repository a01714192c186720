"""From via addresses to IPv4 hosts, from C only; see viain.pxd."""
