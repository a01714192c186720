"""`mesh-coord serve`."""

from __future__ import annotations

from pathlib import Path

import click

from meshd.coord.cli.output import DURATION, state_dir_option


@click.command()
@state_dir_option
@click.option(
    "--listen", default="0.0.0.0:8080", show_default=True, metavar="ADDR:PORT", help="TCP address to serve on."
)
@click.option("--url", metavar="URL", help="Address that clients use, e.g. http://192.0.2.1:8080.")
@click.option(
    "--stun-port", type=click.IntRange(-1, 65535), default=3478, show_default=True, help="UDP port; 0 = any, -1 = off."
)
@click.option("--derp", type=click.Choice(["on", "off"]), default="on", show_default=True, help="The built-in relay.")
@click.option(
    "--policy", "policy_file", type=click.Path(path_type=Path, dir_okay=False), help="Access policy file (HuJSON)."
)
@click.option("--base-domain", default="mesh.internal", show_default=True, help="DNS suffix of the machines' names.")
@click.option(
    "--node-key-expiry", type=DURATION, default=0.0, show_default="never", help="Machines log in again after this."
)
@click.option(
    "--ephemeral-timeout",
    type=DURATION,
    default=1800.0,
    show_default="30m",
    help="Absent ephemeral machines are deleted after this.",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificate chain (PEM) instead of a self-signed one.",
)
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="Its private key (PEM).")
@click.option("--verbose", "-v", is_flag=True, help="Log every event.")
def serve(
    state_dir: Path,
    listen: str,
    url: str | None,
    stun_port: int,
    derp: str,
    policy_file: Path | None,
    base_domain: str,
    node_key_expiry: float,
    ephemeral_timeout: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    verbose: bool,
) -> None:
    """Run the server. Prints one line that joins a machine; logs go to stderr."""
    from meshd.coord.options import PublicAddress, ServeOptions, check_domain
    from meshd.coord.serve import run
    from meshd.io.listenaddress import parse_listen

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    host, port = parse_listen(listen)
    if url is None:
        if host in ("", "0.0.0.0", "::"):
            raise click.UsageError("--url is needed: say under which address clients reach this server")
        if port == 0:
            raise click.UsageError("--url is needed with --listen on port 0")
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    run(
        ServeOptions(
            state_dir=state_dir,
            listen_host=host,
            listen_port=port,
            address=PublicAddress.parse(url),
            stun_port=stun_port,
            derp=derp == "on",
            policy_file=policy_file,
            base_domain=check_domain(base_domain),
            node_key_lifetime_s=node_key_expiry,
            ephemeral_timeout_s=ephemeral_timeout,
            tls_certificate=tls_cert,
            tls_key=tls_key,
        ),
        verbose=verbose,
    )
