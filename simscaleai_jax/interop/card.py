"""A card beside an export: what it is, how it was trained, how well it does, how it is loaded. Markdown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.interop.files import write_whole

TRAINING = ("lr", "batch_size", "max_steps", "total_timesteps", "num_envs", "seed", "dataset_path", "weight_decay")

LOADING = {
    "safetensors": """from simscaleai_jax.interop.torch_mirror import load   # torch, NumPy and safetensors; no JAX
policy = load("{name}")
action = policy(obs)          # obs: the keys below, one observation or a batch""",
    "onnx": """import onnxruntime as ort
session = ort.InferenceSession("{name}")
plan = session.run(["actions"], obs)[0]     # obs: the keys below, float32 (B, n) or uint8 (B, H, W, C)
action = plan[:, 0]""",
    "stablehlo": """import jax
from pathlib import Path
program = jax.export.deserialize(Path("{name}").read_bytes())
action = program.call(obs)[:, 0]            # obs: the keys below, (B, n) or (B, H, W, C)""",
}
LOADING["pt"] = LOADING["safetensors"]


def write_card(
    export: Path, format: str, manifest: Manifest, record: Mapping[str, Any], results: Mapping[str, Any] | None
) -> Path:
    """Writes NAME.md beside the export NAME.* and returns its path.

    Args:
      export: the file that the card is about.
      format: "safetensors", "pt", "onnx" or "stablehlo".
      manifest: of the checkpoint.
      record: its acting record.
      results: {"success_rate", "n_episodes", "env"} of an evaluation; None where it was not evaluated.
    """
    text = card(export.name, format, manifest, record, results)
    return write_whole(export.with_suffix(".md"), lambda temporary: temporary.write_text(text))


def card(
    name: str, format: str, manifest: Manifest, record: Mapping[str, Any], results: Mapping[str, Any] | None
) -> str:
    """The card's text."""
    env = manifest.env.get("name")
    inputs = [f"| `{key}` | {spec['dtype']} | {tuple(spec['shape'])} |" for key, spec in record["observations"].items()]
    if record["text_len"] and record["tokens"] is None:
        inputs.append(
            f"| `language`, ids of an instruction's characters, 0 behind its end | int | {(record['text_len'],)} |"
        )
    training = {key: manifest.config[key] for key in TRAINING if manifest.config.get(key) not in (None, "")}
    lines = [
        f"# {name}",
        "",
        f"A {manifest.model_name!r} policy ({manifest.kind}) for {env or 'an environment that it does not name'}, "
        f"exported after {manifest.step:,} updates. It takes raw observations; normalization is inside.",
        *([f"Instruction: {record['instruction']!r}.", ""] if record["instruction"] else [""]),
        "## Success",
        "",
        success(results),
        "",
        "## Inputs",
        "",
        "| observation | dtype | shape |",
        "|---|---|---|",
        *inputs,
        "",
        f"Output: {record['horizon']} x {record['action']['dim']} actions a plan; {record['execute_steps']} of them "
        "are executed before the next one."
        + (" Plans are drawn from standard normal noise, an input of their shape." if record["noise"] else ""),
        "",
        "## Training",
        "",
        *[f"- {key}: {value}" for key, value in training.items()],
        f"- environment: `{json.dumps(manifest.env)}`",
        f"- versions: {', '.join(f'{package} {version}' for package, version in manifest.versions.items())}",
        "",
        "## Loading",
        "",
        "```python",
        LOADING[format].format(name=name),
        "```",
        "",
    ]
    return "\n".join(lines)


def success(results: Mapping[str, Any] | None) -> str:
    """The success rate with its 95% interval, in a sentence."""
    if results is None:
        return "Not evaluated when it was exported (`simscale export --eval-episodes N`)."
    low, high = wilson(results["success_rate"], results["n_episodes"])
    return (
        f"{100 * results['success_rate']:.1f}% of {results['n_episodes']} episodes of {results['env']} on host physics "
        f"(95% interval {100 * low:.1f}% to {100 * high:.1f}%)."
    )
