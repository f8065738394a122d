"""rpcfw's own registry, an ordinary rpcfw service: `serve` it, find services by ``rpcfw://``, and servers by names.

Servers and clients need nothing of this but the URL. `bind` and `lookup` give names to single servers, as in Java RMI.
"""

from rpcfw.naming.interface import NameService
from rpcfw.naming.names import Binding, bind, lookup, names, rebind, unbind
from rpcfw.naming.registry import NamingRegistry
from rpcfw.naming.server import NameServer, serve
from rpcfw.naming.table import Bounds

__all__ = [
    "Binding",
    "Bounds",
    "NameServer",
    "NameService",
    "NamingRegistry",
    "bind",
    "lookup",
    "names",
    "rebind",
    "serve",
    "unbind",
]
