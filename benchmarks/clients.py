"""Other people's libraries on our environments, data and exports, at the size of real use.

    python benchmarks/clients.py                       everything, in the environment of `make test-clients`
    python benchmarks/clients.py sb3 minari            some of it; the other results stay
    python benchmarks/clients.py policies --checkpoints bc=checkpoints/bc_reach ppo=checkpoints/ppo_reach

Writes benchmarks/results/clients.json; benchmarks/figures.py puts it into docs/clients.md.
"""

import argparse
import datetime
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import client_data
import client_policies
import client_trainers
from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "clients.json"
PACKAGES = {
    "sb3": "stable-baselines3", "brax": "brax", "rejax": "rejax", "rsl_rl": "rsl-rl-lib", "skrl": "skrl",
    "gymnasium": "gymnasium", "lerobot_states": "lerobot", "lerobot_videos": "lerobot", "lerobot_ours": "lerobot",
    "lerobot_act": "lerobot", "robomimic": "robomimic", "minari": "minari", "policies": "onnxruntime",
}  # fmt: skip
SEEDS = (0, 1, 2)


def main() -> None:
    """Runs what is named and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", choices=[[], *PACKAGES], help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="of the trainers")
    parser.add_argument("--checkpoints", nargs="*", default=[], help="NAME=FOLDER of policies of ours")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    checkpoints = dict(each.split("=", 1) for each in options.checkpoints)
    for name in options.clients or PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            keep(options.output, name, run(name, Path(folder), options.seeds, checkpoints))


def run(name: str, folder: Path, seeds: list[int], checkpoints: dict[str, str]) -> dict[str, Any]:
    """The result of one client.

    Raises:
      ValueError: a policy of ours is needed and not given.
    """
    if name in client_trainers.TRAINERS:
        return {"runs": [printed(name, client_trainers.trained(name, seed)) for seed in seeds]}
    if name in ("policies", "lerobot_ours") and not checkpoints:
        raise ValueError(f"{name} plays policies of ours: --checkpoints NAME=FOLDER ...")
    if name == "policies":
        return {kind: printed(kind, client_policies.compared(path)) for kind, path in checkpoints.items()}
    if name == "lerobot_ours":
        kind, path = next(iter(checkpoints.items()))
        return {"policy": kind, **client_data.lerobot_ours(folder, path)}
    function: Callable[[Path], dict[str, Any]] = gymnasium if name == "gymnasium" else getattr(client_data, name)
    return function(folder)


def gymnasium(folder: Path) -> dict[str, Any]:
    """gymnasium's own checks and wrappers, in a process that has imported nothing else."""
    script = Path(__file__).with_name("client_gymnasium.py")
    done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True, cwd=folder)
    return json.loads(done.stdout)


def keep(path: Path, name: str, result: dict[str, Any]) -> None:
    """Puts one result beside the others; policies are merged one by one."""
    known = json.loads(path.read_text()) if path.exists() else {}
    head = stamp()
    here = {key: head[key] for key in ("date", "commit")} | {"version": importlib.metadata.version(PACKAGES[name])}
    entries = known.get("clients", {})
    old = entries.get(name, {}) if name == "policies" else {}
    entries[name] = old | result | here
    path.write_text(json.dumps({"benchmark": "clients", **head, "clients": entries}, indent=1) + "\n")
    printed(name, entries[name])


def printed(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """The result, told."""
    print(datetime.datetime.now().strftime("%H:%M:%S"), name, json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    main()
