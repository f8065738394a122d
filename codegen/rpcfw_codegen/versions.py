"""`rpcfw check OLD NEW`: what changed between two versions of a program's interfaces, and what of it breaks.

Gets the schemas of both sides, from code or from files, and lays out the verdicts; the judging is in
`rpcfw.interface.compatibility`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import rpcfw.interface
from rpcfw.interface.compatibility import compare_all
from rpcfw_codegen.dump import Schema, as_json
from rpcfw_codegen.errors import CodegenError


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One change of one service.

    Attributes:
        service: the name of the service.
        method: the method that changed, "" where it is the service or a message.
        path: what changed: ``shop.Orders.place.coupon``, or ``Order.price`` for a field of a message.
        kind: the sort of change: "parameter added".
        breaking: whether old and new sides no longer understand each other.
        message: the path, what changed, why it breaks or does not, and the mend.
    """

    service: str
    method: str
    path: str
    kind: str
    breaking: bool
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The changes from OLD to NEW, those that break first."""

    old: str
    new: str
    services: int
    findings: tuple[Finding, ...]

    @property
    def breaking(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.breaking)

    @property
    def safe(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.breaking)

    def text(self) -> str:
        """A line per change in columns, and a last line that counts them."""
        width = max((len(finding.kind) for finding in self.findings), default=0)
        lines = [
            f"{'BREAKING' if finding.breaking else 'safe':8}  {finding.kind:{width}}  {finding.message}"
            for finding in self.findings
        ]
        return "\n".join([*lines, self.summary()]) + "\n"

    def summary(self) -> str:
        """One sentence: how many changes of which sort, between what."""
        compared = f"from {self.old} to {self.new}, {_counted(self.services, 'service')}"
        if not self.findings:
            return f"no change {compared}"
        return f"{len(self.breaking)} breaking and {_counted(len(self.safe), 'safe change')} {compared}"

    def document(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {
            "old": self.old,
            "new": self.new,
            "services": self.services,
            "breaking": len(self.breaking),
            "safe": len(self.safe),
            "changes": [dataclasses.asdict(finding) for finding in self.findings],
        }


def check(old: str, new: str, *, directory: Path | None = None) -> Report:
    """Compare two versions of interfaces.

    Args:
        old: a module, a package, a path of either, a folder of them, or a schema file (``*.json``).
        new: the same for the new version; modules of one name on both sides do not mix.
        directory: where names and relative paths are looked for; the current folder unless given.

    Raises:
        CodegenError: a side cannot be read; the message says which and why.
    """
    directory = directory or Path.cwd()
    before, after = ({s["service"]: s for s in schemas_of(side, directory)} for side in (old, new))
    findings: list[Finding] = []
    for service in dict.fromkeys([*before, *after]):
        sides = ([schemas[service]] if service in schemas else [] for schemas in (before, after))
        for change in compare_all(*sides):
            inside = change.path.removeprefix(f"{service}.") if change.path.startswith(f"{service}.") else ""
            method = inside.partition(".")[0]
            findings.append(
                Finding(service, method, change.path, change.kind, change.breaking, change.message)
            )
    findings.sort(key=lambda finding: not finding.breaking)
    return Report(old, new, len(before | after), tuple(findings))


def schemas_of(side: str, directory: Path | None = None) -> list[Schema]:
    """The schemas of the services in a module, package, folder or schema file, by name. Raises CodegenError."""
    directory = directory or Path.cwd()
    if side.endswith(".json"):
        return _from_file(side, directory)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())}
    command = [sys.executable, "-P", "-m", "rpcfw_codegen.dump", side]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CodegenError(
            f"{side}: reading it ended with exit code {done.returncode}:\n{done.stderr.strip()}"
        )
    document = json.loads(done.stdout)
    if "error" in document:
        raise CodegenError(f"{side}: {document['error']}")
    services: list[Schema] = document["services"]
    return services


def schema_document(side: str, directory: Path | None = None) -> str:
    """The text of a schema file: what `check` takes in place of the code it was made from. Raises CodegenError."""
    return as_json(schemas_of(side, directory))


def _import_path() -> list[str]:
    """Where this process found what the other one needs, then where it was told to look."""
    own = [
        str(Path(str(module.__file__)).parents[depth])
        for module, depth in ((rpcfw.interface, 2), (sys.modules[__name__], 1))
    ]
    return list(dict.fromkeys([*own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))


def _from_file(side: str, directory: Path) -> list[Schema]:
    try:
        document = json.loads((directory / side).read_bytes())
    except OSError as error:
        raise CodegenError(f"{side}: {error.strerror}; name a schema file that exists") from None
    except ValueError as error:
        raise CodegenError(f"{side}: not JSON ({error}); write it by `rpcfw gen MODULE --schema`") from None
    found = document.get("services", [document]) if isinstance(document, dict) else document
    if not isinstance(found, list) or not all(
        isinstance(s, dict) and "service" in s and "methods" in s for s in found
    ):
        raise CodegenError(
            f"{side}: JSON, but no schema of services; write it by `rpcfw gen MODULE --schema`"
        )
    return sorted(found, key=lambda schema: str(schema["service"]))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
