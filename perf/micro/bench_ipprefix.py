"""Prefix arithmetic as Python sees it."""

from __future__ import annotations

import pyperf

from meshd._fast.ipprefix import Prefix, format_address, parse_address, summarize


def main() -> None:
    runner = pyperf.Runner()
    wide, narrow = Prefix.parse("10.0.0.0/8"), Prefix.parse("10.1.2.0/24")
    address = parse_address("10.1.2.3")
    runner.bench_func("parse_address ipv4", parse_address, "100.101.102.103")
    runner.bench_func("parse_address ipv6", parse_address, "fd7a:115c:a1e0::1234:5678")
    runner.bench_func("Prefix.parse", Prefix.parse, "10.1.2.0/24")
    runner.bench_func("format_address", format_address, address)
    runner.bench_func("contains prefix", wide.contains, narrow)
    runner.bench_func("contains address", wide.__contains__, address)
    runner.bench_func("subtract /24 from /8", wide.subtract, narrow)
    runner.bench_func("summarize worst range", summarize, bytes([0, 0, 0, 1]), bytes([255, 255, 255, 254]))


if __name__ == "__main__":
    main()
