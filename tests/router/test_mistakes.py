"""What is given to routers by mistake, and what it says then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from rpcfw.router import ByTag, ByVersion, Canary, PreferZone, Sticky, Subset

MISTAKES: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (Canary, (0.05,), {}, 'shares=0.05 is not a dict: write Canary({"2.0": 0.05})'),
    (Canary, ({"2.0": "5%"},), {}, "the share of '2.0'='5%' is text: write 0.05"),
    (Canary, ({2.0: 0.05},), {}, "shares: the key 2.0 is not text"),
    (Canary, ({"2.0": 0.05},), {"key": "user"}, "key='user' is not a function of a call: write by_metadata("),
    (ByVersion, (2,), {}, 'version=2 is not text: write "2"'),
    (ByVersion, (), {"metadata": 2}, 'metadata=2 is not text: write "2"'),
    (PreferZone, (None,), {}, 'zone=None is not text: write PreferZone("eu")'),
    (PreferZone, ("eu",), {"min_nodes": "2"}, "min_nodes='2' is text: write 2"),
    (PreferZone, ("eu",), {"min_share": "50%"}, "min_share='50%' is text: write 0.5"),
    (Sticky, ("session",), {}, "key='session' is not a function of a call: write by_metadata(\"session\")"),
    (Subset, (7,), {}, 'client_id=7 is not text: write "7"'),
    (Subset, ("a", "20"), {}, "size='20' is text: write 20"),
    (ByTag, (["tag"],), {}, "metadata=['tag'] is not text"),
]


@pytest.mark.parametrize(("make", "given", "named", "words"), MISTAKES, ids=[case[-1] for case in MISTAKES])
def test_a_mistake_is_told_where_it_is_made_with_the_value_and_the_mend(
    make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        make(*given, **named)
