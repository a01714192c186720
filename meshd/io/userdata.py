"""The user data of a cloud machine, from the metadata service of EC2 and those that are like it (IMDSv2).

The service is asked past the tunnel: an exit node must not be the one that answers, since what it says configures us.
"""

from __future__ import annotations

import http.client
import time
from contextlib import closing

SOURCE = "vm:user-data"
SERVICE = "169.254.169.254"
PATIENCE_S = 3.0
MAX_BYTES = 1 << 20
_TOKEN_LIFE = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}


def read_user_data(host: str = SERVICE, port: int = 80) -> bytes:
    """What the owner of the machine gave it. FileNotFoundError when there is nothing, or no such service; OSError."""
    try:
        status, token = _ask(host, port, "PUT", "/latest/api/token", _TOKEN_LIFE)
        headers = {"X-aws-ec2-metadata-token": token.decode("ascii", "replace").strip()} if status == 200 else {}
        status, data = _ask(host, port, "GET", "/latest/user-data", headers)
    except (TimeoutError, ConnectionRefusedError) as error:
        raise FileNotFoundError(f"no metadata service: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OSError(f"the metadata service cannot be read: {error}") from None
    if status == 404 or (status == 200 and not data.strip()):
        raise FileNotFoundError("this machine has no user data")
    if status != 200:
        raise OSError(f"the metadata service answers with HTTP {status}")
    return data


def _ask(host: str, port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    from meshd.io.http.h1blocking import connect_blocking

    with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE_S)) as connection:
        connection.sock = connect_blocking((host, port), time.monotonic() + PATIENCE_S)
        connection.sock.settimeout(PATIENCE_S)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BYTES + 1)
