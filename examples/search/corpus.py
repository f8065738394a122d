"""The text to be searched: the Python files of the running interpreter's standard library.

Where they are and how to read them; nothing here knows of an index. Installed packages and caches are left
out, the standard library's own tests are in.
"""

from __future__ import annotations

import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

_NOT_STDLIB = frozenset({"site-packages", "dist-packages", "__pycache__"})


def stdlib_root() -> Path:
    """The folder of the standard library; in a virtual environment, that of the interpreter behind it."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(root: Path) -> list[Path]:
    """Every Python source file under `root`, in the same order on every machine."""
    if not root.is_dir():
        raise NotADirectoryError(f"no Python files to index: {str(root)!r} is not a folder")
    return sorted(_walk(root))


def _walk(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _NOT_STDLIB]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                yield path


def read_source(path: Path) -> str:
    """The text of one file, in the encoding it declares.

    The standard library's tests hold a few files that are wrong on purpose; those are read as Latin-1, which
    has a character for every byte.
    """
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return path.read_text(encoding="latin-1")
