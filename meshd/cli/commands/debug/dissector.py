"""What Wireshark must be told to read a capture of ours: a dissector for the few bytes before each packet."""

from __future__ import annotations

SOURCE = """\
-- For captures of "mesh debug capture" (link type USER0): a direction, two addresses, then an IP packet or disco frame.
local mesh = Proto("meshd", "Mesh packet")
local directions = {
  [0] = "from this host", [1] = "from a peer", [2] = "made for this host", [3] = "made for a peer", [254] = "disco"
}
mesh.fields.path = ProtoField.uint16("meshd.path", "Path", base.DEC, directions)
mesh.fields.snat4 = ProtoField.ipv4("meshd.snat4", "Source before translation")
mesh.fields.snat6 = ProtoField.ipv6("meshd.snat6", "Source before translation")
mesh.fields.dnat4 = ProtoField.ipv4("meshd.dnat4", "Destination before translation")
mesh.fields.dnat6 = ProtoField.ipv6("meshd.dnat6", "Destination before translation")
mesh.fields.relayed = ProtoField.bool("meshd.disco.relayed", "Came by a relay")
mesh.fields.node = ProtoField.bytes("meshd.disco.node", "Node key of the relay client")
mesh.fields.port = ProtoField.uint16("meshd.disco.port", "Port")
mesh.fields.address4 = ProtoField.ipv4("meshd.disco.address4", "Address")
mesh.fields.address6 = ProtoField.ipv6("meshd.disco.address6", "Address")
mesh.fields.kind = ProtoField.uint8("meshd.disco.kind", "Message", base.DEC,
  { [1] = "ping", [2] = "pong", [3] = "call me maybe" })
mesh.fields.message = ProtoField.bytes("meshd.disco.message", "Content")

local function address(buffer, at, tree, four, six)
  local length = buffer(at, 1):uint()
  if length == 4 then tree:add(four, buffer(at + 1, 4)) end
  if length == 16 then tree:add(six, buffer(at + 1, 16)) end
  return at + 1 + length
end

local function disco(buffer, at, tree)
  tree:add(mesh.fields.relayed, buffer(at, 1))
  tree:add(mesh.fields.node, buffer(at + 1, 32))
  tree:add_le(mesh.fields.port, buffer(at + 33, 2))
  local length = buffer(at + 35, 2):le_uint()
  if length == 4 then tree:add(mesh.fields.address4, buffer(at + 37, 4)) end
  if length == 16 then tree:add(mesh.fields.address6, buffer(at + 37, 16)) end
  at = at + 37 + length
  length = buffer(at, 2):le_uint()
  if length > 0 then
    tree:add(mesh.fields.kind, buffer(at + 2, 1))
    tree:add(mesh.fields.message, buffer(at + 2, length))
  end
end

function mesh.dissector(buffer, info, root)
  if buffer:len() < 4 then return 0 end
  info.cols.protocol = "meshd"
  local path = buffer(0, 2):le_uint()
  local tree = root:add(mesh, buffer())
  tree:add_le(mesh.fields.path, buffer(0, 2))
  local at = address(buffer, 2, tree, mesh.fields.snat4, mesh.fields.snat6)
  at = address(buffer, at, tree, mesh.fields.dnat4, mesh.fields.dnat6)
  if path == 254 then
    info.cols.info = "disco"
    disco(buffer, at, tree)
  else
    Dissector.get("ip"):call(buffer(at):tvb(), info, root)
  end
  return buffer:len()
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, mesh)
"""
