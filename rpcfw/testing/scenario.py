"""A scenario and one seed: where it is found by name, how it is played, and what came of it, in words and numbers.

A scenario is an async function that takes a `Simulation`. Playing many of them, in other processes, is the business of
`seeds`; of pytest nothing is known here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from rpcfw.testing.simulation import Simulation
from rpcfw.testing.virtual import steady_garbage

Scenario: TypeAlias = Callable[[Simulation], Coroutine[Any, Any, Any]]

_MOST_TOLD = 20_000
"""Characters of an error's text that an outcome keeps."""
_NOT_THEIRS = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "site-packages", "<")
"""Files with these in their names are not where a user looks for an error first."""


class ScenarioError(ValueError):
    """A target names no scenario. The message says why, and how to mend it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed.

    Attributes:
        seed: which.
        error: None, or what went wrong: a line with the error and its place, then the traceback.
        digest: of the trace; two runs with the same one were the same.
        events: how many the trace counted.
        virtual_s: true seconds of simulated time.
    """

    seed: int
    error: str | None
    digest: str
    events: int
    virtual_s: float

    @property
    def first_line(self) -> str:
        """The error in one line; empty when there was none."""
        return (self.error or "").partition("\n")[0]


class Played(NamedTuple):
    """A run that has ended: its simulation, to look at the trace, and what it raised."""

    simulation: Simulation
    error: BaseException | None

    def outcome(self) -> Outcome:
        """The run in words and numbers, which need no simulation any more."""
        trace = self.simulation.trace
        error = None if self.error is None else in_words(self.error)
        return Outcome(self.simulation.seed, error, trace.digest(), trace.recorded, self.simulation.elapsed_s)


def find(target: str) -> Scenario:
    """The scenario that ``module:function`` or ``file.py:function`` names; the current folder is on `sys.path` then.

    Raises:
        ScenarioError: there is none, or its module cannot be imported.
    """
    where, _, name = target.partition(":")
    if not where or not name:
        raise ScenarioError(f"{target!r} names no scenario; write module:function or file.py:function")
    module = _import(where)
    scenario = vars(module).get(name)
    if scenario is None:
        known = ", ".join(f"{where}:{name}" for name, value in vars(module).items() if _fits(value, module))
        raise ScenarioError(
            f"{where} has no {name!r}; " + (f"it has {known}" if known else "it has no scenario at all")
        )
    try:
        inspect.signature(scenario).bind(None)
    except (TypeError, ValueError):
        raise ScenarioError(
            f"{target} is no scenario: write it as `async def {name}(simulation: Simulation) -> None`"
        ) from None
    found: Scenario = scenario
    return found


def play(scenario: Scenario, seed: int) -> Played:
    """Play a scenario to its end with one seed. What it raises is in the result; KeyboardInterrupt passes."""
    with steady_garbage():
        simulation = Simulation(seed)
        try:
            simulation.run(scenario)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # pytest.fail and SystemExit are failures as well
            return Played(simulation, error)
    return Played(simulation, None)


@contextlib.contextmanager
def many_runs() -> Iterator[Callable[[], object]]:
    """For many runs one after the other. Call what it gives between them: it frees what the last one has left.

    What is there at the beginning is not looked at each time, so that this costs little in a process full of modules.
    """
    gc.freeze()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()


def in_words(error: BaseException) -> str:
    """A line with the error and its place, further lines of its message, then the traceback; not without end."""
    cause = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]  # a TaskGroup's: its message counts, and says nothing
    frames = traceback.extract_tb(cause.__traceback__)
    theirs = [frame for frame in frames if not any(part in frame.filename for part in _NOT_THEIRS)]
    first, *rest = str(cause).splitlines() or [""]
    place = ""
    if frames:
        frame = (theirs or frames)[-1]
        place = f" ({Path(frame.filename).name}:{frame.lineno})"
        first = first or frame.line or ""
    head = f"{type(cause).__name__}: {first}" if first else type(cause).__name__
    trace = "".join(traceback.format_exception(error)).rstrip()
    return "\n".join([f"{head}{place}", *rest, "", trace])[:_MOST_TOLD]


def _fits(value: Any, module: ModuleType) -> bool:
    """Whether it looks like a scenario of that very module."""
    if not inspect.iscoroutinefunction(value) or value.__module__ != module.__name__:
        return False
    return len(inspect.signature(value).parameters) == 1


def _import(where: str) -> ModuleType:
    _on_path(Path.cwd())
    path = Path(where).resolve() if where.endswith(".py") or "/" in where else None
    name = where if path is None else _name_of(path, where)
    try:
        module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise ScenarioError(
                f"there is no module {error.name!r} in {Path.cwd()} nor installed; name a module or a file"
            ) from error
        raise ScenarioError(f"{where} cannot be imported: {in_words(error).partition(chr(10))[0]}") from error
    found = Path(module.__file__ or "").resolve()
    if path is not None and found not in (path, path / "__init__.py"):
        raise ScenarioError(f"{where} cannot be imported: {name} is the name of {found} too; rename the file")
    return module


def _name_of(path: Path, where: str) -> str:
    """The dotted name of a file or package, whose root is on the path for imports afterwards."""
    if not path.exists():
        raise ScenarioError(f"there is no file {where!r} in {Path.cwd()}")
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    _on_path(root)
    return ".".join(part for part in parts if part != "__init__")


def _on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
