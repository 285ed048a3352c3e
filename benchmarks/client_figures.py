"""The tables of docs/clients.md: from what benchmarks/clients.py has found to lines."""

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]
WAYS = ("load_policy", "torch", "onnx", "stablehlo")


def client_tables(found: dict[str, Any]) -> str:
    """Clients with what was run and came of it, and policies in the closed loop."""
    lines = [
        f"| {title} | {found[name]['version']} | {what} | {figure(found[name])} |\n"
        for name, (title, what, figure) in CLIENT_ROWS.items()
        if name in found
    ]
    head = "| client | version | what was run | result |\n|---|---|---|---|\n"
    policies = {kind: each for kind, each in found.get("policies", {}).items() if isinstance(each, dict)}
    loop = "| policy, task | `load_policy` | torch | ONNX | StableHLO | largest difference from `load_policy` |\n"
    loop += "|---|---|---|---|---|---|\n"
    for kind, each in policies.items():
        rates = " | ".join(share(each["success"][way]["rate"], each["success"][way]["interval"]) for way in WAYS)
        differences = ", ".join(f"{way} {each['difference'][way]:.1e}" for way in WAYS[1:])
        loop += f"| {kind}, {each['env']} | {rates} | {differences} |\n"
    return f"{head}{''.join(lines)}\n{loop}"


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
