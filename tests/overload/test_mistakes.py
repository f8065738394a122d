"""What is given to limits by mistake, and what it says then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from rpcfw.middleware import AdaptiveLimit, Bulkhead, CarryPriority, ConcurrencyLimit, RateLimit

MISTAKES: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (
        AdaptiveLimit,
        (200,),
        {},
        "gradient=200 is not an object of the class Gradient: write AdaptiveLimit(Gradient(",
    ),
    (AdaptiveLimit, (200,), {}, "or ConcurrencyLimit(200) for a fixed limit"),
    (AdaptiveLimit, (), {"lag": 0.1}, "lag=0.1 is not an object of the class LagMeter"),
    (AdaptiveLimit, (), {"max_lag_s": "0.1"}, "max_lag_s='0.1' is text: write 0.1"),
    (Bulkhead, ("100",), {}, "max_running='100' is text: write 100"),
    (Bulkhead, (100,), {"share": "50%"}, "share='50%' is text: write 0.5"),
    (Bulkhead, (100,), {"shares": {"shop.Reports": "0.1"}}, "shop.Reports='0.1' is text: write 0.1"),
    (Bulkhead, (100,), {"shares": ["shop.Reports"]}, "shares=['shop.Reports'] is not a dict"),
    (CarryPriority, ("critical",), {}, "default='critical' is not an object of the class Priority"),
    (ConcurrencyLimit, ("8",), {}, "max_running='8' is text: write 8"),
    (ConcurrencyLimit, (8,), {"queue": "4"}, "queue='4' is text: write 4"),
    (ConcurrencyLimit, (8,), {"max_wait_s": "1"}, "max_wait_s='1' is text: write 1"),
    (RateLimit, ("100",), {}, "rate_per_s='100' is text: write 100"),
    (RateLimit, (100,), {"burst": "5"}, "burst='5' is text: write 5"),
    (RateLimit, (100,), {"key": "caller"}, "key='caller' is not a function of a call: write per_caller"),
    (RateLimit, (100,), {"max_keys": None}, "max_keys=None is not a number"),
]


@pytest.mark.parametrize(("make", "given", "named", "words"), MISTAKES, ids=[case[-1] for case in MISTAKES])
def test_a_mistake_is_told_where_it_is_made_with_the_value_and_the_mend(
    make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        make(*given, **named)
