"""The `Store` of one process in etcd: all its registrations under one lease, which one request renews.

etcd itself takes the keys away when the lease runs out. Another process that registers the same key takes it over,
with its own lease; so nothing here touches a key that is not under the lease of this process.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil
from typing import Any

from rpcfw.registry.etcd_gateway import NOT_FOUND, Done, Gateway, Granted, Kept, Refused, base64_of
from rpcfw.registry.etcd_keys import key_of
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import bytes_of

_OPERATIONS = 100
"""Keys asked for in one transaction; etcd allows 128 operations."""


class Lease:
    """Keeps registrations under one lease, granted when the first one is put."""

    def __init__(self, gateway: Gateway, prefix: str, lease_s: float) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._ttl_s = max(1, ceil(lease_s))
        self._id = 0

    async def put(self, registration: Registration) -> None:
        """Put the key. When the lease has run out unnoticed, under a new one."""
        if self._id:
            try:
                await self._put(registration)
                return
            except Refused as refused:
                if refused.code != NOT_FOUND:
                    raise
                self._id = 0
        granted = await self._gateway.ask("lease/grant", {"TTL": self._ttl_s}, Granted)
        self._id = granted.ID
        await self._put(registration)

    async def _put(self, registration: Registration) -> None:
        key, value = key_of(self._prefix, registration), bytes_of(registration)
        body = {"key": base64_of(key), "value": base64_of(value), "lease": str(self._id)}
        await self._gateway.ask("kv/put", body, Done)

    async def remove(self, registration: Registration) -> None:
        """Delete the key, if it is under our lease."""
        if not self._id:
            return
        key = base64_of(key_of(self._prefix, registration))
        body = {
            "compare": [{"target": "LEASE", "result": "EQUAL", "key": key, "lease": str(self._id)}],
            "success": [{"request_delete_range": {"key": key}}],
        }
        await self._gateway.ask("kv/txn", body, Done)

    async def renew(self, registrations: Collection[Registration]) -> list[str]:
        """Keep the lease alive; then see which keys are there: somebody may have deleted one, or etcd lost its data."""
        if not self._id:
            return [registration.key for registration in registrations]
        kept = await self._gateway.ask("lease/keepalive", {"ID": str(self._id)}, Kept)
        if not kept.result.TTL:
            self._id = 0
            return [registration.key for registration in registrations]
        missing: list[str] = []
        wanted = {key_of(self._prefix, registration): registration.key for registration in registrations}
        keys = [*wanted]
        for start in range(0, len(keys), _OPERATIONS):
            some = keys[start : start + _OPERATIONS]
            reads: list[dict[str, Any]] = [
                {"request_range": {"key": base64_of(key), "keys_only": True}} for key in some
            ]
            done = await self._gateway.ask("kv/txn", {"success": reads}, Done)
            there = {
                entry.key.decode() for response in done.responses for entry in response.response_range.kvs
            }
            missing += [wanted[key] for key in some if key not in there]
        return missing

    async def end(self) -> None:
        """Revoke the lease."""
        if self._id:
            gone, self._id = self._id, 0
            await self._gateway.ask("lease/revoke", {"ID": str(gone)}, Done)
