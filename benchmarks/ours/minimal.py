"""The smallest server: one service, one method. Run as a program it says where it listens, and serves."""

import rpcfw


@rpcfw.service("bench.Minimal")
class Minimal:
    """One method."""

    async def hello(self, name: str) -> str:
        return f"Hello, {name}!"


async def _serve() -> None:
    async with rpcfw.serve(Minimal(), listen="tcp://127.0.0.1:0") as server:
        print("serving Minimal at", server.endpoint, flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
