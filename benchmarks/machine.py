"""On what it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

_PACKAGES = ("rpcfw", "uvloop", "msgspec", "msgpack", "pydantic", "orjson")


def described() -> dict[str, str | int]:
    """Processor, cores, memory, kernel and Python."""
    return {
        "cpu": _first(r"model name\s*:\s*(.+)", "/proc/cpuinfo")
        or platform.processor()
        or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_mib": int(_first(r"MemTotal:\s*(\d+)", "/proc/meminfo") or 0) // 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_build": f"{platform.python_build()[1]}, {platform.python_compiler()}",
    }


def versions() -> dict[str, str]:
    """Of what rpcfw is made of; each peer tells its own."""
    return {package: importlib.metadata.version(package) for package in _PACKAGES}


def _first(pattern: str, path: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1].strip() if found else ""
