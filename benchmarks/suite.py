"""Every benchmark: its script, its arguments in full and quickly, the interpreter it needs. `simscale bench` runs them.

Results are benchmarks/results/NAME.json, quick ones benchmarks/results/quick/NAME.json. Needs nothing but Python.
"""

import dataclasses
from typing import Literal

PICK_ENV = ("--env-name", "pick_place", "--impl", "c", "jax")
QUICK_ENV = ("--num-envs", "256", "--repeats", "3", "--block-steps", "4096", "--no-ppo")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One script with its arguments.

    Attributes:
      name: of its result file, too.
      about: what it measures, in a line.
      script: file in benchmarks/.
      full: arguments of the figures that are published.
      quick: arguments of a look within two minutes; None: it has none, and only runs by name.
      python: "own" interpreter, that with the "peers", or "own" with "torch" at hand in another one.
      minutes: about how long the full one takes on two cores.
      ratios: paths in its result to numbers that do not depend on how fast a machine is; CI compares them.
    """

    name: str
    about: str
    script: str
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = ()
    python: Literal["own", "peers", "torch"] = "own"
    minutes: float = 1.0
    ratios: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("machine", "what the machine can do: matrix products, memory, bare physics", "machine.py",
              (), ("--quick",), minutes=1),
    Benchmark("startup", "seconds from `python -c` to the first step, and of imports", "startup.py",
              (), ("--quick",), minutes=3),
    Benchmark("demo", "`make demo`, installation apart", "demo.py", (), None, minutes=1.5),
    Benchmark("env_throughput_pick_place", "engines on pick and place, in PPO and behind gymnasium",
              "env_throughput.py",
              (*PICK_ENV, "--num-envs", "1024", "--repeats", "3"),
              (*PICK_ENV, *QUICK_ENV), minutes=5,
              ratios=("batched.0.share_of_bare", "batched.1.times_slower")),
    Benchmark("env_throughput_reach", "engines on reach", "env_throughput.py",
              ("--impl", "c", "jax", "--num-envs", "1024", "--repeats", "3", "--no-ppo"),
              ("--impl", "c", "jax", *QUICK_ENV), minutes=3,
              ratios=("batched.0.share_of_bare", "batched.1.times_slower")),
    Benchmark("env_scaling", "environments from 1 to 16,384: rate, compile seconds, memory", "env_scaling.py",
              (), ("--quick",), minutes=25),
    Benchmark("peers_env", "environments beside EnvPool, Playground, Gymnasium-Robotics", "peers_env.py",
              (), ("--quick",), "peers", minutes=12, ratios=("ratios.*",)),
    Benchmark("peers_ppo", "PPO on our pick and place beside brax and Stable-Baselines3", "peers_ppo.py",
              (), None, "peers", minutes=65),
    Benchmark("peers_imitation", "imitation beside LeRobot's diffusion policy and robomimic's BC", "peers_imitation.py",
              (), ("--quick",), "peers", minutes=50),
    Benchmark("ppo_pick_place", "PPO on pick and place: seconds and steps to 90, 95 and 99%", "ppo_runs.py",
              ("configs/ppo_pick_place.yaml", "--seeds", "0", "1", "2", "3", "4"),
              ("configs/ppo_pick_place.yaml", "--seeds", "0", "--n-episodes", "100"), minutes=10),
    Benchmark("ppo_wall_clock", "PPO's seconds to 95% beside those of its bare physics", "ppo_wall_clock.py", (), None,
              minutes=4),
    Benchmark("ppo_ablation", "what each part of pick and place's recipe is worth", "ppo_ablation.py", (), None,
              minutes=20),
    Benchmark("datagen_throughput", "demonstrations per second", "datagen_throughput.py", (), ("--scale", "0.1"),
              minutes=1),
    Benchmark("render_throughput", "pictures beside mujoco.Renderer", "render_throughput.py",
              (), ("--batch", "64", "--repeats", "2"), minutes=2),
    Benchmark("time_shares", "where the time of a PPO update, a picture and a VLA step goes", "time_shares.py",
              (), ("--quick",), minutes=6),
    Benchmark("model_throughput", "a training step beside torch", "model_throughput.py",
              ("--cases", "bc", "vla"), ("--cases", "bc", "--rounds", "1"), "torch", minutes=3),
    Benchmark("trainer_throughput", "the trainer beside torch", "trainer_throughput.py",
              (), ("--repeats", "1"), "torch", minutes=4),
    Benchmark("nan_guard_pick_place", "numbers that are not finite, under heavy randomization", "nan_guard.py",
              ("--num-envs", "1024", "--num-steps", "9800"), ("--num-envs", "256", "--num-steps", "100"), minutes=8),
    Benchmark("checkpoint_shares", "what a checkpoint costs each process", "checkpoint_shares.py", (), None, minutes=5),
    Benchmark("recipes", "what the recipes of imitation reach, and in which time", "recipes.py", (), None, minutes=120),
    Benchmark("imitation", "success against the number of demonstrations", "imitation.py", (), None, minutes=180),
    Benchmark("dagger", "success against labels of an expert that corrects", "dagger.py", (), None, minutes=10),
    Benchmark("scaling", "work and bytes exchanged per device, from compiled programs", "scaling.py", (), None,
              minutes=3),
)  # fmt: skip


def find(name: str) -> Benchmark | None:
    """The benchmark of that name."""
    return next((each for each in BENCHMARKS if each.name == name), None)
