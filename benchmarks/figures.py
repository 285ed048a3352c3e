"""Fills the figures of README.md, docs/benchmarks.md and docs/clients.md in from benchmarks/results/, so that none is
ever typed.

    python benchmarks/figures.py            writes what is between the marks in README.md and docs/clients.md, and
                                            docs/benchmarks.md
    python benchmarks/figures.py --check    exits with 1 where a page says something else

Needs nothing but Python.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
CLIENTS = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- figures: written by benchmarks/figures.py -->", "<!-- end of figures -->"
HEAD = "| what | figure | command |\n|---|---|---|\n"
ENGINE_NAMES = {"c": "C engine", "MJX": "MJX", "jax": "MJX", "host": "MuJoCo at dt 0.002"}

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One line of a table.

    Attributes:
      what: was measured.
      source: file under benchmarks/results/, without its suffix.
      figure: the text of its content.
      command: what prints it.
      in_readme: it is one of the few that the README shows.
    """

    what: str
    source: str
    figure: Callable[[Result], str]
    command: str
    in_readme: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """Claims of one kind, and what is not equal in their comparisons."""

    title: str
    text: str
    claims: Sequence[Claim]


def main(argv: Sequence[str]) -> int:
    """Writes the pages, or compares them."""
    wanted = {README: readme(README.read_text()), PAGE: page(), CLIENTS: clients(CLIENTS.read_text())}
    if "--check" not in argv:
        for path, text in wanted.items():
            path.write_text(text)
        return 0
    stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for name in stale:
        print(f"{name} does not say what benchmarks/results/ says; run python benchmarks/figures.py", file=sys.stderr)
    return bool(stale)


def readme(text: str) -> str:
    """The README with its table as the results have it."""
    rows = [
        row(dataclasses.replace(claim, what=f"{section.title}: {claim.what.removeprefix('... ')}"))
        for section in SECTIONS
        for claim in section.claims
        if claim.in_readme
    ]
    return between(text, f"{HEAD}{''.join(rows)}")


def between(text: str, content: str) -> str:
    """The text with other content between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n{END}{rest.split(END)[1]}"


def page() -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n\n"
        "Written by `python benchmarks/figures.py` from the JSON files under `benchmarks/results/`; a test fails\n"
        "where the two differ. Every file names the machine, the versions and the commit. Rates of different sections\n"
        "come from different days and loads; ratios within a line come from one run. No GPU or TPU has been measured.\n"
    ]
    for section in SECTIONS:
        rows = "".join(row(claim) for claim in section.claims)
        sources = sorted({claim.source for claim in section.claims})
        measured = "\n".join(f"- `{name}.json`: {stamped(load(name))}" for name in sources)
        parts.append(f"## {section.title}\n\n{section.text}\n\n{HEAD}{rows}\n{measured}\n")
    return "\n".join(parts)


def clients(text: str) -> str:
    """docs/clients.md with what benchmarks/clients.py has found."""
    result = load("clients")
    known = result["clients"]
    lines = [
        f"| {title} | {known[name]['version']} | {what} | {figure(known[name])} |\n"
        for name, (title, what, figure) in CLIENT_ROWS.items()
        if name in known
    ]
    head = "| client | version | what was run | result |\n|---|---|---|---|\n"
    policies = {kind: each for kind, each in known.get("policies", {}).items() if isinstance(each, dict)}
    columns = ("load_policy", "torch", "onnx", "stablehlo")
    loop = "| policy, task | `load_policy` | torch | ONNX | StableHLO | largest difference from `load_policy` |\n"
    loop += "|---|---|---|---|---|---|\n"
    for kind, each in policies.items():
        rates = " | ".join(share(each["success"][way]["rate"], each["success"][way]["interval"]) for way in columns)
        differences = ", ".join(f"{way} {each['difference'][way]:.1e}" for way in columns[1:])
        loop += f"| {kind}, {each['env']} | {rates} | {differences} |\n"
    return between(text, f"{head}{''.join(lines)}\n{loop}\nMeasured on {stamped(result)}.\n")


def share(rate: float, interval: Sequence[float]) -> str:
    """A success rate with its interval."""
    return f"{rate:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def learned(result: Result) -> str:
    """Success of every seed."""
    runs = result["runs"]
    rates = ", ".join(f"{run['success']:.1%}" for run in runs)
    low = min(run["interval"][0] for run in runs)
    return (
        f"{rates} of {runs[0]['episodes']} fresh episodes each (seeds {', '.join(str(run['seed']) for run in runs)}; "
        f"no interval begins below {low:.1%}), {runs[0]['steps']:,} steps"
    )


def row(claim: Claim) -> str:
    """A line of a table."""
    return f"| {claim.what} | {claim.figure(load(claim.source))} | `{claim.command}` |\n"


def load(name: str) -> Result:
    """A file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def stamped(result: Result) -> str:
    """When and on what something was measured."""
    hardware, versions = result["hardware"], result["versions"]
    machine = f"{hardware['cores']} cores of an {hardware['cpu']}"
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{result['date']}, commit {result['commit']}, {machine}; {libraries}"


def engines(result: Result) -> str:
    """Rates of the C engine, and beside MJX and a bare loop in the same run."""
    c, mjx = result["batched"]
    return (
        f"{c['steps_per_second']:,.0f} env steps/s, {mjx['times_slower']:.1f} times MJX "
        f"({mjx['steps_per_second']:,.0f}) and {c['share_of_bare']:.0%} of a bare loop over `mujoco.batch.Batch`"
    )


def first_calls(result: Result) -> str:
    """Seconds until the first step, without a cache."""
    c, mjx = ({name: each[f"{name}_seconds"] for name in ("init", "first_call")} for each in result["batched"])
    return (
        f"{c['init']:.1f} s to start and {c['first_call']:.1f} s for the first step; "
        f"MJX {mjx['init']:.1f} and {mjx['first_call']:.1f} s"
    )


def in_ppo(result: Result) -> str:
    """Rates with PPO on top."""
    return ", ".join(
        f"{ENGINE_NAMES[each['impl']]} {each['ppo_steps_per_second']:,.0f} steps/s" for each in result["batched"]
    )


def host(result: Result) -> str:
    """The gymnasium adapter."""
    each = result["host"]
    return f"{each['steps_per_second']:,.0f} env steps/s, {each['share_of_bare']:.0%} of a bare loop over `mj_step`"


def ppo_clock(result: Result) -> str:
    """Seconds and steps to 95% of plain starts."""
    runs = result["runs"].values()
    seconds = sorted(run["seconds_to_95_percent_plain_success"] for run in runs)
    steps = sorted(run["steps_to_95_percent_plain_success"] for run in runs)
    return (
        f"95% of plain starts after {seconds[0]:.0f} to {seconds[-1]:.0f} s of updates (median "
        f"{statistics.median(seconds):.0f} s), {steps[0]:,.0f} to {steps[-1]:,.0f} steps, {len(seconds)} seeds"
    )


def ppo_beside_bare(result: Result) -> str:
    """Wall-clock to 95% over what the physics alone would take, of the slowest seed."""
    return (
        f"at most {result['worst_times_bare']:.1f} times as long as a bare loop over `mujoco.batch.Batch` takes for "
        f"the same steps; median {result['median_seconds']:.0f} s, {result['reached']} of {len(result['runs'])} seeds"
    )


def ppo_minutes(result: Result) -> str:
    """Minutes of all updates."""
    runs = list(result["runs"].values())
    minutes = sorted(run["minutes"] for run in runs)
    return f"{runs[0]['steps']:,} steps in {minutes[0]:.1f} to {minutes[-1]:.1f} minutes, {len(runs)} seeds"


def ppo_success(result: Result) -> str:
    """The worst seed on each engine."""
    evaluations = [run["evaluation"] for run in result["runs"].values()]
    lowest = {engine: min(each[engine]["success_rate"] for each in evaluations) for engine in evaluations[0]}
    return ", ".join(f"at least {rate:.1%} on {ENGINE_NAMES[engine]}" for engine, rate in lowest.items())


def demonstrations(env_name: str, **wanted: Any) -> Callable[[Result], str]:
    """Episodes per second of one case."""

    def figure(result: Result) -> str:
        case = next(c for c in result["cases"] if {"env_name": env_name, **wanted}.items() <= c.items())
        return (
            f"{case['episodes_per_second']:,.0f} episodes/s on {ENGINE_NAMES[case['impl']]} with "
            f"{case['num_envs']} environments, {case['success_rate']:.1%} successes"
        )

    return figure


def demo(result: Result) -> str:
    """Seconds of `simscale demo`."""
    rates = ", ".join(f"{each['success_rate']:.0%} on {ENGINE_NAMES[name]}" for name, each in result["success"].items())
    return f"{result['seconds']:.0f} s with an empty compile cache; {rates}"


def guard(result: Result) -> str:
    """Numbers that were not finite."""
    return (
        f"{result['env_steps']:,} env steps: {result['nan_caught']} states not finite, {result['nan_escaped']} numbers "
        f"that got out, {result['overflows']} steps with lost contacts"
    )


def rendering(result: Result) -> str:
    """Frames per second of the ray-caster."""
    case = result["cases"][0]
    return (
        f"{case['ray_caster_fps']:,.0f} frames/s of {case['size']}x{case['size']}, "
        f"{case['times_mujoco_renderer']:,.0f} times mujoco.Renderer with software OpenGL"
    )


def training_step(model: str) -> Callable[[Result], str]:
    """A training step beside torch's."""
    return lambda result: f"{result['results'][model]['speedup_over_best_torch']:.1f} times as fast"


def trainer(result: Result) -> str:
    """The whole trainer beside torch's loop."""
    rates = ", ".join(f"{each['speedup']:.1f} times at batch {size}" for size, each in result["batch"].items())
    cost = result["checkpoints"]
    return f"{rates}; a checkpoint every {cost['updates']:,} updates costs {cost['overhead']:.1%}"


CLIENT_ROWS = {
    "gymnasium": (
        "gymnasium",
        "`check_env` on every id, wrappers, vector wrappers, deepcopy, pickle",
        lambda r: (
            f"{r['check_env']} environments, {r['wrappers']} wrappers, {r['vector_wrappers']} vector wrappers; "
            f"{len(r['warnings'])} warnings"
        ),
    ),
    "sb3": ("Stable-Baselines3", "`PPO` on reach through `to_sb3`", learned),
    "brax": ("brax", "`ppo.train` on reach through `to_brax`", learned),
    "rejax": ("rejax", "`PPO` on reach through `to_rejax`", learned),
    "rsl_rl": ("rsl_rl", "`OnPolicyRunner` on reach through `to_rsl_rl`", learned),
    "skrl": ("skrl", "`PPO` (torch) on reach through `to_skrl`", learned),
    "lerobot_states": (
        "LeRobot",
        "export of state episodes, read by `LeRobotDataset`",
        lambda r: (
            f"{r['episodes']:,} episodes, {r['frames']:,} frames in {r['seconds']:.1f} s "
            f"({r['processor_seconds']:.1f} s of the processor)"
        ),
    ),
    "lerobot_videos": (
        "LeRobot",
        "two cameras as H.264, every frame read by `LeRobotDataset`",
        lambda r: (
            f"{r['episodes']} episodes, {r['frames']:,} frames of {r['side']}x{r['side']}: written in "
            f"{r['export']['seconds']:.1f} s, {r['megabytes']:.1f} MB; no picture is off by more than "
            f"{r['largest_mean_error']:.1%} on average"
        ),
    ),
    "lerobot_act": (
        "LeRobot",
        "its ACT, trained by `lerobot-train` on our export (states), played by `lerobot-eval` in our environment",
        lambda r: (
            f"{share(r['success'], r['interval'])} of {r['episodes']} episodes of reach after {r['updates']:,} "
            f"updates on {r['demonstrations']} demonstrations"
        ),
    ),
    "lerobot_ours": (
        "LeRobot",
        "our policy as `--policy.type=simscale` in `lerobot-eval`",
        lambda r: f"{r['policy']}: {share(r['success'], r['interval'])} of {r['episodes']} episodes of reach",
    ),
    "robomimic": (
        "robomimic",
        "every step in its `SequenceDataset`",
        lambda r: f"{r['episodes']} episodes, {r['frames']:,} frames, {'equal' if r['is_equal'] else 'NOT EQUAL'}",
    ),
    "minari": (
        "Minari",
        "every episode in its `MinariDataset`",
        lambda r: f"{r['episodes']} episodes, {r['frames']:,} frames, {'equal' if r['is_equal'] else 'NOT EQUAL'}",
    ),
}

SECTIONS = (
    Section(
        "First contact",
        "`simscale demo` compiles, learns pick and place from nothing, plays 100 fresh episodes in a batch and as\n"
        "many one by one, and films.",
        [Claim("`make demo`, installation apart", "demo", demo, "python benchmarks/demo.py", True)],
    ),
    Section(
        "Environments",
        "1,024 environments at dt 0.01 (5 physics steps per control step) with observations, rewards, time limits and\n"
        "auto-reset. The bare loop makes the physics steps of recorded states and targets, and nothing else.",
        [
            Claim("pick and place", "env_throughput_pick_place", engines,
                  "python benchmarks/env_throughput.py --env-name pick_place --impl c jax --num-envs 1024 --repeats 3",
                  True),
            Claim("... until it runs", "env_throughput_pick_place", first_calls, "the same"),
            Claim("... in PPO", "env_throughput_pick_place", in_ppo, "the same"),
            Claim("... one copy behind gymnasium, dt 0.002", "env_throughput_pick_place", host, "the same"),
            Claim("reach", "env_throughput_reach", engines,
                  "python benchmarks/env_throughput.py --impl c jax --num-envs 1024 --repeats 3 --no-ppo", True),
            Claim("... until it runs", "env_throughput_reach", first_calls, "the same"),
            Claim("... one copy behind gymnasium, dt 0.002", "env_throughput_reach", host, "the same"),
            Claim("random actions, heavy randomization, pick and place", "nan_guard_pick_place", guard,
                  "python benchmarks/nan_guard.py --num-envs 1024 --num-steps 9800"),
        ],
    ),
    Section(
        "PPO",
        "Seconds are those of updates, without compiling. Fresh episodes, the mean action; the worst seed is shown.",
        [
            Claim("pick and place from nothing", "ppo_pick_place", ppo_clock,
                  "simscale rl --config configs/ppo_pick_place.yaml --seed N", True),
            Claim("... beside physics alone", "ppo_wall_clock", ppo_beside_bare, "python benchmarks/ppo_wall_clock.py"),
            Claim("... 500 episodes each", "ppo_pick_place", ppo_success,
                  "simscale eval RUN --n-episodes 500 --seed 1000", True),
            Claim("reach", "ppo_reach", ppo_minutes, "simscale rl --config configs/ppo_reach.yaml --seed N"),
            Claim("... 100 episodes each", "ppo_reach", ppo_success, "simscale eval RUN --n-episodes 100"),
            Claim("reach from two cameras of 64x64", "ppo_reach_pixels", ppo_minutes,
                  "simscale rl --config configs/ppo_reach_pixels.yaml --seed N"),
            Claim("... 100 episodes each", "ppo_reach_pixels", ppo_success, "simscale eval RUN --n-episodes 100"),
        ],
    ),
    Section(
        "Demonstrations",
        "Scripted experts, states only, dt 0.01; the file is on disk when the clock stops.",
        [
            Claim("pick and place", "datagen_throughput", demonstrations("pick_place", impl="c", num_envs=256),
                  "python benchmarks/datagen_throughput.py", True),
            Claim("reach", "datagen_throughput", demonstrations("reach", impl="c", num_envs=256), "the same"),
        ],
    ),
    Section(
        "Pictures",
        "RGB, depth and segmentation of the pick scene from the ray-caster; mujoco.Renderer draws with a software\n"
        "OpenGL here, a GPU would be faster.",
        [
            Claim("256 pictures at a time", "render_throughput", rendering,
                  "MUJOCO_GL=egl python benchmarks/render_throughput.py", True),
        ],
    ),
    Section(
        "Training beside torch",
        "The same architecture, batch and precision on the same CPU cores; torch runs its fused AdamW.",
        [
            Claim("a step of BC, batch 256", "model_throughput", training_step("bc"),
                  "python benchmarks/model_throughput.py --torch-python PYTHON --cases bc vla"),
            Claim("a step of the VLA, 64x64, batch 32", "model_throughput", training_step("vla"), "the same"),
            Claim("the trainer beside torch with an in-memory DataLoader, BC", "trainer_throughput", trainer,
                  "SIMSCALE_TORCH_PYTHON=PYTHON python benchmarks/trainer_throughput.py", True),
        ],
    ),
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
