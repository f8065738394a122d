"""What is given to balancers by mistake, and what it says then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from rpcfw.balancer import ConsistentHash, IpHash, LeastLoaded, PowerOfTwo, by_argument, by_metadata

MISTAKES: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (
        ConsistentHash,
        ("user_id",),
        {},
        "key='user_id' is not a function of a call: write by_argument(\"user_id\")",
    ),
    (ConsistentHash, (by_metadata("a"),), {"bound": "1.25"}, "bound='1.25' is text: write 1.25"),
    (ConsistentHash, (by_metadata("a"),), {"floor": "8"}, "floor='8' is text: write 8"),
    (IpHash, (), {"own": 7}, 'own=7 is not text: write "7"'),
    (IpHash, (), {"forwarded": True}, 'forwarded=True is not text: write "x-forwarded-for", or None'),
    (LeastLoaded, (), {"lag_s": "0.01"}, "lag_s='0.01' is text: write 0.01"),
    (PowerOfTwo, (), {"force_s": None}, "force_s=None is not a number: give a number"),
    (by_argument, (["a", "b"],), {}, "name=['a', 'b'] is not text: write by_argument("),
    (by_argument, (0,), {}, "name=0 is not text"),
    (by_metadata, (None,), {}, 'name=None is not text: write by_metadata("session")'),
]


@pytest.mark.parametrize(("make", "given", "named", "words"), MISTAKES, ids=[case[-1] for case in MISTAKES])
def test_a_mistake_is_told_where_it_is_made_with_the_value_and_the_mend(
    make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        make(*given, **named)
