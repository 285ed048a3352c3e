"""Error messages that name the nearest valid choice."""

import difflib
from collections.abc import Iterable, Sequence


class ExpectedError(RuntimeError):
    """A failure that is no defect of the program: the command line tells it in one line, without a traceback."""


def suggest(name: str, valid: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" (with its leading space) for the nearest name in `valid`, or "" when none is near.

    >>> f"Unknown field 'hiden_dim'.{suggest('hiden_dim', ['hidden_dim', 'lr'])}"
    "Unknown field 'hiden_dim'. Did you mean 'hidden_dim'?"
    """
    folded = {option.lower().replace("-", "_"): option for option in valid}
    nearest = difflib.get_close_matches(str(name).lower().replace("-", "_"), folded, n=1, cutoff=0.5)
    return f" Did you mean '{folded[nearest[0]]}'?" if nearest else ""


def unknown_name(what: str, name: str, valid: Iterable[str]) -> ValueError:
    """Builds "Unknown env 'x'. Available: a, b. Did you mean 'a'?" for the caller to raise."""
    options = sorted(valid)
    available = ", ".join(options) if options else "none"
    return ValueError(f"Unknown {what} {name!r}. Available: {available}.{suggest(name, options)}")


def listed(names: Sequence[str], count: int = 6) -> str:
    """The first `count` names, and how many more there are.

    >>> listed(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def check_names(what: str, given: Iterable[str], valid: Iterable[str]) -> None:
    """Raises a ValueError that lists every name of `given` that is not in `valid`, each with its nearest valid name."""
    options = sorted(valid)
    wrong = [name for name in given if name not in options]
    if wrong:
        each = " ".join(f"{name!r}.{suggest(name, options)}" for name in wrong)
        raise ValueError(f"Unknown {what} {each} Available: {', '.join(options)}.")
