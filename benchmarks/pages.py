"""Parts of pages that scripts write."""


def between(page: str, marks: tuple[str, str], new: str) -> str:
    """The page with `new` between its marks, a line each, in place of what was there.

    Raises:
      ValueError: the page does not have each mark once.
    """
    begin, end = marks
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{new}\n{end}{after}"
