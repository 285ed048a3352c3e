"""What the machine itself can do, for the limit beside a figure: matrix products, memory, bare physics.

    python benchmarks/machine.py

Matrix products: the best float32 (and bfloat16) FLOP/s over sizes, through XLA, on all cores or the accelerator.
Memory: bytes per second of reading and writing an array far beyond the caches, as XLA does it and as NumPy copies.
Physics: `mujoco.batch.Batch` and `mujoco.rollout` on our scenes with noise on the controls and nothing else.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from stamp import stamp

RESULTS = Path(__file__).parent / "results" / "machine.json"
SIZES = (512, 1024, 2048, 4096)
BYTES = 2**29
NUM_ENVS, DT, SUBSTEPS = 1024, 0.01, 5


def main() -> None:
    """Measures and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="smaller arrays, fewer repeats")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sizes, size, repeats = (SIZES[:2], BYTES // 4, 3) if options.quick else (SIZES, BYTES, options.repeats)
    if jax.default_backend() != "cpu":
        sizes = (*sizes, 8192)
    report: dict[str, Any] = {"benchmark": "machine", **stamp(), "quick": options.quick}
    report |= {"load_before": os.getloadavg()[0]}
    report["matmul_flops"] = {
        kind: max(matmul(count, kind, repeats) for count in sizes) for kind in ("float32", "bfloat16")
    }
    report["memory_bytes_per_second"] = {
        "xla": xla_bandwidth(size, repeats),
        "numpy_copy": copy_bandwidth(size, repeats),
    }
    report["physics"] = {name: physics(name, repeats) for name in ("pick_place", "reach")}
    print(json.dumps(report, indent=1))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def best(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest repeat after a first one: a limit is what a machine does undisturbed."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul(size: int, kind: str, repeats: int) -> float:
    """FLOP/s of a product of two square matrices."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size), jnp.dtype(kind)) for i in range(2))
    product = jax.jit(lambda a, b: a @ b)
    return 2.0 * size**3 / best(lambda: jax.block_until_ready(product(a, b)), repeats)


def xla_bandwidth(size: int, repeats: int) -> float:
    """Bytes read and written per second by adding one to a float32 array."""
    kept = [jnp.zeros(size // 4)]
    add = jax.jit(lambda values: values + 1.0, donate_argnums=0)  # in place: fresh pages would be measured otherwise

    def run() -> None:
        kept[0] = jax.block_until_ready(add(kept[0]))

    return 2.0 * size / best(run, repeats)


def copy_bandwidth(size: int, repeats: int) -> float:
    """Bytes read and written per second by NumPy's copy, on one core."""
    source, target = np.zeros(size // 4, np.float32), np.ones(size // 4, np.float32)
    return 2.0 * size / best(lambda: np.copyto(target, source), repeats)


def physics(env_name: str, repeats: int) -> dict[str, float]:
    """Physics steps per second of Batch and of rollout on a scene."""
    from mujoco import rollout
    from mujoco.batch import Batch

    from simscaleai_jax.sim import make_batched_env
    from simscaleai_jax.sim.physics.host import num_threads

    model = make_batched_env(env_name, dt=DT, cameras=[], impl="c").functional.physics.host_model
    home = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, home, 0)
    low, high = model.actuator_ctrlrange.T
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, (NUM_ENVS, SUBSTEPS, model.nu)) * (high - low)
    ctrl = np.clip(home.ctrl + noise, low, high)
    batch = Batch(model, NUM_ENVS, nthread=num_threads())
    batch.bind("qpos")[...] = home.qpos
    batch.bind("ctrl")[...] = ctrl[:, 0]
    start = batch.state.copy()

    def step() -> None:
        batch.state[...] = start
        batch.step(nstep=SUBSTEPS)

    spec = mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.empty(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, home, state, spec)
    states, datas = np.tile(state, (NUM_ENVS, 1)), [mujoco.MjData(model) for _ in range(num_threads())]
    count = NUM_ENVS * SUBSTEPS
    with rollout.Rollout(nthread=num_threads()) as roll:
        rolled = best(lambda: roll.rollout(model, datas, states, ctrl), repeats)
    return {"batch_steps_per_second": count / best(step, repeats), "rollout_steps_per_second": count / rolled}


if __name__ == "__main__":
    main()
