"""Code generated from orders.proto when a benchmark starts, so that none is committed and none is stale."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

SCHEMA = Path(__file__).with_name("orders.proto")


@contextlib.contextmanager
def generated(*generators: str) -> Iterator[None]:
    """Inside, the modules that protoc's generators of these names write can be imported from `peers`.

    A generator that is no part of grpcio-tools is a script of this environment, named as protoc wants it; one with an
    option is given as ``name=option``. Raises RuntimeError with protoc's own words.
    """
    scripts = Path(sysconfig.get_path("scripts"))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(scripts / "python-grpc-tools-protoc"),
            f"--proto_path={SCHEMA.parents[1]}",
            str(SCHEMA),
        ]
        for generator, _, option in (generator.partition("=") for generator in generators):
            command.append(f"--{generator}_out={folder}")
            if (plugin := scripts / f"protoc-gen-{generator}").exists():
                command.append(f"--plugin={plugin}")
            if option:
                command.append(f"--{generator}_opt={option}")
        # A server that embeds Python sets these for itself; a Python of its own must not inherit them.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"LD_PRELOAD", "PYTHONHOME", "PYTHONPATH"}
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"protoc failed: {done.stderr}")
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
