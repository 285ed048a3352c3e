"""The model in training as a pure policy, for closed-loop evaluation while it trains."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jaxtyping import Array

from simscaleai_jax.core.receding_horizon import Policy
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.models.planning import Execution, execution_of, make_plan_fn, text_length

LIMITS = {"low": -1.0, "high": 1.0}  # of actions, where nothing else is known


class ModelPolicy(Policy):
    """What `load_policy` will make of this run's checkpoint: the same plans, executed in the same chunks.

    One object serves a whole run: new weights replace `params`, and nothing is compiled again. What it reads is known
    from the first batch on.
    """

    def read(self, observation_spec: Mapping[str, Any]) -> None:
        """From now on it reads these observations alone, of all that an environment has."""
        self._reads.clear()
        self._reads.update(observation_spec)
        self.observation_spec = dict(observation_spec)

    def __init__(
        self,
        graphdef: Any,
        params: Any,
        statistics: Statistics | None,
        tokens: Any = None,
        execution: Execution | None = None,
        limits: Mapping[str, Any] = LIMITS,
    ) -> None:
        def forward(params: Any, batch: dict[str, Any], key: Array) -> Array:
            return nnx.merge(graphdef, nnx.State(params)).forward(batch, key=key)["predicted_actions"]

        model = nnx.merge(graphdef, nnx.State(params))
        horizon = int(getattr(model, "action_horizon", 1))
        steps = int(getattr(model, "obs_horizon", 1))
        self._reads: dict[str, Any] = {}
        plan = make_plan_fn(
            forward,
            horizon,
            statistics=statistics,
            tokens=tokens,
            observation_spec=self._reads,
            limits=limits,
            obs_horizon=steps,
            text_len=text_length(model),
        )
        options = dataclasses.asdict(execution_of(model) if execution is None else execution)
        super().__init__(
            plan,
            params,
            int(getattr(model, "action_dim", 0)),
            horizon,
            obs_horizon=steps,
            text_len=text_length(model),
            **options,
        )
