"""From a URL to a registry: which scheme is whose, and where its code is. Nothing is imported before it is asked for.

Another distribution adds a scheme by an entry point in the group ``rpcfw.registries``: its name is the scheme, its
object a callable that takes the URL and returns a registry. What is built in comes first, and an endpoint's scheme
stays one, so that no installed package can take their place.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from rpcfw.endpoint import SCHEMES
from rpcfw.registry.policy import Registry

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

Opener = Callable[[str], Registry]
"""Takes the whole URL; raises ValueError that names what is wrong with it."""

GROUP = "rpcfw.registries"
"""The group of entry points."""
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "dns": "rpcfw.registry.dns:DnsRegistry",
        "etcd": "rpcfw.registry.etcd:EtcdRegistry",
        "file": "rpcfw.registry.file:FileRegistry",
        "redis": "rpcfw.registry.redis:RedisRegistry",
        "static": "rpcfw.registry.static:StaticRegistry",
        "zeroconf": "rpcfw.registry.zeroconf:ZeroconfRegistry",
    }
)
"""Scheme: module and class, whose ``from_url`` opens it."""


def open_registry(
    registry: str | Registry, *, openers: Mapping[str, Opener] = MappingProxyType({})
) -> Registry:
    """A registry from its URL; one that is an object already is returned as it is.

    Args:
        registry: such as ``zeroconf://``, ``etcd://10.0.0.5:2379``, ``file:///etc/shop/services.toml``.
        openers: further schemes, and what opens their URLs; they come before all others.

    Raises:
        ValueError: no registry has this scheme, or its URL is wrong; the message says what is known.
        ImportError: its optional library is not installed; the message says how to. Or what another distribution
            brings cannot be loaded; the message names its entry point.
    """
    if not isinstance(registry, str):
        return registry
    scheme = _scheme(registry)
    opener = openers.get(scheme) or _built_in(scheme) or _installed(scheme)
    if opener is not None:
        return opener(registry)
    known = registry_schemes(openers=openers)
    message = f"{registry!r} is not a registry: start it with one of {', '.join(f'{s}://' for s in known)}"
    if (near := near_scheme(registry, known)) and scheme not in SCHEMES:
        message += f"; did you mean {near}://?"
    if scheme in SCHEMES:
        message += f"; {scheme}:// is where one server is"
    elif scheme == "memory":
        message += (
            "; one in memory is made as an object, MemoryRegistry(store), and shares its store with others"
        )
    raise ValueError(message)


def is_registry_url(text: object, *, openers: Mapping[str, Opener] = MappingProxyType({})) -> bool:
    """Whether `open_registry` knows this URL's scheme. False for the URL of an endpoint, and for what is no URL."""
    if not isinstance(text, str) or "://" not in text:
        return False
    scheme = _scheme(text)
    if scheme in SCHEMES:
        return False
    return scheme in openers or scheme in BUILT_IN or any(entry.name == scheme for entry in _entry_points())


def registry_schemes(*, openers: Mapping[str, Opener] = MappingProxyType({})) -> list[str]:
    """All schemes that `open_registry` knows, in order."""
    installed = {entry.name for entry in _entry_points()} - set(SCHEMES)
    return sorted({*openers, *BUILT_IN, *installed})


def near_scheme(url: str, schemes: Sequence[str]) -> str:
    """The scheme that a URL was probably meant to have; empty where none is like it."""
    import difflib

    return next(iter(difflib.get_close_matches(_scheme(url), schemes, n=1)), "")


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def _built_in(scheme: str) -> Opener | None:
    where = BUILT_IN.get(scheme)
    if where is None:
        return None
    module, _, name = where.partition(":")
    opener: Opener = getattr(importlib.import_module(module), name).from_url
    return opener


def _installed(scheme: str) -> Opener | None:
    for entry in _entry_points():
        if entry.name == scheme and scheme not in SCHEMES:
            return _loaded(entry)
    return None


def _loaded(entry: EntryPoint) -> Opener:
    """What an entry point leads to, whose faults name it: they are not ours, nor the URL's."""
    brought_by = f" of {entry.dist.name}" if entry.dist is not None else ""
    named = f"{entry.name}:// is opened by {entry.value!r}, an entry point{brought_by} in {GROUP}"
    try:
        load: Opener = entry.load()
    except Exception as error:
        raise ImportError(f"{named}, which cannot be loaded: {_told(error)}") from error

    def opener(url: str) -> Registry:
        try:
            return load(url)
        except ValueError:
            raise  # about the URL, as `Opener` has it
        except ImportError as error:
            raise ImportError(f"{named}, which lacks something: {_told(error)}", name=error.name) from error
        except Exception as error:
            raise ValueError(f"{named}, which failed: {_told(error)}") from error

    return opener


def _told(error: Exception) -> str:
    said = str(error)
    return said if said and isinstance(error, ImportError) else f"{type(error).__name__}: {said}".rstrip(": ")


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # some 10 ms, for those alone who need it

    return entry_points(group=GROUP)
