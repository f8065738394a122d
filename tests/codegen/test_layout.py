"""Layout against the real `ruff format`: random trees, written flat, must come out of ruff as they come out of us."""

from __future__ import annotations

import inspect
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rpcfw_codegen.defaults import quoted
from rpcfw_codegen.docstrings import docstring
from rpcfw_codegen.layout import (
    Atom,
    Either,
    Labelled,
    Layout,
    Node,
    call,
    flat,
    subscript,
    tuple_of,
)
from rpcfw_codegen.names import Names, Place


def ruff_format(text: str, tmp_path: Path, width: int) -> str:
    file = tmp_path / "sample.py"
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(width), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return file.read_text(encoding="utf-8")


def random_type(rng: random.Random, depth: int) -> Node:
    name = Atom("".join(rng.choices("ABCDé界", k=rng.randint(1, 30))))
    if depth == 0 or rng.random() < 0.4:
        return name
    inner = [random_type(rng, depth - 1) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.5:
        return subscript(name.text, inner)
    operands = tuple(node for node in inner if not isinstance(node, Either))
    return Either(operands) if len(operands) > 1 else name


def random_function(rng: random.Random, number: int) -> tuple[str, Callable[[Layout], str]]:
    """The head of a function and a call in its body: flat, and as the layout writes them."""
    names = [f"p{index}{'x' * rng.randint(0, 20)}" for index in range(rng.randint(0, 6))]
    first_default, first_keyword = rng.randint(0, 7), rng.randint(0, 9)
    parameters: list[Node] = [Atom("self")]
    for index, name in enumerate(names):
        if index == first_keyword:
            parameters.append(Atom("*"))
        default = rng.choice(["None", '"some text"', "_ORDERS_GET_PAUSE"])
        after = f" = {default}" if index >= first_default else ""
        parameters.append(Labelled(f"{name}: ", random_type(rng, 3), after))
    result = random_type(rng, 3)
    opening = f"async def f{number}{'y' * rng.randint(0, 30)}"
    constant = Atom(f"_ORDERS_{'Z' * rng.randint(1, 60)}")
    body = call("return await self._call", [constant, tuple_of(map(Atom, names))])
    text = f"    {opening}({', '.join(map(flat, parameters))}) -> {flat(result)}:\n        {flat(body)}"

    def lay(layout: Layout) -> str:
        return "\n".join([*layout.signature(opening, parameters, result, 4, ":"), *layout.lines(body, 8)])

    return text, lay


@pytest.mark.parametrize("width", [40, 60, 88, 110])
def test_signatures_and_calls_break_where_ruff_breaks_them(tmp_path: Path, width: int) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    samples = [random_function(rng, number) for number in range(300)]
    ours = "class A:\n" + "\n\n".join(lay(Layout(width)) for _, lay in samples) + "\n"
    flat_text = "class A:\n" + "\n\n".join(text for text, _ in samples) + "\n"
    assert ours.splitlines() == ruff_format(flat_text, tmp_path, width).splitlines()


def test_string_defaults_are_quoted_as_ruff_quotes_them(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    values: list[str | bytes] = [
        "".join(rng.choices("'\"\\aé\n\x7f", k=rng.randint(0, 6))) for _ in range(300)
    ]
    values += [value.encode() for value in values if isinstance(value, str)]
    written = [f"x = {quoted(value)}" for value in values]
    assert [eval(line.removeprefix("x = ")) for line in written] == values
    assert written == ruff_format("\n".join(f"x = {value!r}" for value in values), tmp_path, 110).splitlines()


def test_docstrings_read_back_as_they_were_and_are_left_alone_by_ruff(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    pieces = ["word", " ", "\n", "\n    ", "\\", '"', '"""', "'", "é", "\t", "\x00", "\\d", "\u202e"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(400)]
    texts = [text for text in map(inspect.cleandoc, texts) if text.strip()]
    source = "\n\n".join(
        "\n".join([f"def f{number}():", *docstring(text, 4)]) + "\n" for number, text in enumerate(texts)
    )
    assert source.splitlines() == ruff_format(source, tmp_path, 110).splitlines()
    namespace: dict[str, Callable[[], None]] = {}
    exec(source, namespace)
    for number, text in enumerate(texts):
        read_back = inspect.getdoc(namespace[f"f{number}"])
        assert read_back is not None
        assert without_layout(read_back) == without_layout(text)


def without_layout(text: str) -> list[str]:
    """The lines that have words, without the space around them."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def test_imports_stand_in_the_order_of_isort(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    (tmp_path / "pyproject.toml").write_text('[tool.ruff]\nline-length = 88\nlint.select = ["I"]\n')
    (tmp_path / "own.py").touch()
    modules = "datetime collections.abc uuid msgspec Zope.x own b_2 b10 B9 shop shop.stubs.sub shop.contract shop.a.b"
    modules += " shop._private shop.Contract shop.contract2 shop.contract10 shop.cont"
    files = []
    for number in range(100):
        names = Names(Place("shop.stubs", (tmp_path,)))
        for _ in range(rng.randint(1, 25)):
            name = "".join(rng.choices(["a", "B", "_", "1", "X", "AB", "ab10", "é"], k=rng.randint(1, 5)))
            names.refer(rng.choice(modules.split()), rng.choice(["", name]) if name.isidentifier() else "")
        names.settle(["B", "a", "X"])
        folder = tmp_path / f"root{number}" / "shop" / "stubs"
        folder.mkdir(parents=True)
        file = folder / "contract.py"
        file.write_text("\n".join(names.imports(Layout(88))) + "\n")
        files.append(file)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--diff", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
