"""The two windows, against counting everything anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rpcfw.breaker.window import CallsWindow, SecondsWindow

STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.4, 1.0, 3.0, 9.0, 50.0]), st.sampled_from([True, False, None])),
    max_size=80,
)


@given(STEPS, st.sampled_from([0.5, 3.0, 10.0]), st.sampled_from([0.0, 1234.5, 1e7]))
def test_a_window_of_seconds_counts_the_calls_of_its_ten_parts(
    steps: list[tuple[float, bool | None]], window_s: float, start: float
) -> None:
    window, now, counted = SecondsWindow(window_s), start, list[tuple[int, bool]]()
    for wait_s, failed in steps:
        now += wait_s
        part = int(now * (10 / window_s))
        if failed is None:
            window.clear()
            counted.clear()
        else:
            window.add(now, failed)
            counted.append((part, failed))
        recent = [bad for at, bad in counted if at > part - 10]
        assert window.count(now) == (len(recent), sum(recent))


def test_a_window_of_seconds_looks_back_nine_tenths_at_least_and_its_length_at_most() -> None:
    window = SecondsWindow(10.0)
    window.add(100.0, False)
    window.add(100.9, True)
    assert window.count(109.99) == (2, 1)
    assert window.count(110.0) == (0, 0)


@given(STEPS, st.integers(1, 20))
def test_a_window_of_calls_counts_the_last_ones(steps: list[tuple[float, bool | None]], size: int) -> None:
    window, counted = CallsWindow(size), list[bool]()
    for _, failed in steps:
        if failed is None:
            window.clear()
            counted.clear()
        else:
            window.add(0.0, failed)
            counted.append(failed)
        assert window.count(0.0) == (len(counted[-size:]), sum(counted[-size:]))
