"""The handshake: each side's first frame says what it accepts; the server's also lists its methods.

Method ids are agreed here by name and fingerprint, so that calls carry a number and a drift between the two sides'
interfaces is known before the first call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgpack

from rpcfw.errors import ProtocolError
from rpcfw.wire.frames import HELLO, MAGIC, VERSION, frame

MIN_FRAME_BYTES = 16 * 1024
"""Every peer takes frames of this size, so that small messages need not be measured (RFC 9113 section 6.5.2)."""
MAX_SIZE = (1 << 31) - 1
_MAX_MEMORY_CHARS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What one side accepts from the other. Sizes in bytes.

    Attributes:
        max_frame_bytes: largest body of one frame; larger messages come in chunks.
        max_message_bytes: largest message.
        max_assemblies: chunked messages on their way at a time.
        max_streams: calls in progress at a time on this connection.
        max_metadata_bytes: metadata of one call.
        window_bytes: credit of each stream at its start.
    """

    max_frame_bytes: int = 256 * 1024
    max_message_bytes: int = 16 * 1024 * 1024
    max_assemblies: int = 8
    max_streams: int = 2048
    max_metadata_bytes: int = 16 * 1024
    window_bytes: int = 256 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method as the server lists it."""

    id: int
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Hello:
    """One side's first frame.

    `services` maps a service's name to its version and its methods by name; empty from a client. `memory` names what
    the server remembers of calls with a key, if it does.
    """

    settings: Settings
    services: Mapping[str, tuple[str, Mapping[str, MethodEntry]]] = dataclasses.field(default_factory=dict)
    memory: str = ""

    def pack(self) -> bytes:
        """The HELLO frame."""
        body = {
            "version": VERSION,
            **{field.name: getattr(self.settings, field.name) for field in dataclasses.fields(Settings)},
            "services": {
                name: [version, {method: [entry.id, entry.fingerprint] for method, entry in methods.items()}]
                for name, (version, methods) in self.services.items()
            },
        }
        if self.memory:
            body["memory"] = self.memory
        return frame(HELLO, 0, 0, 0, MAGIC, msgpack.packb(body))

    @classmethod
    def unpack(cls, body: bytes | memoryview) -> Hello:
        """Read a HELLO's body; unknown entries are passed over. Raises ProtocolError that names what is wrong."""
        try:
            fields = msgpack.unpackb(body, max_map_len=10_000, max_array_len=16)
            version = fields["version"]
            if version != VERSION:
                raise ProtocolError(
                    f"the peer speaks version {version!r} of the protocol; this side speaks {VERSION}"
                )
            settings = Settings(
                **{field.name: _size(fields, field.name) for field in dataclasses.fields(Settings)}
            )
            services = {name: _service(entry) for name, entry in fields.get("services", {}).items()}
            memory = str(fields.get("memory", ""))[:_MAX_MEMORY_CHARS]
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
            msgpack.UnpackException,
        ) as error:
            raise ProtocolError(f"the handshake cannot be read: {type(error).__name__} {error}") from None
        return cls(settings, services, memory)


def _size(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    least = MIN_FRAME_BYTES if name == "max_frame_bytes" else 1
    if type(value) is not int or not least <= value <= MAX_SIZE:
        raise ValueError(f"{name}={value!r} is not a size from {least:,} to {MAX_SIZE:,}")
    return value


def _service(entry: Any) -> tuple[str, dict[str, MethodEntry]]:
    version, methods = entry
    listed = {
        str(name): MethodEntry(_method_id(number), str(fingerprint))
        for name, (number, fingerprint) in methods.items()
    }
    return str(version), listed


def _method_id(number: Any) -> int:
    if type(number) is not int or not 0 < number <= 0xFFFF:
        raise ValueError(f"{number!r} is not the number of a method")
    return number
