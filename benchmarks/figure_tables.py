"""Whole tables of docs/benchmarks.md and docs/performance.md: from a file of results to (head, rows) of texts."""

import statistics
from collections.abc import Sequence

from figure_texts import ENGINE_NAMES, Result

from simscaleai_jax.core.intervals import wilson

Table = tuple[Sequence[str], list[Sequence[str]]]
VARIANTS = {
    "ours": "ours, the recipe",
    "ours_plain": "ours without the curriculum",
    "brax": "brax, Playground's settings for PandaPickCubeCartesian",
    "brax_ours": "brax, sizes of our recipe",
    "sb3": "Stable-Baselines3, its defaults, 8 environments, VecNormalize",
    "sb3_ours": "Stable-Baselines3, sizes of our recipe",
}


def interval(found: Result) -> str:
    """A success rate with its Wilson interval."""
    return f"{found['success_rate']:.3f} [{found['success_low']:.3f}, {found['success_high']:.3f}]"


def peers_env(result: Result) -> Table:
    """Environments beside other libraries' at equal physics steps."""
    head = (
        "peer", "physics steps a step", "environments", "theirs, steps/s", "ours, steps/s", "times", "wanted", "limit",
        "ours behind gymnasium.vector, times", "of bare physics: theirs, ours", "bare physics, steps/s: theirs, ours",
    )  # fmt: skip
    rows: list[Sequence[str]] = []
    for case in result["cases"]:
        name = f"{case['package']} {case['env']} beside our {case['ours']}"
        sizes = str(case["num_envs"])
        if case["our_num_envs"] != case["num_envs"]:
            sizes += f", ours {case['our_num_envs']:,}"
        if "steps_per_second" not in case:
            why = case.get("missing") or f"failed: {', '.join(case['failed'].values())}"
            rows.append((name, str(case["physics_steps"]), sizes, why, "", "", f"{case['goal']:g}", "", "", "", ""))
            continue
        rates = case["steps_per_second"]
        share = f"{rates['theirs'] / rates['their_bare']:.0%}" if "their_bare" in rates else "not measured"
        theirs = f"{rates['their_bare']:,.0f}" if "their_bare" in rates else "not measured"
        figures = (
            f"{rates['theirs']:,.0f}",
            f"{rates['ours']:,.0f}",
            f"{case['times_faster']:.1f}",
            f"{case['goal']:g}",
            f"{rates['our_bare'] / rates['theirs']:.1f}",
            f"{case['times_faster_vector']:.1f}",
            f"{share}, {case['share_of_bare']:.0%}",
            f"{theirs}, {rates['our_bare']:,.0f}",
        )
        rows.append((name, str(case["physics_steps"]), sizes, *figures))
    return head, rows


def peers_ppo(result: Result) -> Table:
    """PPO beside other libraries' on our pick and place."""
    head = ("what learns", "seeds at 95%", "seconds, median", "steps, median", "times our seconds", "highest success")
    missing = {
        run["variant"]: run.get("missing") or f"failed: {run['failed']}" for run in result["runs"] if "last" not in run
    }
    rows: list[Sequence[str]] = [(VARIANTS[name], why, "", "", "", "") for name, why in missing.items()]
    for name, each in result["summary"].items():
        least = "" if each["reached"] == each["seeds"] else "at least "
        rows.append(
            (
                VARIANTS[name],
                f"{each['reached']} of {each['seeds']}",
                f"{least}{each['median_seconds']:,.0f}",
                f"{least}{each['median_steps']:,.0f}",
                f"{least}{each['times_ours']:.1f}",
                f"{each['highest_success']:.0%}",
            )
        )
    return head, sorted(rows, key=lambda row: list(VARIANTS.values()).index(row[0]))


POLICIES = {
    "bc": "ours, `bc_pick_place`",
    "diffusion": "ours, `diffusion_pick_place`",
    "robomimic": "robomimic BC, its defaults",
    "lerobot": "LeRobot diffusion, its defaults",
    "lerobot_small": "LeRobot diffusion, a small U-Net",
}


def peers_imitation(result: Result) -> Table:
    """Imitation beside other libraries' on the same demonstrations."""
    head = ("policy", "seconds of training", "times those of ours", "updates/s", "success [95% interval]")
    rows: list[Sequence[str]] = []
    for case in result["cases"]:
        name, times = POLICIES[case["variant"]], f"{case['times']:g}"
        if "success_rate" not in case:
            rows.append((name, case.get("missing") or f"failed: {case['failed']}", times, "", ""))
            continue
        rate = f"{case['updates'] / case['seconds']:,.1f}"
        rows.append((name, f"{case['seconds']:,.0f}", times, rate, interval(case)))
    return head, rows


def env_scaling(result: Result) -> Table:
    """Cost against size."""
    head = ("environment, engine", "environments", "env steps/s", "physics steps/s", "first calls, s", "MiB in all")
    rows: list[Sequence[str]] = []
    for curve in result["curves"]:
        name = f"{curve['env_name']}, {ENGINE_NAMES[curve['impl']]}"
        for point in curve["points"]:
            count = f"{point['num_envs']:,}"
            if "failed" in point:
                rows.append((name, count, point["failed"], "", "", ""))
                continue
            mark = " (90% of the most)" if point["num_envs"] == curve["saturates_at"] else ""
            calls = f"{point['start_seconds']:.1f} + {point['first_call_seconds']:.1f}"
            rates = f"{point['steps_per_second']:,.0f}{mark}", f"{point['physics_steps_per_second']:,.0f}"
            rows.append((name, count, *rates, calls, f"{point['megabytes']:,.0f}"))
    return head, rows


def startup(result: Result) -> Table:
    """Seconds until something runs."""
    head = ("from `python -c` to", "empty compile cache, s", "later, s")
    rows: list[Sequence[str]] = [("the end of an empty program", "", f"{result['python']['median']:.2f}")]
    rows += [(f"`import {name}`", "", f"{each['median']:.2f}") for name, each in result["imports"].items()]
    for case in result["first_step"]:
        what = "one copy behind gymnasium" if case["what"] == "host" else case["what"]
        times = f"{case['first']['median']:.1f}", f"{case['later']['median']:.1f}"
        rows.append((f"the first step of {case['env_name']}, {what}", *times))
    return head, rows


def machine(result: Result) -> Table:
    """What the machine can do."""
    rows: list[Sequence[str]] = [
        (f"matrix products, {kind}", f"{rate / 1e9:,.0f} GFLOP/s") for kind, rate in result["matmul_flops"].items()
    ]
    names = {"xla": "an array in place, all cores", "numpy_copy": "a copy, one core"}
    rates = result["memory_bytes_per_second"]
    rows += [(f"memory: {names[name]}", f"{rate / 1e9:,.1f} GB/s") for name, rate in rates.items()]
    for env_name, each in result["physics"].items():
        rows += [
            (f"{env_name}: physics steps of mujoco.{name}", f"{each[f'{name}_steps_per_second']:,.0f}/s")
            for name in ("batch", "rollout")
        ]
    return ("limit", "measured"), rows


def ppo_reached(result: Result) -> Table:
    """Seconds and steps to shares of success, over seeds."""
    head = ("plain starts that succeed", "seconds of updates: median (lowest to highest)", "steps: the same")
    runs = [run["reached"] for run in result["runs"].values() if "reached" in run]
    rows: list[Sequence[str]] = []
    for goal in runs[0] if runs else ():
        columns = []
        for name in ("seconds", "steps"):
            known = sorted(run[goal][name] for run in runs if run[goal][name] is not None)
            text = f"{statistics.median(known):,.0f} ({known[0]:,.0f} to {known[-1]:,.0f})" if known else "never"
            columns.append(text if len(known) == len(runs) else f"{text}, {len(known)} of {len(runs)} seeds")
        rows.append((goal, *columns))
    return head, rows


def ablation(result: Result) -> Table:
    """What a recipe is worth without each of its parts (docs/ppo.md)."""
    variants: dict[str, list[Result]] = {}
    for run in result["runs"]:
        variants.setdefault(run["variant"], []).append(run)
    rows: list[Sequence[str]] = []
    for name, runs in variants.items():
        columns = [
            ", ".join("not reached" if run[key] is None else f"{run[key]:,.0f}" for run in runs)
            for key in ("steps", "seconds")
        ]
        rows.append((name, *columns, ", ".join(f"{run['last_success']:.2f}" for run in runs)))
    seeds = " and ".join(str(run["seed"]) for run in variants["recipe"])
    return ("", f"steps to 95%, seeds {seeds}", "seconds of updates", "success when it ended"), rows


def program(name: str, result: Result) -> Table:
    """Where the time of one program goes (docs/performance.md)."""
    each = result["programs"][name]
    total = sum(each["parts_ms"].values())
    rows: list[Sequence[str]] = [
        (part, f"{value:,.1f}", f"{value / total:.0%}") for part, value in each["parts_ms"].items()
    ]
    rows.append(("the parts together", f"{total:,.1f}", ""))
    rows.append(("the whole, compiled as one", f"{each['whole_ms']:,.1f}", f"{each['whole_ms'] / total:.0%}"))
    return ("part", "ms", "share"), rows


def limits(result: Result) -> Table:
    """How far networks and ray-caster are from what the machine can do (docs/performance.md)."""
    products, memory = result["matmul_flops"], result["memory_bytes_per_second"]
    ppo, drawn, vla = (result["programs"][name] for name in ("ppo_update", "pictures", "vla_step"))
    bare = ppo["parts_ms"]["physics (bare `mujoco.batch.Batch`)"]
    rates = {
        "minibatch steps of PPO": ppo["minibatch_flops"] / ppo["minibatch_ms"] * 1e3,
        "training step of the VLA": vla["flops"] / vla["whole_ms"] * 1e3,
        "ray-caster": drawn["flops"] / drawn["whole_ms"] * 1e3,
    }
    rows: list[Sequence[str]] = [
        (
            name,
            f"{rate / 1e9:,.1f} GFLOP/s",
            f"{products / 1e9:,.0f} GFLOP/s of matrix products",
            f"{rate / products:.0%}",
        )
        for name, rate in rates.items()
    ]
    written = drawn["bytes_written"] / drawn["whole_ms"] * 1e3
    rows.append(
        (
            "pictures written",
            f"{written / 1e9:,.2f} GB/s",
            f"{memory / 1e9:,.1f} GB/s of memory",
            f"{written / memory:.0%}",
        )
    )
    rows.append(
        ("PPO update", f"{ppo['whole_ms']:,.0f} ms", f"{bare:,.0f} ms of bare physics", f"{bare / ppo['whole_ms']:.0%}")
    )
    return ("what", "reached", "limit, in the same run", "share"), rows


MODELS = ("bc", "act", "diffusion", "flow")  # of benchmarks/imitation.py
RECIPES = {  # of benchmarks/recipes.py
    "bc_pick_place": "behaviour cloning of chunks of actions",
    "diffusion_pick_place": "a diffusion policy",
    "flow_pick_place": "a flow-matching policy",
    "act_pick_place": "action chunking with a transformer",
    "bc_pick_place_pixels": "behaviour cloning from two cameras of 64x64 pixels",
    "vla_reach_language": "a small VLA, one camera, instructions",
    "vla_pick_place_language": "a small VLA, two cameras, instructions",
}


def minutes(seconds: float) -> str:
    """A time."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


def recipes(result: Result) -> Table:
    """What recipes of imitation reach (docs/imitation.md)."""
    head = (
        "recipe", "policy", "demonstrations, made in", "trained for", "episodes", "success, C engine at dt 0.01",
        "success, MuJoCo at dt 0.002",
    )  # fmt: skip
    rows: list[Sequence[str]] = []
    for name in RECIPES:
        run = result["runs"].get(name)
        if run is None:
            rows.append((f"`{name}`", RECIPES[name], *["not measured"] * 5))
            continue
        engines, seconds = run["engines"], run["seconds"]
        made = f"{run['demonstrations']:,}, {minutes(seconds['datagen'])}"
        rates = (interval(engines["c"]), interval(engines["host"]) if "host" in engines else "not measured")
        title = RECIPES[name] + (" (its parts run one by one)" if run.get("apart") else "")
        rows.append((f"`{name}`", title, made, minutes(seconds["train"]), str(run["episodes"]), *rates))
    return head, rows


def told(result: Result) -> Table:
    """Success with instructions and without (docs/language.md)."""
    head = ("recipe", "engine", "held-out sentences", "instructions shuffled", "episodes")
    names = {"c": "C engine at dt 0.01", "host": "MuJoCo at dt 0.002"}
    rows: list[Sequence[str]] = [
        (f"`{name}`", names[engine], interval(found), interval(found["blind"]), str(run["episodes"]))
        for name, run in result["runs"].items()
        for engine, found in run["engines"].items()
        if "blind" in found
    ]
    return head, rows


def demonstrations(result: Result) -> Table:
    """Success against the number of demonstrations, all seeds together (docs/imitation.md)."""
    cases = result["cases"]
    counts = sorted({case["demonstrations"] for case in cases})
    models = [name for name in MODELS if any(case["model"] == name for case in cases)]
    rows: list[Sequence[str]] = []
    for count in counts:
        found = [pooled(cases, model, count) for model in models]
        rows.append((f"{count:,}", *("not measured" if each is None else interval(each) for each in found)))
    for title, key in (("seeds", "seed"), ("trained for, median", "seconds")):
        cells = []
        for model in models:
            values = [case[key] for case in cases if case["model"] == model]
            is_seed = key == "seed"
            cells.append(", ".join(map(str, sorted(set(values)))) if is_seed else minutes(statistics.median(values)))
        rows.append((title, *cells))
    return ("demonstrations", *(f"`{model}_pick_place`" for model in models)), rows


def pooled(cases: Sequence[Result], model: str, count: int) -> Result | None:
    """Success over the episodes of all seeds, with its Wilson interval; None where nothing was run."""
    found = [case for case in cases if (case["model"], case["demonstrations"]) == (model, count)]
    if not found:
        return None
    episodes = sum(case["n_episodes"] for case in found)
    rate = sum(case["success_rate"] * case["n_episodes"] for case in found) / episodes
    low, high = wilson(rate, episodes)
    return {"success_rate": rate, "success_low": low, "success_high": high}


def labels(result: Result) -> Table:
    """Success against labels, corrected and plain (docs/imitation.md)."""
    head = ("labels", "seed", "an expert corrects", "labels of plain demonstrations", "plain cloning")
    episodes = result["settings"]["eval_episodes"]
    rows: list[Sequence[str]] = []
    for seed, cases in result["runs"].items():
        for case in cases:
            rates = []
            for key in ("dagger", "plain"):
                low, high = wilson(case[key], episodes)
                rates.append(interval({"success_rate": case[key], "success_low": low, "success_high": high}))
            rows.append((f"{case['labels']:,}", seed, rates[0], f"{case['plain_labels']:,}", rates[1]))
    return head, rows
