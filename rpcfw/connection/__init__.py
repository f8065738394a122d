"""Wire, codec and transport made into handlers of calls: the two ends of a connection."""

from rpcfw.connection.client import ClientConnection
from rpcfw.connection.server import Entry, Load, ServerConnection, Table

__all__ = ["ClientConnection", "Entry", "Load", "ServerConnection", "Table"]
