"""The card of a LeRobot data set: front matter for the hub, and what is in it."""

import json
from typing import Any

MAX_TASKS = 20


def card(info: dict[str, Any], record: dict[str, Any], tasks: list[str]) -> str:
    """Markdown, from meta/info.json, our own record and the instructions."""
    features = [f"| `{name}` | {entry['dtype']} | {entry['shape']} |" for name, entry in info["features"].items()]
    more = f" and {len(tasks) - MAX_TASKS} more" if len(tasks) > MAX_TASKS else ""
    lines = [
        "---",
        "tags: [LeRobot]",
        "task_categories: [robotics]",
        "configs:",
        "- config_name: default",
        "  data_files: data/*/*.parquet",
        "---",
        "",
        f"Demonstrations of {record['env_name'] or 'an unnamed environment'} in simulation, robot "
        f"{info['robot_type']}: {info['total_episodes']} episodes, {info['total_frames']} frames at {info['fps']} per "
        f"second, LeRobot {info['codebase_version']}.",
        "",
        f"Tasks: {'; '.join(tasks[:MAX_TASKS])}{more}",
        "",
        "| feature | dtype | shape |",
        "|---|---|---|",
        *features,
        "",
        f"Settings of the environment: `{json.dumps(record['env_kwargs'])}`",
        "",
    ]
    return "\n".join(lines)
