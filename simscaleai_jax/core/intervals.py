"""How sure a measured share is."""

import math

Z = 1.96  # standard errors of a 95% interval


def wilson(rate: float, count: int) -> tuple[float, float]:
    """95% interval of a share `rate` seen in `count` trials (Wilson, https://doi.org/10.1080/01621459.1927.10502953)."""
    centre = rate + Z * Z / (2 * count)
    spread = Z * math.sqrt(rate * (1.0 - rate) / count + Z * Z / (4 * count * count))
    scale = 1.0 + Z * Z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
