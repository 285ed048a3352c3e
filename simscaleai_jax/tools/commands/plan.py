"""`simscale plan`: compile a run's programs for a machine that is not there, and say what they need."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tyro

from simscaleai_jax.core.config import read_yaml
from simscaleai_jax.core.errors import check_names
from simscaleai_jax.tools.arguments import config_path, with_preset
from simscaleai_jax.tools.output import print_report

DESCRIPTION = """Compile the programs of a run for a machine that is not there, and say what they need: seconds to
compile, memory of a chip, work, exchanges between chips, the compiler's own estimate of time. Nothing runs.

A preset's name, or rl or train, may come first; all options of simscale rl and simscale train are taken. TPUs need
libtpu: pip install 'simscaleai-jax[tpu]'; GPUs need JAX's CUDA plugin: 'simscaleai-jax[plan-cuda]'. Estimates are no
measurements.

Examples:
  simscale plan ppo_reach --topology v5e:4x4
  simscale plan ppo_pick_place --topology v5e:16x16 --ppo.num-envs 32768 --ppo.n-steps 524288
  simscale plan train --model vla --batch-size 8192 --fsdp --topology v6e:16x16 --json
  simscale plan ppo_pick_place --topology v5e:1x1 --fit
  simscale plan ppo_reach --topology h100:8 --ppo.num-envs 32768 --ppo.n-steps 524288"""

RL_KEYS = ("env_name", "ppo", "env")  # a file with one of these is one of simscale rl


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """Options of `simscale plan`; those of the run follow.

    Attributes:
      topology: machine to compile for: CHIP:SHAPE (chip: v4, v5e, v5p, v6e, tpu7x), a100:N, h100:N, h200:N or cpu:N.
      slices: so many of them (of GPUs: nodes), connected by the slower network.
      programs: what to compile: update, and start (rl) or evaluate (train).
      fit: find the most environments, or the largest batch, that fit: doubles and halves until twice it does not.
    """

    topology: str
    slices: int = 1
    programs: tuple[str, ...] = ("update",)
    fit: bool = False


def main(argv: list[str]) -> None:
    """Parses the options, compiles, prints."""
    options, rest = tyro.cli(
        PlanOptions, args=argv, prog="simscale plan", description=DESCRIPTION, return_unknown_args=True
    )
    show(plan(options, rest))


def plan(options: PlanOptions, argv: list[str]) -> dict[str, Any]:
    """The report: what is compiled, and per program what `plan.report.examine` says; with `fit` also the sizes that
    were tried, in order, and the bytes that each needs (or why it does not fit).

    Raises:
      ValueError: unknown topology, program or option, or sizes that do not divide.
      ImportError: libtpu is missing.
      TooLargeError: it does not fit (without `fit`).
    """
    import jax

    jax.config.update("jax_platforms", "cpu")  # a TPU of this machine is not needed, and left to others
    from simscaleai_jax.plan.targets import find_target

    target = find_target(options.topology, options.slices)
    run = (rl_run if is_rl(argv) else train_run)(argv[1:] if argv[:1] in (["rl"], ["train"]) else argv, target)
    made = run.programs()
    check_names("program", options.programs, made)
    from simscaleai_jax.plan.report import examine

    known: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    if options.fit:
        run, known["update"], fit["tried"] = _fit(run, target)
        made = run.programs()
    found = {name: known.get(name) or examine(made[name], target, run.is_split) for name in options.programs}
    return {"run": run.name, **run.sizes, **fit, "programs": found}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that can be compiled.

    Attributes:
      name: for people. sizes: its numbers, for people.
      size: environments, or samples of a batch.
      smallest: the least of them that the machine's devices can share.
      programs: makes them.
      sized: the same run at another size.
      is_split: parameters are split over the devices.
    """

    name: str
    sizes: dict[str, int]
    size: int
    smallest: int
    programs: Callable[[], dict[str, Any]]
    sized: Callable[[int], "Run"]
    is_split: bool = False


def is_rl(argv: list[str]) -> bool:
    """Whether the arguments are of `simscale rl`, by their first word or by their file; else they are of `train`."""
    if argv[:1] in (["rl"], ["train"]):
        return argv[0] == "rl"
    path = config_path(with_preset(argv, _TakesFiles))
    if path is None:
        raise ValueError("Say what to plan: rl or train, a preset's name, or --config FILE.")
    return any(key in read_yaml(path) for key in RL_KEYS)


@dataclasses.dataclass
class _TakesFiles:
    config: str | None = None


def rl_run(argv: list[str], target: Any) -> Run:
    """The run of `simscale rl` with these arguments."""
    from simscaleai_jax.core import sharding
    from simscaleai_jax.rl.ppo.ahead import make_programs
    from simscaleai_jax.rl.ppo.config import make_layout
    from simscaleai_jax.tools.commands import rl

    options = rl.parse_options(argv)
    if target.chip is not None:
        if options.env.impl not in (None, "auto", "jax"):
            raise ValueError(f"--env.impl {options.env.impl} does not run on {target.chip.name}; take jax.")
        options = dataclasses.replace(options, env=dataclasses.replace(options.env, impl="jax"))
    env = rl.make_training_env(options)

    def at(config: Any) -> Run:
        layout = make_layout(config, target.mesh.size, sharding.platform(target.mesh))
        sizes = {"environments": layout.num_envs, "steps": layout.num_steps, "minibatches": layout.num_minibatches}

        def sized(num_envs: int) -> Run:
            return at(dataclasses.replace(config, num_envs=num_envs, n_steps=num_envs * layout.num_steps))

        return Run(
            f"PPO on {options.env_name}", sizes, layout.num_envs, target.mesh.size,
            lambda: make_programs(env, config, target.mesh), sized,
        )  # fmt: skip

    return at(rl.ppo_config(options))


def train_run(argv: list[str], target: Any) -> Run:
    """The run of `simscale train` with these arguments; the model's sizes are those of the data where they are here."""
    from pathlib import Path

    from simscaleai_jax.core import sharding
    from simscaleai_jax.models import create_model
    from simscaleai_jax.tools.commands import train
    from simscaleai_jax.training.ahead import make_programs
    from simscaleai_jax.training.setup import data_spec, model_arguments

    options = train.parse_options(argv)
    devices = list(target.mesh.devices.flat)
    mesh = sharding.make_grid(devices) if options.fsdp else target.mesh
    kwargs = dict(options.model_kwargs)
    if options.dataset_path and Path(options.dataset_path).is_file():
        dataset = train.open_dataset(options, options.data.split)
        kwargs = dict(model_arguments(options.model_name, data_spec(dataset), kwargs))
    elif options.dataset_path:
        print(f"{options.dataset_path} is not here: the model has its own sizes (--model.NAME).", file=sys.stderr)
    spec = create_model(options.model_name, **kwargs).input_spec

    def at(config: Any) -> Run:
        return Run(
            options.model_name, {"batch": config.batch_size}, config.batch_size, target.mesh.size,
            lambda: make_programs(
                lambda: create_model(options.model_name, **kwargs), spec(config.batch_size), config, mesh
            ),
            lambda size: at(dataclasses.replace(config, batch_size=size)), config.fsdp,
        )  # fmt: skip

    return at(options)


def _fit(run: Run, target: Any) -> tuple[Run, dict[str, Any], list[dict[str, Any]]]:
    """(the run at the largest size that fits, what its update needs, every size that was tried)."""
    from simscaleai_jax.plan.fit import largest
    from simscaleai_jax.plan.report import TooLargeError, examine

    if target.chip is None:
        raise ValueError("--fit needs a topology whose memory is known; a CPU's is not.")
    reports: dict[int, dict[str, Any]] = {}
    tried: list[dict[str, Any]] = []

    def needs(size: int) -> float | None:
        try:
            reports[size] = examine(run.sized(size).programs()["update"], target, run.is_split)
        except TooLargeError as error:
            tried.append({"size": size, "needed": None, "error": str(error)})
        else:
            tried.append({"size": size, "needed": reports[size]["memory"]["needed"]})
        print(f"{size:,}: {_says(tried[-1])}", file=sys.stderr, flush=True)
        return tried[-1]["needed"]

    found = largest(needs, run.size, target.chip.memory, run.smallest)
    if found is None:
        raise ValueError(f"{run.name} does not fit into {target.name} at any size.")
    return run.sized(found), reports[found], tried


def _says(size: dict[str, Any]) -> str:
    return size["error"] if size["needed"] is None else f"{size['needed'] / 2**20:,.0f} MiB"


def show(report: dict[str, Any]) -> None:
    """Prints tables for people, or with `--json` the report."""
    tables = [table for name in report["programs"] for table in _tables(report, name)]
    if "tried" in report:
        rows = [(f"{size['size']:,}", _says(size)) for size in report["tried"]]
        tables.insert(0, ("Sizes that were compiled", ("size", "memory of a chip"), rows))
    print_report(report, *tables)
    for found in report["programs"].values():
        for warning in found["warnings"]:
            print(f"warning: {warning}")


def _tables(report: dict[str, Any], name: str) -> Iterator[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
    found = report["programs"][name]
    sizes = ", ".join(f"{value:,} {what}" for what, value in report.items() if isinstance(value, int))
    machine = f"{found['devices']} devices" + (f" of {found['slices']} slices" if found["slices"] > 1 else "")
    title = f"{report['run']}, {sizes}: {name} on {found['topology']} ({machine})"
    yield title, ("per chip and call", "value"), _rows(found)
    exchanged = [
        (row["kind"], f"{row['count']:,}", f"{row['size']:,}", ", ".join(row["axes"]) or "-", row["from"][-60:])
        for row in found["collectives"]["each"]
    ]
    if exchanged:
        yield "Exchanges", ("kind", "times", "bytes each", "axis", "from"), exchanged
    if cycles := found["cycles"]:
        parts = [
            (part, f"{count:,}", f"{100 * count / cycles['total']:.1f}%") for part, count in cycles["parts"].items()
        ]
        yield "Cycles, as the compiler estimates them", ("part", "cycles", "share"), parts
        rows = [
            (f"{row['cycles']:,}", f"{row['count']:,}", row["shape"], row["from"][-90:]) for row in cycles["costliest"]
        ]
        yield "Costliest instructions", ("cycles", "times", "result", "from"), rows


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    memory, flops, collectives = found["memory"], found["flops"], found["collectives"]
    mib = {name: f"{value / 2**20:,.1f} MiB" for name, value in memory.items() if value is not None}
    rows = [(f"{name}, seconds", f"{value:,.1f}") for name, value in found["seconds"].items()]
    rows += [(f"memory: {name}", value) for name, value in mib.items()]
    rows += [
        ("operations in products", f"{flops['products']:,.0f}"),
        ("operations elsewhere", f"{flops['other']:,.0f}"),
        ("bytes between memory and cores", f"{found['bytes_moved']:,}"),
        ("exchanges between chips", f"{collectives['count']:,}, {collectives['bytes']:,} bytes"),
        ("bytes that a chip sends within its slice", f"{collectives['sent']:,.0f}"),
    ]
    if found["slices"] > 1:
        rows.append(("bytes that a chip sends to other slices", f"{collectives['sent_between_slices']:,.0f}"))
    if estimate := found["estimate"]:
        says = {"products": "products", "memory": "memory", "links": "links", "cycles": "compiler's cycles"}
        rows += [
            (f"estimate from {says[name]} (peaks, not measured)", f"{1e3 * value:,.3f} ms")
            for name, value in estimate.items()
            if value is not None
        ]
    return rows
