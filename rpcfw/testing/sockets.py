"""What a loop is asked of the network, passed on to a simulated one, on behalf of the host whose code asks.

Only the loop's side of it: the network itself is `SimNetwork` to this module, any object with these methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from rpcfw.testing.clock import host_name
from rpcfw.testing.refusals import Unsimulated, refuse_options


class SimNetwork(Protocol):
    """A simulated network, as a loop uses it. `host_name` is where the asking code runs, `clock.OUTSIDE` on no host."""

    async def create_connection(
        self, host_name: str, protocol_factory: Callable[[], Any], host: Any, port: Any, /, **options: Any
    ) -> tuple[Any, Any]:
        """Connect; return transport and protocol."""
        ...

    async def create_server(
        self, host_name: str, protocol_factory: Callable[[], Any], host: Any, port: Any, /, **options: Any
    ) -> Any:
        """Listen; return an asyncio.AbstractServer."""
        ...

    async def create_datagram_endpoint(
        self,
        host_name: str,
        protocol_factory: Callable[[], Any],
        local_addr: Any,
        remote_addr: Any,
        /,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Open a port for datagrams; return transport and protocol."""
        ...

    def getaddrinfo(self, host: Any, port: Any, /, **options: Any) -> list[Any]:
        """Look a name up, as socket.getaddrinfo."""
        ...

    def getnameinfo(self, sockaddr: Any, flags: int = 0, /) -> tuple[str, str]:
        """Name an address, as socket.getnameinfo."""
        ...


class SimSockets:
    """The network methods of a loop. `network` is None until there is one, and then they raise Unsimulated."""

    network: SimNetwork | None = None

    async def create_connection(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """Connect to a port of a simulated host."""
        refuse_options("create_connection", options)
        return await self._network("create_connection").create_connection(
            host_name(), protocol_factory, host, port, **options
        )

    async def create_server(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """Listen on a port of the current host."""
        refuse_options("create_server", options)
        return await self._network("create_server").create_server(
            host_name(), protocol_factory, host, port, **options
        )

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], Any],
        local_addr: Any = None,
        remote_addr: Any = None,
        **options: Any,
    ) -> Any:
        """Open a port of the current host for datagrams."""
        refuse_options("create_datagram_endpoint", options)
        return await self._network("create_datagram_endpoint").create_datagram_endpoint(
            host_name(), protocol_factory, local_addr, remote_addr, **options
        )

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Look up a simulated host."""
        return self._network("getaddrinfo").getaddrinfo(host, port, **options)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """Name an address of the simulated network."""
        return self._network("getnameinfo").getnameinfo(sockaddr, flags)

    def _network(self, call: str) -> SimNetwork:
        if self.network is None:
            raise Unsimulated(f"{call} on a loop without a network", "set loop.network, or use Simulation")
        return self.network
