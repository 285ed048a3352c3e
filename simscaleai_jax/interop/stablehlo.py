"""A checkpoint as a StableHLO program (`jax.export`) for CPUs, NVIDIA GPUs and TPUs, weights and normalization inside.

    import jax
    program = jax.export.deserialize(Path("policy.stablehlo").read_bytes())
    actions = program.call(obs)                  # obs as in policy.json, with any batch size: (B, h, A); the latest
                                                 # obs_horizon of each, (B, k, ...), where that is more than 1
                                                 # obs["language"], token ids (B, text_len), where none are recorded
    actions = program.call(obs, noise)           # where the policy draws its actions: noise (B, h, A)

Beside it NAME.json holds the acting record (`interop.acting`).
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from simscaleai_jax.core.observations import LANGUAGE
from simscaleai_jax.interop.files import write_whole
from simscaleai_jax.policy import load_plan

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(
    path: str | Path, checkpoint_path: str | Path, record: dict[str, Any], *, use_ema: bool = True
) -> Path:
    """Writes the program and its record.

    Args:
      path: file of the program.
      checkpoint_path: the checkpoint.
      record: its acting record.
      use_ema: the averaged weights where the checkpoint has them.
    Raises:
      ValueError: a checkpoint that does not say which observations it reads.
    """
    if not record["observations"]:
        raise ValueError("This checkpoint does not say which observations it reads, and a program must name them.")
    program = bytes(export_plan(checkpoint_path, record, use_ema=use_ema).serialize())
    written = write_whole(path, lambda temporary: temporary.write_bytes(program))
    text = json.dumps(record, indent=1)
    write_whole(written.with_suffix(".json"), lambda temporary: temporary.write_text(text))
    return written


def export_plan(checkpoint_path: str | Path, record: dict[str, Any], *, use_ema: bool = True) -> jax.export.Exported:
    """The plan of a checkpoint's policy, (obs) or (obs, noise) -> (B, h, A), for a batch of any size."""
    plan = load_plan(checkpoint_path, use_ema=use_ema)
    params = jax.tree.map(jnp.asarray, plan.params)
    (batch,) = jax.export.symbolic_shape("batch")
    steps = (plan.obs_horizon,) if plan.obs_horizon > 1 else ()
    obs = {
        name: jax.ShapeDtypeStruct((batch, *steps, *spec["shape"]), jnp.dtype(spec["dtype"]))
        for name, spec in record["observations"].items()
    }
    if record["text_len"] and record["tokens"] is None:
        obs[LANGUAGE] = jax.ShapeDtypeStruct((batch, record["text_len"]), jnp.int32)
    noise = jax.ShapeDtypeStruct((batch, plan.horizon, plan.action_dim), jnp.float32)
    if plan.reads_noise:
        program, inputs = jax.jit(lambda obs, noise: plan.plan_fn(params, obs, noise)), (obs, noise)
    else:
        program, inputs = jax.jit(lambda obs: plan.plan_fn(params, obs, None)), (obs,)
    return jax.export.export(program, platforms=PLATFORMS)(*inputs)
