"""Code blocks of the pages, and how their commands are made short enough for a test."""

import dataclasses
import os
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- (?:not run: (?P<why>[^\n]+)|run by: (?P<target>[^\n]+)) -->\n+)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.S | re.M,
)
RUN = ("python", "sh")
NEVER_RUN = ("text", "toml", "yaml", "xml", "json")

# A reader's machine has one device; here compiling is most of what is waited for.
READER = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

# of python -> what makes it short
SHORT_PYTHON = {"total_timesteps=409_600": "total_timesteps=16_384"}

# command -> options that make it short; an option that is there already is changed
SHORT = {
    "rl": {"--total-steps": "2048", "--ppo.n-steps": "1024", "--ppo.num-envs": "32", "--ppo.num-minibatches": "2"},
    "eval": {"--n-episodes": "2"},
    "transfer": {"--n-episodes": "2", "--parameters": "gravity"},
    "datagen": {"--n-episodes": "40"},
    "recipe": {
        "--datagen.n-episodes": "20",
        "--train.max-steps": "20",
        "--eval.n-episodes": "2",
        "--train.batch-size": "16",
    },
    "train": {"--max-steps": "20", "--batch-size": "16", "--warmup-steps": "2", "--eval-every": "10"},
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its page, line, language, text, why it is not run, and the make target that alone can run it
    ("" where anybody can).
    """

    page: Path
    line: int
    language: str
    code: str
    why: str
    target: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page,
            text[: found.start("code")].count("\n") + 1,
            found["language"],
            found["code"],
            found["why"] or "",
            found["target"] or "",
        )
        for found in FENCE.finditer(text)
    ]


def commands(code: str) -> list[list[str]]:
    """The commands of a sh block, one for each line, without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def short(words: list[str]) -> list[str]:
    """A simscale command with the options that make it short; of `launch` those of the command that it starts."""
    if words[1] == "launch":
        at = words.index("--")
        return [*words[: at + 1], *short(["simscale", *words[at + 1 :]])[1:]]
    words = list(words)
    for option, value in SHORT.get(words[1], {}).items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return words
