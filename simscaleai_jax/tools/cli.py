"""`simscale`: finds the command and hands over; nothing heavy is imported before that.

A new command is a module with `main(argv: list[str]) -> None` and an entry in `COMMANDS`; one that prints tables is in
`WITH_TABLES`, too.
"""

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from simscaleai_jax import __version__
from simscaleai_jax.core.errors import ExpectedError, unknown_name
from simscaleai_jax.tools.output import as_json, print_rich

# name -> (module, what it does, an example)
COMMANDS = {
    "demo": (
        "simscaleai_jax.tools.commands.demo",
        "Learn pick and place from nothing, evaluate, and film it",
        "simscale demo",
    ),
    "rl": (
        "simscaleai_jax.tools.commands.rl",
        "Train a policy with PPO",
        "simscale rl ppo_reach",
    ),
    "train": (
        "simscaleai_jax.tools.commands.train",
        "Train a model on demonstrations",
        "simscale train --dataset data/reach.h5 --max-steps 5000",
    ),
    "recipe": (
        "simscaleai_jax.tools.commands.recipe",
        "Make demonstrations, train on them and evaluate, in one command that goes on where it was stopped",
        "simscale recipe bc_pick_place",
    ),
    "dagger": (
        "simscaleai_jax.tools.commands.dagger",
        "Let an expert correct a policy that was trained on demonstrations",
        "simscale dagger checkpoints/bc_pick_place",
    ),
    "launch": (
        "simscaleai_jax.tools.commands.launch",
        "Start a command as several processes that work together",
        "simscale launch --num-processes 2 -- train --distributed",
    ),
    "plan": (
        "simscaleai_jax.tools.commands.plan",
        "Compile a run for a TPU that is not there: memory, exchanges, estimated time",
        "simscale plan ppo_pick_place --topology v5e:16x16",
    ),
    "eval": (
        "simscaleai_jax.tools.commands.eval",
        "Play fresh episodes with a checkpoint, all at once and behind the gymnasium API",
        "simscale eval checkpoints/ppo_reach --n-episodes 100",
    ),
    "transfer": (
        "simscaleai_jax.tools.commands.transfer",
        "Play a checkpoint under randomized physics; table and heat map",
        "simscale transfer checkpoints/ppo_reach",
    ),
    "datagen": (
        "simscaleai_jax.tools.commands.datagen",
        "Write demonstrations of an expert, random actions or a checkpoint",
        "simscale datagen --env-name reach --policy scripted",
    ),
    "merge": (
        "simscaleai_jax.tools.commands.merge",
        "Join the shards of a data set",
        "simscale merge data/reach.h5 data/reach-*-of-00004.h5",
    ),
    "export-dataset": (
        "simscaleai_jax.tools.commands.export_dataset",
        "Convert a data set to LeRobot or robomimic, or from LeRobot",
        "simscale export-dataset data/reach.h5 lerobot/reach --to lerobot",
    ),
    "view": (
        "simscaleai_jax.tools.commands.view",
        "Watch a policy's episodes in a browser",
        "simscale view checkpoints/ppo_pick_place",
    ),
    "viz-env": (
        "simscaleai_jax.tools.commands.viz_env",
        "Draw frames of an environment, or a video",
        "simscale viz-env --env-name pick_place --save frames.png",
    ),
    "viz-cameras": (
        "simscaleai_jax.tools.commands.viz_cameras",
        "Draw RGB, depth and segmentation of every camera",
        "simscale viz-cameras --env-name pick_place --save cameras.png",
    ),
    "viz-live": (
        "simscaleai_jax.tools.commands.viz_live",
        "Watch episodes in MuJoCo's viewer",
        "simscale viz-live --env-name reach",
    ),
    "viz-dataset": (
        "simscaleai_jax.tools.commands.viz_dataset",
        "Draw what is in a data set",
        "simscale viz-dataset data/reach.h5 --save reach.png",
    ),
    "viz-trajectory": (
        "simscaleai_jax.tools.commands.viz_trajectory",
        "Draw one episode of a data set",
        "simscale viz-trajectory data/reach.h5 --episode 3 --save episode.png",
    ),
    "export": (
        "simscaleai_jax.tools.commands.export",
        "Write a checkpoint's weights for torch",
        "simscale export checkpoints/bc --format safetensors",
    ),
    "import": (
        "simscaleai_jax.tools.commands.import_",
        "Read torch weights into a checkpoint",
        "simscale import policy.safetensors --output checkpoints/policy",
    ),
    "config": (
        "simscaleai_jax.tools.commands.config",
        "Show the whole configuration of a command, a preset or a run",
        "simscale config show rl ppo_pick_place --ppo.lr 1e-3",
    ),
    "doctor": (
        "simscaleai_jax.tools.commands.doctor",
        "Say what this machine has, how fast each physics engine is, and what to mend",
        "simscale doctor",
    ),
    "bench": (
        "simscaleai_jax.tools.commands.bench",
        "Run the benchmarks of a checkout, beside other libraries, and write their page",
        "simscale bench all --quick",
    ),
    "completion": (
        "simscaleai_jax.tools.commands.completion",
        "Print what completes commands and options in a shell",
        "simscale completion bash",
    ),
    "list-envs": ("simscaleai_jax.tools.commands.list_envs", "List environments", "simscale list-envs"),
    "list-robots": ("simscaleai_jax.tools.commands.list_robots", "List arms by name", "simscale list-robots"),
    "list-models": ("simscaleai_jax.tools.commands.list_models", "List models", "simscale list-models"),
}

# Commands that print a table, and with --json the same as one JSON value.
WITH_TABLES = (
    "demo", "rl", "train", "recipe", "dagger", "plan", "eval", "transfer", "datagen", "viz-live", "doctor", "bench",
    "list-envs", "list-robots", "list-models",
)  # fmt: skip

# Told to the user as one line; anything else is a defect and shows its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, ExpectedError)
OUTSIDE_SECONDS = 0.05  # for Python to leave the destructor or callback that dropped an interrupt
BROKEN_PIPE = 128 + 13  # as a shell says of a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 (it failed), 2 (called wrongly), 130 (interrupted)."""
    try:
        status = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except (BrokenPipeError, SystemExit):  # with the latter, help that was printed waits to be written
        if not _is_unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE


def run(arguments: list[str]) -> int:
    """As `main`, but for what happens when nobody reads the output."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help()
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"simscale {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"simscale: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    rest, flags = take_flags(rest)
    with interrupts() as interrupted:
        try:
            return run_command(name, rest, flags)
        except KeyboardInterrupt:
            pass
        except Exception:
            if not interrupted:
                raise
        print(f"simscale {name}: interrupted", file=sys.stderr)
        return 130


def run_command(name: str, rest: list[str], flags: set[str]) -> int:
    """Runs one of `COMMANDS`; returns the exit status, 0 or 1."""
    try:
        rest, modules = take_imports(rest)
        if "--json" in flags and name not in WITH_TABLES:
            raise ValueError(f"--json: this command prints no table; these do: {', '.join(WITH_TABLES)}")
        with as_json(sys.stdout) if "--json" in flags else contextlib.nullcontext():
            for module in modules:
                import_module(module)
            importlib.import_module(COMMANDS[name][0]).main(rest)
    except USER_ERRORS as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            raise
        if "--traceback" in flags:
            traceback.print_exc()
        place = "" if isinstance(error, ExpectedError) else _place(error)
        print(f"simscale {name}: {error}{place}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Makes Ctrl-C end a command wherever it strikes; yields the signals heard so far.

    In a destructor or a callback of the garbage collector Python only reports a KeyboardInterrupt: it is raised again
    outside. In a callback of a compiled program the runtime makes an error of its own out of it.
    """
    heard: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()  # the only one that may set a handler
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored after nohup
        yield heard
        return

    def hear(signum: int, _: FrameType | None) -> None:
        heard.append(signum)
        raise KeyboardInterrupt

    def raise_again(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            main = threading.main_thread().ident
            threading.Timer(OUTSIDE_SECONDS, signal.pthread_kill, (main, signal.SIGINT)).start()
        else:
            hook(unraisable)

    hook, handler = sys.unraisablehook, signal.signal(signal.SIGINT, hear)
    sys.unraisablehook = raise_again
    try:
        yield heard
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, handler)


def _is_unread() -> bool:
    """Whether nobody reads standard output any more: whoever did has had enough of it, as `| head` has."""
    output = select.poll()
    output.register(1, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _place(error: BaseException) -> str:
    """Where in the user's own code an error came up, if it did: " (FILE, line 3; ...)"."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f" ({own[-1].filename}, line {own[-1].lineno}; --traceback shows the way there)" if own else ""


def _is_users(file: str) -> bool:
    """Whether a file is neither this package's nor an installed one's nor Python's."""
    package = str(Path(__file__).parents[1])
    return not file.startswith(("<", package, sys.prefix, sys.base_prefix))


def take_flags(argv: Sequence[str]) -> tuple[list[str], set[str]]:
    """Takes `--json` and `--traceback` before a "--" out of the arguments: (the others, those two)."""
    at = argv.index("--") if "--" in argv else len(argv)
    flags = {"--json", "--traceback"} & set(argv[:at])
    return [*(argument for argument in argv[:at] if argument not in flags), *argv[at:]], flags


def take_imports(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes every `--import MODULE` before a "--" out of the arguments: (the others, the modules).

    Raises:
      ValueError: `--import` without a module.
    """
    at = argv.index("--") if "--" in argv else len(argv)
    rest: list[str] = []
    modules: list[str] = []
    given = iter(argv[:at])
    for argument in given:
        name, is_joined, module = argument.partition("=")
        if name != "--import":
            rest.append(argument)
            continue
        module = module if is_joined else next(given, "")
        if not module or module.startswith("-"):
            raise ValueError(f"--import: wanted a module or a Python file, got {module or 'nothing'}")
        modules.append(module)
    return [*rest, *argv[at:]], modules


def import_module(name: str) -> None:
    """Imports a module (found from the working folder, too) or a Python file, which may register tasks.

    Raises:
      ImportError: there is none, or one that it imports is missing.
    """
    if not name.endswith(".py"):
        sys.path.insert(0, "")  # as `python -m` does
        importlib.import_module(name)
        return
    path = Path(name)
    if not path.is_file():
        raise ImportError(f"--import {name}: no such file")
    sys.path.insert(0, str(path.resolve().parent))
    importlib.import_module(path.stem)


def _print_help() -> None:
    from rich.table import Table

    table = Table("command", "what it does", "for example", box=None, header_style="bold", pad_edge=False)
    for name, (_, purpose, example) in COMMANDS.items():
        table.add_row(name, purpose, f"[dim]{example}[/dim]")
    print_rich(
        f"[bold]simscale {__version__}[/bold]: train robots in thousands of simulations at once\n",
        table,
        "\n[bold]simscale COMMAND --help[/bold] explains a command's options; [bold]--version[/bold] the version.\n"
        "Every command takes [bold]--import MODULE[/bold] (or FILE.py), which makes tasks of your own known to it,\n"
        "and [bold]--traceback[/bold]; one that prints a table takes [bold]--json[/bold].",
    )


if __name__ == "__main__":
    sys.exit(main())
