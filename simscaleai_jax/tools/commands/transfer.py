"""`simscale transfer`: how a policy stands up to physics it was not trained on."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from simscaleai_jax.core import paths
from simscaleai_jax.core.checkpoint import read_manifest
from simscaleai_jax.tools.arguments import parse, recorded_env
from simscaleai_jax.tools.instructions import check_told
from simscaleai_jax.tools.names import Names
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Play one policy under clean, light, default and heavy randomization, and under each parameter alone.

All conditions run side by side in one batch on MJX, with the same starts and goals. Writes a table (transfer.json,
transfer.csv) and a heat map (transfer.png). "low" and "high" bound the success rate (95%); "nan" counts episodes whose
state was not finite, "lost" those that a full buffer of the physics may have cost contacts.

Examples:
  simscale transfer checkpoints/ppo_reach
  simscale transfer checkpoints/ppo_pick --parameters friction object_mass --n-episodes 100 --output report"""

COLUMNS = {  # of the report: their headings in the terminal, where eight long ones have no room
    "condition": "condition", "success_rate": "success", "success_low": "low", "success_high": "high",
    "mean_reward": "reward", "mean_length": "length", "nan_episodes": "nan", "overflow_episodes": "lost",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """Options of `simscale transfer`.

    Attributes:
      checkpoint: checkpoint directory, or the folder of a run (its best checkpoint is taken).
      env_name: environment; default: the one that the checkpoint was trained on.
      parameters: what to sweep; default: everything that reaches the scene.
      levels: values of each parameter on either side of nominal.
      n_episodes: episodes of each condition.
      max_episode_steps: steps after which an episode is cut; default: the environment's own limit.
      seed: of the episodes.
      output: folder for the table and the heat map.
      impl: physics engine: "auto" (what suits this machine), "c", "jax" or "warp".
      language: instruction; default: the one in the checkpoint, or each episode's own where a task gives one.
      execute_steps: actions executed of every planned chunk; default: all of them.
      ensemble: weight decay of temporal ensembling; default: none.
    """

    checkpoint: Annotated[str, tyro.conf.Positional]
    env_name: str | None = None
    parameters: tuple[str, ...] = ()
    levels: int = 2
    n_episodes: int = 32
    max_episode_steps: int | None = None
    seed: int = 0
    output: str = "outputs/transfer"
    impl: Literal["auto", "c", "jax", "warp"] = "auto"
    language: str | None = None
    execute_steps: int | None = None
    ensemble: float | None = None


NAMES = Names(old={"output-dir": "output", "max-steps": "max-episode-steps"})


def main(argv: list[str]) -> None:
    """Parses the options, plays, writes and prints the report."""
    from simscaleai_jax.rl.transfer.report import write_report

    options = parse(TransferOptions, argv, "transfer", DESCRIPTION, NAMES)
    rows, about = evaluate(options)
    written = write_report(rows, paths.local(options.output, "A report"), about)
    print_table(about["title"], list(COLUMNS.values()), [[row[name] for name in COLUMNS] for row in rows], rows)
    print("Written: " + ", ".join(str(path) for path in written))


def evaluate(options: TransferOptions) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row per condition, and what the report is about."""
    from simscaleai_jax.policy import load_policy
    from simscaleai_jax.rl.transfer import evaluate_conditions, make_conditions
    from simscaleai_jax.sim.factory import make_functional_env
    from simscaleai_jax.sim.physics import ENGINES

    manifest = read_manifest(options.checkpoint)
    name, settings = recorded_env(manifest.env, options.env_name)
    settings.setdefault("cameras", [])
    check_told(name, options.language)
    policy = load_policy(
        options.checkpoint,
        language=options.language,
        execute_steps=options.execute_steps,
        ensemble=options.ensemble,
    )
    env = make_functional_env(name, **settings | {"domain_randomization": False, "impl": options.impl})
    conditions = make_conditions(env, options.parameters, options.levels)
    rows = evaluate_conditions(env, policy, conditions, options.n_episodes, options.max_episode_steps, options.seed)
    engine = ENGINES[env.config.impl]
    title = (
        f"{options.checkpoint} on {name}: {options.n_episodes} episodes per condition, dt {env.config.dt} s, {engine}"
    )
    about = {"title": title, "env_name": name, "dt": env.config.dt, "seed": options.seed, "impl": env.config.impl}
    return rows, about
