"""meshd: a WireGuard mesh network node that speaks the Tailscale protocols."""
