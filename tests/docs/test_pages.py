"""Every code block of README.md and docs/ runs, in the order of its page, or says why it does not."""

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import NEVER_RUN, PAGES, READER, ROOT, RUN, SHORT_PYTHON, blocks, commands, short

SIMSCALE = [sys.executable, "-m", "simscaleai_jax.tools.cli"]
CLIENTS = "make test-clients"


def pages_with(target):
    """Pages of which a block is run by that target."""
    return [page for page in PAGES if any(b.language in RUN and not b.why and b.target == target for b in blocks(page))]


SECONDS = 600


def test_every_block_says_its_language_and_runs_or_says_why_not():
    every = [block for page in PAGES for block in blocks(page)]
    assert len(every) > 30
    assert all(any(long in block.code for block in every) for long in SHORT_PYTHON), "nothing is made short any more"
    for block in every:
        assert block.language in (*RUN, *NEVER_RUN), f"{block}: a language"
        if block.language == "sh" and not block.why:
            assert all(words[0] == "simscale" for words in commands(block.code)), f"{block}: only simscale is run"
        assert block.target in ("", CLIENTS), f"{block}: no such target"
        assert block.language in RUN or not block.why, f"{block}: is never run anyhow"


def test_commands_are_made_short():
    assert short(["simscale", "eval", "x", "--n-episodes", "500"]) == ["simscale", "eval", "x", "--n-episodes", "2"]
    launched = short(["simscale", "launch", "--", "datagen", "--policy", "scripted"])
    assert launched == ["simscale", "launch", "--", "datagen", "--policy", "scripted", "--n-episodes", "40"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with what pages take for granted: demonstrations, runs, an export."""
    folder = tmp_path_factory.mktemp("made")
    for line in (
        "simscale datagen --env-name reach --policy scripted --env.dt 0.01 --n-episodes 40 --output data/reach.h5",
        "simscale rl ppo_reach --output checkpoints/ppo_reach",
        "simscale rl ppo_pick_place --output checkpoints/ppo_pick_place",
        "simscale train bc_reach --checkpoint-dir checkpoints/bc_reach",
        "simscale export checkpoints/bc_reach --format safetensors --output policy.safetensors",
    ):
        simscale(short(line.split()), folder)
    shutil.copytree(folder / "checkpoints" / "ppo_reach", folder / "checkpoints" / "first")
    for name in ("examples", "configs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def simscale(words, folder):
    done = subprocess.run(
        [*SIMSCALE, *words[1:]], cwd=folder, env=READER, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.wide
@pytest.mark.parametrize("page", pages_with(""), ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, made, tmp_path):
    run_page(page, made, tmp_path, ("",))


@pytest.mark.clients
@pytest.mark.parametrize("page", pages_with(CLIENTS), ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_with_other_libraries(page, made, tmp_path):
    run_page(page, made, tmp_path, ("", CLIENTS))


def run_page(page, made, tmp_path, targets):
    """Runs the blocks of a page that these targets run, in a copy of the folder."""
    folder = tmp_path / "work"
    shutil.copytree(made, folder, symlinks=True)
    script: list[str] = []
    for name, text in scenes(page):
        (folder / name).write_text(text)
    chosen = [block for block in blocks(page) if not block.why and block.language in RUN and block.target in targets]
    for block, following in itertools.zip_longest(chosen, chosen[1:]):
        if block.language == "sh":
            for words in commands(block.code):
                prepare(words, folder)
                simscale(short(words), folder)
            continue
        script.append(block.code)
        if following is None or following.language == "sh":
            python("\n".join(script), folder, f"{page.stem}, python up to {block}")


def scenes(page):
    """(name, text) of every xml block under a heading that names a file."""
    found = re.findall(r"^#[^\n]*`(\w+\.xml)`\n(?:(?!^#).)*?^```xml\n(.*?)^```", page.read_text(), re.S | re.M)
    return found


def prepare(words, folder):
    """What a command writes is out of its way, though the folder was made with one of that name."""
    if words[1] not in ("rl", "train", "datagen"):
        return
    given = [words[words.index(option) + 1] for option in ("--output", "--checkpoint-dir") if option in words]
    preset = [f"checkpoints/{words[2]}"] if words[1] != "datagen" else []
    for target in (folder / name for name in given or preset):
        if target.exists():
            shutil.rmtree(target) if target.is_dir() else target.unlink()


def python(code, folder: Path, where):
    for long, brief in SHORT_PYTHON.items():
        code = code.replace(long, brief)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=READER, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{where}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
