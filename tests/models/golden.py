"""One training step of every model on fixed inputs, as numbers.

Remake golden.json with: python -m tests.models.golden
"""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("golden.json")


def one_step(name: str) -> dict[str, float]:
    """Loss before and after one AdamW step, gradient norm, and mean action, with key 0 and dropout on."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from simscaleai_jax.models.specs import fake_batch
    from tests.models.conftest import CASES

    cls, kwargs = CASES[name]
    model = cls(**kwargs)
    batch, key = fake_batch(model.input_spec(4), seed=1), jax.random.key(0)
    graphdef, params = nnx.split(model)
    optimizer = optax.adamw(1e-2)

    @jax.jit
    def run(params: Any) -> dict[str, Any]:
        def loss(params: Any) -> tuple[Any, Any]:
            out = nnx.merge(graphdef, params)(batch, key=key)
            return out["loss"], out

        (before, out), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        after, _ = loss(optax.apply_updates(params, updates))
        mean = jnp.mean(out["predicted_actions"])
        return {"loss": before, "loss_after": after, "grad_norm": optax.tree.norm(gradients), "mean_action": mean}

    return {name: float(value) for name, value in run(params).items()}


if __name__ == "__main__":
    from tests.models.conftest import CASES

    FILE.write_text(json.dumps({name: one_step(name) for name in CASES}, indent=1) + "\n")
