"""Imitation on our exported demonstrations: LeRobot's diffusion policy and robomimic's BC beside our recipes.

    make bench-peers; .venv-peers/bin/python benchmarks/peers_imitation.py [--quick]

100 scripted demonstrations of pick and place, states only. Ours are the recipes bc_pick_place and diffusion_pick_place;
their wall-clock of training is the budget of the peer beside them, which is then also given three times as long. Peers
read what `simscale export-dataset` wrote through their own data set classes, the observations that the recipe beside
them reads, and play as many fresh episodes behind gymnasium.vector. Variants:
  bc, diffusion        ours
  robomimic            its BC with its default configuration (MLP of 1,024 and 1,024, batches of 100, Adam at 1e-4)
  lerobot              its diffusion policy with its default sizes (U-Net of 512, 1,024 and 2,048, batches of 64)
  lerobot_small        U-Net of 128 and 256, horizon 16 of which 8 steps are played, batches of 256, rate 1e-3
Both of LeRobot play with 10 steps of DDIM. Its batches are drawn from arrays in memory, which is faster than from its
files. Updates per second count the whole loop; the first update is not on the clock.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import advice, is_installed, versions
from stamp import stamp

from simscaleai_jax.core.intervals import wilson

RESULTS = Path(__file__).parent / "results" / "peers_imitation.json"
PEERS = {
    "robomimic": ("robomimic", "bc"),
    "lerobot": ("lerobot", "diffusion"),
    "lerobot_small": ("lerobot", "diffusion"),
}
EPISODE_STEPS, DT, SEED = 200, 0.01, 4000

Act = Callable[[dict[str, np.ndarray]], np.ndarray]  # observations of all environments to their actions


def main() -> None:
    """Runs everything, prints a line for each and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demonstrations", type=int, default=100)
    parser.add_argument("--n-episodes", type=int, default=200)
    parser.add_argument("--max-steps", type=int, default=None, help="updates of ours; default: the recipes'")
    parser.add_argument("--times", nargs="+", type=float, default=[1.0, 3.0], help="of our wall-clock, for peers")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--quick", action="store_true", help="20 demonstrations, 100 updates of ours, 20 episodes")
    parser.add_argument("--folder", type=Path, default=Path("outputs/peers_imitation"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train_peer(**json.loads(options.child))))
        return
    if options.quick:
        options.demonstrations, options.max_steps, options.n_episodes, options.times = 20, 100, 20, [1.0]
        options.peers = [name for name in options.peers if name != "lerobot"]
    head = stamp()
    head["versions"] |= versions("lerobot", "robomimic")
    report: dict[str, Any] = {"benchmark": "peers_imitation", **head, "quick": options.quick, "cases": []}
    report |= {"load_before": os.getloadavg()[0], "demonstrations": options.demonstrations}
    budgets = {}
    for model in ("bc", "diffusion"):
        case = ours(model, options)
        budgets[model] = case["seconds"]
        add(report, case, options.output)
    for peer, times in itertools.product(options.peers, options.times):
        library, model = PEERS[peer]
        case = {"variant": peer, "beside": model, "times": times}
        if not is_installed(library):
            add(report, case | {"missing": advice(library)}, options.output)
            continue
        wanted = {"variant": peer, "seconds": times * budgets[model], "n_episodes": options.n_episodes}
        add(
            report,
            case | child(wanted | {"folder": str(options.folder), "count": options.demonstrations}),
            options.output,
        )


def add(report: dict[str, Any], case: dict[str, Any], path: Path) -> None:
    """Prints a case and writes the file with it."""
    report["cases"].append(case)
    print(json.dumps(case), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def ours(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """One of our recipes, from data to success; exports its demonstrations for the peers."""
    from imitation import measure

    from simscaleai_jax.core.config import read_yaml
    from simscaleai_jax.tools.commands.export_dataset import ExportDatasetOptions, convert
    from simscaleai_jax.tools.commands.recipe import recipe_file

    found = measure(options.folder, model, options.demonstrations, 0, options.n_episodes, options.max_steps)
    recipe = read_yaml(recipe_file(f"{model}_pick_place"))["train"]
    kind, path = exports(options.folder, options.demonstrations)[model]
    if not path.exists():
        seen = options.folder / f"{model}_{options.demonstrations}.h5"
        shutil.copy(options.folder / f"demos_{options.demonstrations}.h5", seen)
        leave_out(seen, recipe["data"]["obs_keys"])
        convert(ExportDatasetOptions(str(seen), str(path), kind))
    steps = options.max_steps or recipe["max_steps"]
    return {"variant": model, "beside": model, "times": 1.0, "updates": steps} | found


def leave_out(path: Path, keys: list[str]) -> None:
    """Takes all but these observations out of a file of demonstrations."""
    import h5py

    with h5py.File(path, "a") as file:
        demos: Any = file["data"]
        for demo in demos.values():
            for key in set(demo["obs"]) - set(keys):
                del demo["obs"][key]


def exports(folder: Path, count: int) -> dict[str, tuple[Any, Path]]:
    """model -> (format, path) of the demonstrations that its peers read."""
    return {
        "bc": ("robomimic", folder / f"bc_robomimic_{count}.h5"),
        "diffusion": ("lerobot", folder / f"diffusion_lerobot_{count}"),
    }


def child(wanted: dict[str, Any]) -> dict[str, Any]:
    """A peer in a process of its own; what ends it becomes part of the report."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(wanted)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def train_peer(variant: str, seconds: float, n_episodes: int, folder: str, count: int) -> dict[str, Any]:
    """Trains a peer for so long and plays."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    _, path = exports(Path(folder), count)[PEERS[variant][1]]
    update, act = {"robomimic": robomimic, "lerobot": lerobot, "lerobot_small": lerobot_small}[variant](path)
    update()
    updates, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        update()
        updates += 1
    spent = time.perf_counter() - start
    rate = play(act(), n_episodes)
    low, high = wilson(rate, n_episodes)
    found = {"seconds": round(spent, 1), "updates": updates, "updates_per_second": updates / spent}
    return found | {"success_rate": rate, "success_low": low, "success_high": high, "dt": DT}


def play(act: Act, n_episodes: int) -> float:
    """Share of fresh episodes that succeed, one in each environment."""
    from simscaleai_jax.sim import make_vec_env
    from simscaleai_jax.sim.tasks.pick_place.config import PickPlaceConfig

    task = PickPlaceConfig(relative_observations=True)
    settings: dict[str, Any] = {"dt": DT, "cameras": [], "task": task, "max_episode_steps": EPISODE_STEPS}
    envs = make_vec_env("pick_place", n_episodes, **settings)
    obs, _ = envs.reset(seed=SEED)
    is_over, is_success = np.zeros(n_episodes, bool), np.zeros(n_episodes, bool)
    for _ in range(EPISODE_STEPS):
        obs, _, terminated, truncated, info = envs.step(np.clip(act(obs), -1.0, 1.0))
        done = (terminated | truncated) & ~is_over
        is_success |= done & np.asarray(info["success"], bool)
        is_over |= done
    return float(is_success.mean())


def robomimic(path: Path) -> tuple[Callable[[], None], Callable[[], Act]]:
    """robomimic's BC with its defaults, through its data set and its algorithm."""
    import h5py
    import robomimic.utils.obs_utils as obs_utils
    import robomimic.utils.tensor_utils as tensor_utils
    import torch
    from robomimic.algo import algo_factory
    from robomimic.config import config_factory
    from robomimic.utils.dataset import SequenceDataset
    from torch.utils.data import DataLoader

    with h5py.File(path) as file:
        demo: Any = file["data/demo_0"]
        shapes = {name: demo["obs"][name].shape[1:] for name in sorted(demo["obs"])}
        actions = demo["actions"].shape[1]
    config = config_factory("bc")
    with config.unlocked():
        config.observation.modalities.obs.low_dim = list(shapes)
    obs_utils.initialize_obs_utils_with_config(config)
    device = torch.device("cpu")
    model = algo_factory("bc", config, shapes, actions, device)
    data = SequenceDataset(
        str(path), list(shapes), ("actions",), hdf5_cache_mode="low_dim", hdf5_use_swmr=False, load_next_obs=False
    )
    loader = DataLoader(data, batch_size=config.train.batch_size, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def update() -> None:
        model.set_train()
        model.train_on_batch(model.process_batch_for_training(next(batches)), epoch=1)

    def acting() -> Act:
        model.set_eval()

        def act(obs: dict[str, np.ndarray]) -> np.ndarray:
            tensors = {name: torch.as_tensor(np.asarray(obs[name], np.float32)) for name in shapes}
            with torch.no_grad():
                return tensor_utils.to_numpy(model.get_action(tensors))

        return act

    return update, acting


def lerobot(path: Path) -> tuple[Callable[[], None], Callable[[], Act]]:
    """LeRobot's diffusion policy with its default sizes."""
    return lerobot_diffusion(path, 64, {})


def lerobot_small(path: Path) -> tuple[Callable[[], None], Callable[[], Act]]:
    """A small one, for a task of this size."""
    sizes = {"down_dims": (128, 256), "horizon": 16, "n_action_steps": 8, "optimizer_lr": 1e-3}
    return lerobot_diffusion(path, 256, sizes)


def lerobot_diffusion(
    path: Path, batch_size: int, sizes: dict[str, Any]
) -> tuple[Callable[[], None], Callable[[], Act]]:
    """LeRobot's diffusion policy on its data set: samples are read through it once, then drawn in memory."""
    import torch
    from lerobot.configs.types import FeatureType
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.utils.feature_utils import dataset_to_policy_features

    from simscaleai_jax.core.observations import state_vector

    meta = LeRobotDatasetMetadata("simscale/pick_place", root=path)
    features = dataset_to_policy_features(meta.features)
    outputs = {key: feature for key, feature in features.items() if feature.type is FeatureType.ACTION}
    inputs = {key: feature for key, feature in features.items() if key.startswith("observation.")}
    config = DiffusionConfig(
        input_features=inputs, output_features=outputs, device="cpu", noise_scheduler_type="DDIM",
        num_inference_steps=10, push_to_hub=False, **sizes,
    )  # fmt: skip
    policy = DiffusionPolicy(config)
    before, after = make_pre_post_processors(config, dataset_stats=meta.stats)
    read = {key: sorted({name.partition(".")[0] for name in meta.features[key]["names"]}) for key in inputs}
    seconds = {key: [i / meta.fps for i in config.observation_delta_indices] for key in inputs}
    seconds["action"] = [i / meta.fps for i in config.action_delta_indices]
    data = LeRobotDataset("simscale/pick_place", root=path, delta_timestamps=seconds)
    keys = (*seconds, "action_is_pad")
    samples = {key: torch.stack([data[i][key] for i in range(len(data))]) for key in keys}
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())

    def update() -> None:
        policy.train()
        chosen = torch.randint(len(data), (batch_size,))
        loss, _ = policy.forward(before({key: value[chosen] for key, value in samples.items()}))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)  # as its training script does
        optimizer.step()
        optimizer.zero_grad()

    def acting() -> Act:
        policy.eval()
        policy.reset()

        def act(obs: dict[str, np.ndarray]) -> np.ndarray:
            batch = before({key: torch.as_tensor(state_vector(obs, names)) for key, names in read.items()})
            with torch.no_grad():
                return after(policy.select_action(batch)).numpy()

        return act

    return update, acting


if __name__ == "__main__":
    main()
