"""What the benchmarks claim: sections of docs/benchmarks.md, a few lines of which the README shows."""

import dataclasses
from collections.abc import Callable, Sequence

import figure_tables as tables
from figure_texts import (
    Result,
    demo,
    demonstrations,
    engines,
    first_calls,
    guard,
    host,
    in_ppo,
    ppo_beside_bare,
    ppo_clock,
    ppo_minutes,
    ppo_success,
    rendering,
    trainer,
    training_step,
)


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
class Table:
    """A whole table from one file.

    Attributes:
      source: file under benchmarks/results/, without its suffix.
      rows: (head, rows) of its content.
      command: what measures it.
    """

    source: str
    rows: Callable[[Result], tuple[Sequence[str], list[Sequence[str]]]]
    command: str


@dataclasses.dataclass(frozen=True)
class Section:
    """Claims of one kind.

    Attributes:
      title: of the section.
      text: what was measured, and how.
      unequal: what is not equal in the comparison, in a sentence; "" where nothing is compared.
      claims: lines of its first table.
      tables: further ones.
      plots: names in `plots.PLOTS`.
    """

    title: str
    text: str
    unequal: str = ""
    claims: Sequence[Claim] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[str] = ()


SECTIONS = (
    Section(
        "First contact",
        "`simscale demo` compiles, learns pick and place from nothing, plays 100 fresh episodes in a batch and as\n"
        "many one by one, and films.",
        claims=[Claim("`make demo`, installation apart", "demo", demo, "python benchmarks/demo.py", True)],
    ),
    Section(
        "Environments",
        "1,024 environments at dt 0.01 (5 physics steps per control step) with observations, rewards, time limits and\n"
        "auto-reset. The bare loop makes the physics steps of recorded states and targets, and nothing else.",
        "MJX is a port of MuJoCo to XLA and is made for accelerators; here both run on a CPU.",
        plots=["bench_engines"],
        claims=[
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
        "Environments beside other libraries",
        "Our batched environment (steps in a compiled loop, and behind gymnasium.vector with a call "
        "and NumPy arrays for\n"
        "every step) and a peer's, both with as many physics steps per environment step as the peer makes; random\n"
        "actions, auto-reset, blocks that alternate in one run, medians. Bare physics is "
        "`mujoco.batch.Batch` with noise on\n"
        "the controls and nothing else, of our scene and of the peer's (EnvPool's is Playground's). The limit of a\n"
        "ratio is what it would be if our environment cost nothing beside its physics: where more is wanted than the\n"
        "limit, no work on the environment reaches it.",
        "scenes and tasks differ (other contacts, other rewards, other solver settings), EnvPool and\n"
        "Gymnasium-Robotics are called from Python for every step, and processes are fewer than our environments.",
        tables=[Table("peers_env", tables.peers_env, "simscale bench peers_env")],
        plots=["bench_peers_env"],
    ),
    Section(
        "Environments against their number",
        "Every size in a process of its own without a compile cache: env steps/s under random "
        "actions, physics steps/s,\n"
        "seconds of the first reset and of the first step, the most memory that the process held.",
        "MJX is a port of MuJoCo to XLA and is made for accelerators; here both run on a CPU.",
        tables=[Table("env_scaling", tables.env_scaling, "simscale bench env_scaling")],
        plots=["bench_env_scaling"],
    ),
    Section(
        "Startup",
        "Wall-clock of `python -c`, medians over processes.",
        tables=[Table("startup", tables.startup, "simscale bench startup")],
        plots=["bench_startup"],
    ),
    Section(
        "PPO",
        "Seconds are those of updates, without compiling. Fresh episodes, the mean action; the worst seed is shown.",
        tables=[Table("ppo_pick_place", tables.ppo_reached, "simscale bench ppo_pick_place")],
        claims=[
            Claim("pick and place from nothing", "ppo_pick_place", ppo_clock,
                  "simscale rl --config configs/ppo_pick_place.yaml --seed N", True),
            Claim("... beside physics alone", "ppo_wall_clock", ppo_beside_bare, "simscale bench ppo_wall_clock"),
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
        "PPO beside other libraries",
        "All learn our pick and place on the same engine through the adapters that ship (`to_brax`, "
        "`to_sb3`), until 95% of\n"
        "recent episodes succeed or five minutes of training are over. brax runs with the settings "
        "that MuJoCo Playground\n"
        "publishes for PandaPickCubeCartesian, Stable-Baselines3 with its defaults, and both with "
        "the sizes of our recipe.",
        "our recipe has a curriculum that the others cannot follow (a line shows it without), sees a choice\n"
        "of the observations, and was tuned on this task, the others' settings were not; brax's success is that of\n"
        "evaluation episodes, the others' that of training episodes.",
        tables=[Table("peers_ppo", tables.peers_ppo, "simscale bench peers_ppo")],
        plots=["bench_peers_ppo"],
    ),
    Section(
        "Demonstrations",
        "Scripted experts, states only, dt 0.01; the file is on disk when the clock stops.",
        plots=["bench_datagen"],
        claims=[
            Claim("pick and place", "datagen_throughput", demonstrations("pick_place", impl="c", num_envs=256),
                  "python benchmarks/datagen_throughput.py", True),
            Claim("reach", "datagen_throughput", demonstrations("reach", impl="c", num_envs=256), "the same"),
        ],
    ),
    Section(
        "Pictures",
        "RGB, depth and segmentation of the pick scene from the ray-caster.",
        "mujoco.Renderer draws one picture at a time with a software OpenGL here, a GPU would be faster; it draws\n"
        "shadows and textures, which the ray-caster leaves out unless it is asked for shadows.",
        plots=["bench_pictures"],
        claims=[
            Claim("256 pictures at a time", "render_throughput", rendering,
                  "MUJOCO_GL=egl python benchmarks/render_throughput.py", True),
        ],
    ),
    Section(
        "Training beside torch",
        "The same architecture, batch and precision on the same CPU cores; torch runs its fused AdamW.",
        "torch runs eagerly, as its users' loops do, and JAX a compiled program.",
        plots=["bench_trainer"],
        claims=[
            Claim("a step of BC, batch 256", "model_throughput", training_step("bc"),
                  "python benchmarks/model_throughput.py --torch-python PYTHON --cases bc vla"),
            Claim("a step of the VLA, 64x64, batch 32", "model_throughput", training_step("vla"), "the same"),
            Claim("the trainer beside torch with an in-memory DataLoader, BC", "trainer_throughput", trainer,
                  "SIMSCALE_TORCH_PYTHON=PYTHON python benchmarks/trainer_throughput.py", True),
        ],
    ),
    Section(
        "Imitation beside other libraries",
        "The same scripted demonstrations of pick and place, the observations that the recipe beside it reads, and\n"
        "as many fresh episodes; a peer is given the wall-clock that our recipe's training took, and three times that.",
        "networks, batch sizes and schedules are each library's own; our seconds include the evaluations\n"
        "during training, the others' have none; LeRobot's samples lie in memory, and it plays with 10 steps of DDIM.",
        tables=[Table("peers_imitation", tables.peers_imitation, "simscale bench peers_imitation")],
        plots=["bench_peers_imitation"],
    ),
    Section(
        "The machine",
        "What the machine can do at best, for the limit beside a figure ([where the time goes](performance.md)).",
        tables=[Table("machine", tables.machine, "simscale bench machine")],
    ),
)  # fmt: skip
