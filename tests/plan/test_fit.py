"""The search for the largest size."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from simscaleai_jax.plan.fit import largest


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 2e9), st.floats(1, 1e7), st.integers(1, 40), st.integers(0, 20), st.floats(0.5, 2.0))
def test_the_answer_fits_and_twice_it_does_not(fixed, each, unit, doublings, slack):
    """Also where the compiler's limit is not quite what the chip is said to have."""
    available = 16e9
    start, tried = unit * 2**doublings, {}

    def needs(size):
        assert size not in tried, "nothing is compiled twice"
        tried[size] = fixed + each * size
        return tried[size] if tried[size] <= available * slack else None

    found = largest(needs, start, available, smallest=unit)
    if found is None:
        assert fixed + each * unit > available * slack
        return
    assert tried[found] <= available * slack < tried[2 * found]
    assert math.log2(found / start).is_integer()


def test_two_sizes_are_enough_to_confirm_a_need_that_grows_with_the_size():
    """The first says how large; then the answer and twice it, in either order."""
    tried = []

    def needs(size):
        tried.append(size)
        return 2.0 + size if size <= 500 else None

    assert largest(needs, 16, 640.0) == 256
    assert tried == [16, 512, 256]
