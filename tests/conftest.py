"""What every test may count on: markers that skip with a reason, and a CI mode that forbids silent skips."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Programs that this project cannot install; only their tests may be skipped in CI.
OPTIONAL_PROGRAMS = (
    *("tailscaled", "tailscale", "headscale", "derper", "boringtun-cli", "gotatun"),
    "systemd-resolved",  # where it is installed it takes over the machine's /etc/resolv.conf
    *("busctl", "dbus-daemon"),  # nothing else here needs them
)
# The same for a library that not every distribution packages.
OPTIONAL_REASONS = (
    *(f"{name} is not on PATH" for name in OPTIONAL_PROGRAMS),
    "no libcrypto of BoringSSL or AWS-LC here",
)
# Started in the background of a shell we would ignore interrupts, and so would every program that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
IN_CI = os.environ.get("MESHD_CI") == "1"

# Machines are shared: how long an example takes says nothing. CI draws the same examples every time.
settings.register_profile("meshd", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=IN_CI)
settings.load_profile("meshd")


def _netns_problem() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    problem = _netns_problem()
    if problem is None:
        return
    for item in items:
        if item.get_closest_marker("netns"):
            item.add_marker(pytest.mark.skip(reason=problem))


def _machine_dns() -> tuple[bytes, float] | None:
    path = Path("/etc/resolv.conf")
    try:
        return path.read_bytes(), path.stat().st_mtime
    except OSError:
        return None


@pytest.fixture(autouse=True)
def _machine_dns_untouched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Daemons of tests that change the host's DNS have hosts with files of their own; the machine's is not theirs."""
    if request.node.get_closest_marker("netns") is None:
        yield
        return
    before = _machine_dns()
    yield
    assert _machine_dns() == before, "this test changed /etc/resolv.conf of the machine"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(optional in reason for optional in OPTIONAL_REASONS):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, which CI does not allow: {reason}"
    return report
