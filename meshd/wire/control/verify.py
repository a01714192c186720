"""The question a relay asks its coordination server: may this client use it?"""

from __future__ import annotations

import msgspec

from meshd.wire.control.names import wire_name
from meshd.wire.control.values import IPText, NodeKeyText, always


class DERPAdmitRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """A client and the address it came from."""

    node_public: NodeKeyText = always("")
    source: IPText = always("")


class DERPAdmitResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False):
    """The verdict."""

    allow: bool = always(False)
