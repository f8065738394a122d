"""Wire, codec and transport made into handlers of calls: the two ends of a connection."""

from rpcfw.connection.client import ClientConnection
from rpcfw.connection.exchange import Entry, Load, Table
from rpcfw.connection.server import ServerConnection

__all__ = ["ClientConnection", "Entry", "Load", "ServerConnection", "Table"]
