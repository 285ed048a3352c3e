"""`simscale export`: a checkpoint's policy in a form that stands alone."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from simscaleai_jax.tools.arguments import check_scene_file, parse, recorded_env

DESCRIPTION = """Write the policy of a checkpoint in a form that stands alone: weights, normalization, observation keys,
instruction, environment and a card (Markdown).

  torch, pt, safetensors   torch weights: simscaleai_jax.interop.torch_mirror.load(FILE), without JAX
  onnx                     for onnxruntime, without JAX or torch (needs the extra "onnx")
  stablehlo                a jax.export program for cpu, cuda and tpu

Examples:
  simscale export checkpoints/bc --format safetensors
  simscale export checkpoints/ppo_reach --output policy.onnx --eval-episodes 100"""


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of `simscale export`.

    Attributes:
      checkpoint: checkpoint directory, or the folder of a run (its best checkpoint is taken).
      format: of the file; default: by the suffix of the output, else safetensors.
      output: file to write; default: the checkpoint's path with the format's suffix.
      use_ema: the averaged weights where the checkpoint has them.
      eval_episodes: episodes on host physics whose success the card tells; 0 for none.
      seed: of these episodes.
    """

    checkpoint: Annotated[str, tyro.conf.Positional]
    format: Literal["safetensors", "torch", "pt", "onnx", "stablehlo"] | None = None
    output: str | None = None
    use_ema: bool = True
    eval_episodes: int = 0
    seed: int = 1000


def main(argv: list[str]) -> None:
    """Parses the options, exports, prints the file's path."""
    options = parse(ExportOptions, argv, "export", DESCRIPTION)
    from simscaleai_jax.core import checkpoint
    from simscaleai_jax.interop import export_policy
    from simscaleai_jax.interop.transfer import export_format

    source = checkpoint.resolve(options.checkpoint)
    suffix = export_format("", options.format or "safetensors")
    output = Path(options.output) if options.output else source.with_name(f"{source.name}.{suffix}")
    export_format(output, options.format)
    results = evaluate(source, options) if options.eval_episodes else None
    written = export_policy(source, output, options.format, use_ema=options.use_ema, results=results)
    print(f"Wrote {written} ({written.stat().st_size / 1e6:.1f} MB) and {written.with_suffix('.md').name}.")


def evaluate(source: Path, options: ExportOptions) -> dict[str, Any]:
    """{"success_rate", "n_episodes", "env"} of the checkpoint on host physics."""
    from simscaleai_jax.core import checkpoint
    from simscaleai_jax.policy import load_policy
    from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
    from simscaleai_jax.sim.factory import make_env

    name, settings = recorded_env(checkpoint.read_manifest(source).env, None)
    check_scene_file(settings, source)
    env = make_env(name, None, **{"cameras": []} | settings | {"impl": "c"})
    try:
        steps = env.unwrapped.config.max_episode_steps
        config = EvalConfig(options.eval_episodes, steps, seed=options.seed, on_host=True)
        found = evaluate_policy(env, load_policy(source, use_ema=options.use_ema), config)
    finally:
        env.close()
    return {"success_rate": found["success_rate"], "n_episodes": options.eval_episodes, "env": name}
