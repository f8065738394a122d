"""From URLs to registries."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from rpcfw.registry import MemoryRegistry, Registry, StaticRegistry, is_registry_url, open_registry
from rpcfw.registry.opening import BUILT_IN, GROUP


def test_an_object_is_returned_as_it_is() -> None:
    registry = MemoryRegistry()
    assert open_registry(registry) is registry


def test_an_opener_that_is_passed_in_comes_first() -> None:
    made: list[str] = []

    def opener(url: str) -> Registry:
        made.append(url)
        return MemoryRegistry()

    openers = {"rpcfw": opener, "static": opener}
    open_registry("rpcfw://10.0.0.1:7700", openers=openers)
    open_registry("static://10.0.0.1:1", openers=openers)
    assert made == ["rpcfw://10.0.0.1:7700", "static://10.0.0.1:1"]
    assert is_registry_url("rpcfw://10.0.0.1:7700", openers=openers)


def opener_of_another(url: str) -> Registry:
    """What an entry point leads to."""
    return StaticRegistry([url.replace("consul", "tcp")])


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint(name, f"{__name__}:opener_of_another", GROUP)
        for name in ("consul", "static", "tcp")
    ]

    def entry_points(*, group: str) -> importlib.metadata.EntryPoints:
        assert group == "rpcfw.registries"
        return importlib.metadata.EntryPoints(points)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(
        importlib.metadata.EntryPoint, "load", lambda self: globals()[self.value.partition(":")[2]]
    )


@pytest.mark.usefixtures("_installed")
async def test_another_distribution_adds_a_scheme_but_takes_none() -> None:
    registry = open_registry("consul://10.0.0.1:8500")
    (entry,) = await anext(registry.watch("shop.Orders"))
    assert entry.endpoint.address == "tcp://10.0.0.1:8500"
    (entry,) = await anext(open_registry("static://10.0.0.1:1").watch("shop.Orders"))
    assert entry.endpoint.address == "tcp://10.0.0.1:1"
    assert is_registry_url("consul://10.0.0.1:8500")
    assert not is_registry_url("tcp://10.0.0.1:7000")
    with pytest.raises(ValueError, match="tcp:// is where one server is"):
        open_registry("tcp://10.0.0.1:7000")
    with pytest.raises(ValueError, match="start it with one of consul://, dns://"):
        open_registry("nacos://10.0.0.1")


def lacking(url: str) -> Registry:
    """What an entry point leads to that fails."""
    raise {"import": ModuleNotFoundError("No module named 'consul'"), "type": TypeError("no lease")}[url[9:]]


def test_a_fault_in_what_another_distribution_brings_names_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [
        importlib.metadata.EntryPoint("consul", f"{__name__}:lacking", GROUP),
        importlib.metadata.EntryPoint("nowhere", "no_such_module:Registry", GROUP),
    ]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda *, group: importlib.metadata.EntryPoints(points)
    )
    named = rf"consul:// is opened by '{__name__}:lacking', an entry point in rpcfw.registries, which "
    with pytest.raises(ImportError, match=f"{named}lacks something: No module named 'consul'"):
        open_registry("consul://import")
    with pytest.raises(ValueError, match=f"{named}failed: TypeError: no lease"):
        open_registry("consul://type")
    with pytest.raises(
        ImportError, match=r"nowhere:// .* cannot be loaded: No module named 'no_such_module'"
    ):
        open_registry("nowhere://x")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("zerconf://", "did you mean zeroconf://?"),
        ("nacos://10.0.0.1", "start it with one of dns://, etcd://, file://, redis://"),
        ("shop", "'shop' is not a registry"),
        ("tcp://10.0.0.1:7000", "tcp:// is where one server is"),
        ("memory://shop", "one in memory is made as an object, MemoryRegistry(store)"),
    ],
)
def test_an_unknown_scheme_is_refused_with_those_that_are_known(url: str, message: str) -> None:
    with pytest.raises(ValueError, match="is not a registry") as caught:
        open_registry(url)
    assert message in str(caught.value)


def test_urls_of_registries_are_told_from_those_of_endpoints() -> None:
    for scheme in BUILT_IN:
        assert is_registry_url(f"{scheme}://somewhere")
    assert is_registry_url("ETCD://somewhere")
    for url in (
        "tcp://10.0.0.1:7000",
        "unix:///run/shop.sock",
        "mem://shop",
        "nacos://x",
        "etcd",
        "",
        None,
        7,
    ):
        assert not is_registry_url(url)


def test_no_optional_library_is_imported_before_its_scheme_is_opened() -> None:
    program = (
        "import sys; from rpcfw.registry import open_registry; open_registry('static://10.0.0.1:1');"
        "print([name for name in ('dns', 'zeroconf', 'redis', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
