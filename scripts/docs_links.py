"""Links of the pages that leave docs/ (benchmarks, tests, examples) as links into the repository, for the site."""

import re

REPOSITORY = "https://github.com/simscaleai/simscaleai_jax/blob/main/"
LEAVING = re.compile(r"\]\((?:\.\./)+(?!\.)([^)]+)\)")


def on_page_markdown(markdown, page, **_):
    """Called by mkdocs for every page."""
    if page.file.src_uri.startswith(("api/", "notebooks/")):
        return markdown
    return LEAVING.sub(lambda found: f"]({REPOSITORY}{found[1]})", markdown)
