"""The other frameworks that are measured, each in its most favourable ordinary configuration, a module each.

`PEERS` names the modules; nothing is imported here, so that one whose packages are missing hinders no other.
"""

PEERS = [
    "on_grpc_aio",
    "on_grpclib",
    "on_connectrpc",
    "on_aiohttp",
    "on_fastapi",
    "on_pycapnp",
    "on_thriftpy2",
    "on_thriftpy2_aio",
    "on_pyro5",
    "on_rpyc",
    "on_zerorpc",
    "on_aiozmq",
    "on_nats",
]
