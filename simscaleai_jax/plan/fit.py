"""The largest size of a run that fits into a machine's memory."""

import math
from collections.abc import Callable


def largest(needs: Callable[[int], float | None], start: int, available: float, smallest: int = 1) -> int | None:
    """The largest of start x 2^k that fits while twice that does not; every answer has been tried.

    Sizes that are tried follow from the need of the largest that fits, since programs take minutes to compile.

    Args:
      needs: size -> bytes that it needs, None where it does not compile; called once for each size.
      start: a size to begin with.
      available: bytes; says where to look next.
      smallest: size below which there is nothing.
    Returns:
      The size, or None where not even the smallest fits.
    """
    fits: int | None = None
    too_large: int | None = None
    power, ahead = 0, 1
    while fits is None or too_large is None or too_large - fits > 1:
        size = start * 2**power if power >= 0 else start // 2**-power
        if size < smallest:
            return None
        needed = needs(size)
        if needed is None:
            too_large = power
        else:
            fits, ahead = power, max(1, math.floor(math.log2(available / needed)))
        if fits is None:
            power -= 1
        else:
            power = fits + ahead if too_large is None else max(fits + 1, min(fits + ahead, too_large - 1))
    return start * 2**fits if fits >= 0 else start // 2**-fits
