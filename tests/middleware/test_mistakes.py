"""What is given to middleware by mistake, and what it says then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from rpcfw.errors import Code
from rpcfw.middleware import Broadcast, Failback, Fallback, Forking, Hedge

MISTAKES: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (Broadcast, (["shop.Cache.clear"],), {}, 'is not text: write Broadcast("shop.Cache.clear")'),
    (Failback, ("3",), {}, "attempts='3' is text: write 3"),
    (Failback, (), {"every_s": "5s"}, "every_s='5s' is text: write 5"),
    (Fallback, (len,), {}, "is not a dict: write Fallback({"),
    (Fallback, ({},), {"codes": Code.UNAVAILABLE}, "is not a list: write codes=[Code.UNAVAILABLE]"),
    (Fallback, ({},), {"when": True}, "when=True is not a function of a call and its error"),
    (Forking, ("2",), {}, "forks='2' is text: write 2"),
    (Hedge, ("0.1",), {}, "after_s='0.1' is text: write 0.1"),
    (Hedge, (), {"percentile": "95%"}, "percentile='95%' is text: write 0.95"),
    (Hedge, (), {"max_hedges": None}, "max_hedges=None is not a number"),
    (Hedge, (), {"budget": 0.1}, "budget=0.1 is not an object of the class RetryBudget: write RetryBudget()"),
]


@pytest.mark.parametrize(("make", "given", "named", "words"), MISTAKES, ids=[case[-1] for case in MISTAKES])
def test_a_mistake_is_told_where_it_is_made_with_the_value_and_the_mend(
    make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        make(*given, **named)
