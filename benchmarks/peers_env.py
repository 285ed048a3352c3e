"""Environment steps per second beside EnvPool, MuJoCo Playground and Gymnasium-Robotics, at equal physics steps.

    make bench-peers; .venv-peers/bin/python benchmarks/peers_env.py [--quick]

Each pair is our pick and place and a peer's, both with as many physics steps per environment step as the peer makes.
Every contestant is a process of its own that waits while the other one runs; blocks alternate, rates are medians of
blocks, and a ratio is the median of the ratios of neighbouring blocks. `bare` is `mujoco.batch.Batch` stepping the same
model with noise on its controls and nothing else: the limit of what an environment on that model can reach. Random
actions; episodes begin anew within the step. A peer that is not installed is reported so.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, advice, import_playground, is_installed, mend_gymnasium_robotics, versions
from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "peers_env.json"
# name -> (module, its environment, physics steps per environment step, goal for our rate over its)
COMPARED = {
    "envpool": ("envpool", "PandaPickCube-v1", 4, 2.0),
    "playground": ("mujoco_playground", "PandaPickCube", 4, 10.0),
    "gymnasium_robotics": ("gymnasium_robotics", "FetchPickAndPlace-v4", 20, 20.0),
    "gymnasium_robotics_reach": ("gymnasium_robotics", "FetchReach-v4", 20, 20.0),
}
SECONDS = 2.0  # of a block, about
CONTROL_DT = 0.05

Block = Callable[[int], None]  # makes so many environment steps of the whole batch


def main() -> None:
    """Measures every pair, prints a line for each and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="+", choices=list(COMPARED), default=list(COMPARED))
    parser.add_argument("--num-envs", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--async-envs", nargs="+", type=int, default=[8, 32], help="processes of an AsyncVectorEnv")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="128 environments, few and short blocks")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    if options.quick:
        options.num_envs, options.async_envs, options.repeats = [128], [8], 3
    head = stamp()
    head["versions"] |= versions(*dict.fromkeys(COMPARED[name][0] for name in options.peers))
    report: dict[str, Any] = {"benchmark": "peers_env", **head, "quick": options.quick}
    report |= {"load_before": os.getloadavg()[0], "cases": []}
    for name in options.peers:
        for count in options.async_envs if name.startswith("gymnasium") else options.num_envs:
            case = compare(name, count, options.repeats, 0.5 if options.quick else SECONDS)
            report["cases"].append(case)
            print(json.dumps({key: value for key, value in case.items() if key != "blocks"}), flush=True)
            measured = [case for case in report["cases"] if "times_faster" in case]
            report["ratios"] = {f"{case['peer']}_{case['num_envs']}": case["times_faster"] for case in measured}
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(report, indent=1) + "\n")


def compare(name: str, num_envs: int, repeats: int, seconds: float) -> dict[str, Any]:
    """One peer beside ours at the same number of environments (ours at 1,024 beside processes, which are few)."""
    module, env_name, substeps, goal = COMPARED[name]
    peer = "gymnasium_robotics" if name.startswith("gymnasium") else name
    ours_envs = 1024 if peer == "gymnasium_robotics" else num_envs
    task = "reach" if name.endswith("_reach") else "pick_place"
    case = {"peer": name, "package": PEERS[module][0], "env": env_name, "ours": task, "physics_steps": substeps}
    case |= {"goal": goal, "num_envs": num_envs, "our_num_envs": ours_envs}
    if not is_installed(module):
        return case | {"missing": advice(module)}
    ours = {"env": task, "substeps": substeps, "num_envs": ours_envs, "seconds": seconds}
    workers = {
        "ours": ours | {"kind": "ours"},
        "ours_vector": ours | {"kind": "ours_vector"},
        "theirs": {"kind": peer, "env": env_name, "num_envs": num_envs, "seconds": seconds, "substeps": substeps},
        "our_bare": ours | {"kind": "bare"},
    }
    if peer in ("playground", "envpool") and is_installed("mujoco_playground"):  # EnvPool's scene is Playground's
        workers["their_bare"] = workers["theirs"] | {"kind": "bare", "env": "PandaPickCube"}
    elif peer == "gymnasium_robotics":
        workers["their_bare"] = ours | {"kind": "bare", "env": env_name}
    with contextlib.ExitStack() as stack:
        contestants = {key: stack.enter_context(Contestant(settings)) for key, settings in workers.items()}
        ready = {key: each.answer() for key, each in contestants.items()}
        failed = {key: answer["error"] for key, answer in ready.items() if "error" in answer}
        if failed:
            return case | {"failed": failed}
        blocks: dict[str, list[float]] = {key: [] for key in workers}
        for _ in range(repeats):
            for key, each in contestants.items():
                blocks[key].append(each.block())
    rates = {key: statistics.median(values) for key, values in blocks.items()}
    ratios = [ours / theirs for ours, theirs in zip(blocks["ours"], blocks["theirs"], strict=True)]
    vector = [ours / theirs for ours, theirs in zip(blocks["ours_vector"], blocks["theirs"], strict=True)]
    return case | {
        "steps_per_second": rates,
        "times_faster": statistics.median(ratios),
        "times_faster_vector": statistics.median(vector),
        "bare_theirs_beside_ours": rates["their_bare"] / rates["our_bare"] if "their_bare" in rates else None,
        "share_of_bare": statistics.median(a / b for a, b in zip(blocks["ours"], blocks["our_bare"], strict=True)),
        "start_seconds": {key: answer["start_seconds"] for key, answer in ready.items()},
        "blocks": blocks,
    }


class Contestant:
    """A process that makes a block of steps whenever it is told to."""

    def __init__(self, settings: dict[str, Any]) -> None:
        command = [sys.executable, __file__, "--worker", json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # the end of its input ends it
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def answer(self) -> dict[str, Any]:
        """What it says next; lines that are no JSON are its library's."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                if isinstance(found := json.loads(line), dict):
                    return found
        return {"error": f"ended with status {self.process.wait()}"}

    def block(self) -> float:
        """Environment steps per second of a block."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found = self.answer()
        if "error" in found:
            raise RuntimeError(found["error"])
        return found["steps_per_second"]


def work(settings: dict[str, Any]) -> None:
    """A contestant's side: sets up, finds how many steps fill a block, then runs one for each line of its input."""
    start = time.perf_counter()
    try:
        run = KINDS[settings["kind"]](settings)
        run(1)
    except Exception as error:  # whatever a library raises becomes a line of the report
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    started = time.perf_counter() - start
    count = 1
    while (seconds := timed(run, count)) < settings["seconds"] / 2:
        count *= 2
    count = max(1, round(count * settings["seconds"] / seconds))
    print(json.dumps({"start_seconds": started, "steps": count}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"steps_per_second": count * settings["num_envs"] / timed(run, count)}), flush=True)


def timed(run: Block, count: int) -> float:
    """Seconds of so many steps."""
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start


def ours(settings: dict[str, Any]) -> Block:
    """Our batched environment, steps in one compiled loop."""
    import jax

    from simscaleai_jax.sim import make_batched_env

    env = make_batched_env(settings["env"], **our_settings(settings))
    return scanned(
        env, jax.jit(env.init)(jax.random.key(0), np.arange(settings["num_envs"])), env.action_size, settings
    )


def scanned(env: Any, state: Any, action_size: int, settings: dict[str, Any]) -> Block:
    """Steps of a JAX environment under random actions as one program; its state goes on from block to block."""
    import jax
    import jax.numpy as jnp

    def steps(state: Any, count: jax.Array, key: jax.Array) -> Any:
        def body(i: jax.Array, state: Any) -> Any:
            shape = settings["num_envs"], action_size
            return env.step(state, jax.random.uniform(jax.random.fold_in(key, i), shape, minval=-1.0))

        return jax.lax.fori_loop(0, count, body, state)

    program, kept, calls = jax.jit(steps, donate_argnums=0), [state], iter(range(10**9))

    def run(count: int) -> None:
        kept[0] = jax.block_until_ready(program(kept[0], jnp.int32(count), jax.random.key(next(calls))))

    return run


def our_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """States only, with so many physics steps per environment step."""
    return {"dt": CONTROL_DT / settings["substeps"], "cameras": [], "impl": settings.get("impl", "auto")}


def ours_vector(settings: dict[str, Any]) -> Block:
    """The same behind gymnasium.vector: NumPy in and out, a call for each step, as EnvPool's."""
    from simscaleai_jax.sim import make_vec_env

    envs = make_vec_env(settings["env"], settings["num_envs"], **our_settings(settings))
    envs.reset(seed=0)
    return stepped(envs, (settings["num_envs"], *(envs.single_action_space.shape or ())))


def stepped(envs: Any, shape: tuple[int, ...]) -> Block:
    """Steps of a vector environment with random actions, which are drawn ahead."""
    actions = np.random.default_rng(0).uniform(-1, 1, (64, *shape)).astype(np.float32)

    def run(count: int) -> None:
        for i in range(count):
            envs.step(actions[i % len(actions)])

    return run


def envpool(settings: dict[str, Any]) -> Block:
    """EnvPool's thread pool over all cores, synchronous as its gymnasium interface is by default."""
    import envpool

    count = settings["num_envs"]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    envs = envpool.make_gymnasium(settings["env"], num_envs=count, num_threads=threads, seed=0)
    envs.reset()
    return stepped(envs, (count, *envs.action_space.shape))


def playground(settings: dict[str, Any]) -> Block:
    """Playground's environment on MJX, in the wrappers that it trains with."""
    import jax

    registry = import_playground().registry
    from mujoco_playground import wrapper

    config = registry.get_default_config(settings["env"])
    config.impl = "jax"
    if round(config.ctrl_dt / config.sim_dt) != settings["substeps"]:
        raise ValueError(f"{settings['env']} makes {config.ctrl_dt / config.sim_dt} physics steps per step")
    env = registry.load(settings["env"], config=config)
    env = wrapper.wrap_for_brax_training(env, episode_length=config.episode_length)
    state = jax.jit(env.reset)(jax.random.split(jax.random.PRNGKey(0), settings["num_envs"]))
    return scanned(env, state, env.action_size, settings)


def gymnasium_robotics(settings: dict[str, Any]) -> Block:
    """A process for each environment, states in shared memory."""
    import gymnasium

    env_fns = [lambda: make_gymnasium_robotics(settings["env"])] * settings["num_envs"]
    envs = gymnasium.vector.AsyncVectorEnv(env_fns, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    substeps = env_fns[0]().unwrapped.n_substeps
    if substeps != settings["substeps"]:
        raise ValueError(f"{settings['env']} makes {substeps} physics steps per step")
    return stepped(envs, (settings["num_envs"], *(envs.single_action_space.shape or ())))


def make_gymnasium_robotics(name: str) -> Any:
    """One of its environments, single."""
    import gymnasium
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    mend_gymnasium_robotics()
    return gymnasium.make(name)


def bare(settings: dict[str, Any]) -> Block:
    """`mujoco.batch.Batch` on our model or a peer's, with new controls before every environment step."""
    from mujoco.batch import Batch

    from simscaleai_jax.sim.physics.host import num_threads

    model, home = bare_model(settings)
    batch = Batch(model, settings["num_envs"], nthread=num_threads())
    moved = ("mocap_pos", "mocap_quat") if model.nmocap else ()
    views = {name: batch.bind(name) for name in ("qpos", "ctrl", *moved)}
    for name, view in views.items():
        view[...] = getattr(home, name).reshape(view.shape[1:])
    low, high = model.actuator_ctrlrange.T
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.05, 0.05, (64, settings["num_envs"], model.nu)) * (high - low)
    start = batch.state.copy()

    def run(count: int) -> None:
        for i in range(count):
            if i % 100 == 0:
                batch.state[...] = start  # an episode's length, so that nothing drifts away
            views["ctrl"][...] = np.clip(home.ctrl + noise[i % 64], low, high)
            batch.step(nstep=settings["substeps"])

    return run


def bare_model(settings: dict[str, Any]) -> tuple[Any, Any]:
    """(model, its data at home)."""
    import mujoco

    if settings["env"] == "PandaPickCube":
        registry = import_playground().registry
        config = registry.get_default_config(settings["env"])
        config.impl = "jax"
        model = registry.load(settings["env"], config=config).mj_model
    elif settings["env"].startswith("Fetch"):
        env = make_gymnasium_robotics(settings["env"])
        env.reset(seed=0)
        return env.unwrapped.model, env.unwrapped.data
    else:
        from simscaleai_jax.sim import make_batched_env

        model = make_batched_env(settings["env"], **our_settings(settings)).functional.physics.host_model
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    return model, data


KINDS = {
    "ours": ours,
    "ours_vector": ours_vector,
    "envpool": envpool,
    "playground": playground,
    "gymnasium_robotics": gymnasium_robotics,
    "bare": bare,
}

if __name__ == "__main__":
    main()
