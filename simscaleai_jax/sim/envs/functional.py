"""The functional environment: `reset(key) -> EnvState`, `step(EnvState, action) -> EnvState`, unbatched and pure."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simscaleai_jax.core.jax_settings import GENERATOR
from simscaleai_jax.core.precision import full_precision
from simscaleai_jax.sim.config import SimConfig
from simscaleai_jax.sim.physics import Kinematics, Physics, PhysicsState
from simscaleai_jax.sim.robot.feasibility import check_randomization
from simscaleai_jax.sim.tasks.base import Task
from simscaleai_jax.sim.tasks.snapshot import Snapshot, make_snapshot


@struct.dataclass
class BodyPoses:
    """Where the bodies are, for cameras."""

    xpos: Float[Array, "*B bodies 3"]  # m
    xmat: Float[Array, "*B bodies 9"]


@struct.dataclass
class EnvState:
    """One environment after a reset or a step; `vmap` gives the batch."""

    physics: PhysicsState
    snapshot: Snapshot
    poses: BodyPoses | None  # only where there are cameras
    task_state: Any  # the task's own pytree: goal and latches
    overrides: dict[str, Array]  # randomized model fields of this episode, {} without randomization
    obs: dict[str, Array]
    reward: Float[Array, "*B"]
    reward_terms: dict[str, Float[Array, "*B"]]  # weighted; they sum to `reward`
    terminated: Bool[Array, "*B"]  # ended for good: no value follows
    truncated: Bool[Array, "*B"]  # cut by the time limit: the value of `obs` follows
    # The task's documented keys, `nan`: the state was not finite, and `overflow`: a full buffer may have cost contacts.
    info: dict[str, Array]
    step: Int[Array, "*B"]  # control steps since the reset
    key: PRNGKeyArray  # of this episode


class FunctionalEnv:
    """A task on a physics engine.

    `observation_spec` maps each key to its unbatched shape and dtype; `action_size` numbers in [-1, 1] make an action.
    """

    def __init__(self, config: SimConfig, task: Task, physics: Physics, camera_fn: Any = None) -> None:
        if config.domain_randomization:
            check_randomization(task, config.randomization)
        self.config = config
        self.task = task
        self.physics = physics
        self.action_size = task.action_size
        self.max_episode_steps = config.max_episode_steps
        self._camera_fn = camera_fn
        # Shapes follow from an abstract reset: nothing is compiled or run.
        self.observation_spec = jax.eval_shape(self.reset, jax.random.key(0, impl=GENERATOR)).obs

    def reset(self, key: PRNGKeyArray, overrides: dict[str, Array] | None = None) -> EnvState:
        """Start an episode; everything random in it follows from `key`. `overrides` replace the randomized model
        fields that it would draw; start and goal stay the key's.
        """
        return self.add_images(self.reset_state(key, overrides=overrides))

    def step(self, state: EnvState, action: Float[Array, "A"]) -> EnvState:
        """One control step. Actions are clipped to [-1, 1]; there is no auto-reset: stepping on after the end is
        allowed.
        """
        return self.add_images(self.step_state(state, action))

    @full_precision
    def reset_state(
        self,
        key: PRNGKeyArray,
        control_steps: Int[Array, ""] | None = None,
        overrides: dict[str, Array] | None = None,
    ) -> EnvState:
        """`reset` without images.

        `control_steps` says how long this environment has been trained: a task with a `curriculum` then makes some
        starts easier. Without it (evaluation, data generation) every start is the task's own.
        """
        key_model, key_task = jax.random.split(key)
        overrides = self._draw_overrides(key_model) if overrides is None else dict(overrides)
        if control_steps is not None and hasattr(self.task, "curriculum"):
            overrides["curriculum"] = self.task.curriculum(control_steps)
        start, task_state = self.task.sample(key_task, overrides)
        physics = self.physics.reset(start)
        snapshot, poses = self._read(self.physics.kinematics(physics))
        action = jnp.zeros(self.action_size, jnp.float32)
        left = jnp.int32(self.max_episode_steps)
        terms = self.task.reward_terms(snapshot, task_state, action, left)
        return EnvState(
            physics=physics,
            snapshot=snapshot,
            poses=poses,
            task_state=task_state,
            overrides=overrides,
            obs=_float32(self.task.observe(snapshot, task_state)),
            reward=jnp.float32(0.0),
            reward_terms=jax.tree.map(lambda term: jnp.zeros((), jnp.float32), terms),
            terminated=jnp.bool_(False),
            truncated=jnp.bool_(False),
            info={**self.task.info(snapshot, task_state), "nan": jnp.bool_(False), "overflow": jnp.bool_(False)},
            step=jnp.int32(0),
            key=key,
        )

    @full_precision
    @jax.named_scope("task")
    def step_state(self, state: EnvState, action: Float[Array, "A"]) -> EnvState:
        """`step` without images, with the NaN guard.

        A state that is not finite ends its episode: terminated, with zero reward and zero observation, and
        `info["nan"]`.
        """
        task = self.task
        action = jnp.clip(action.astype(jnp.float32), -1.0, 1.0)
        ctrl = task.control(state.snapshot, state.task_state, action)
        with jax.named_scope("physics"):
            physics, kinematics, overflow = self.physics.step(state.physics, ctrl, state.overrides)
        snapshot, poses = self._read(kinematics)
        task_state = task.update(snapshot, state.task_state, action)
        step = state.step + 1
        terms = task.reward_terms(snapshot, task_state, action, self.max_episode_steps - step)
        obs = _float32(task.observe(snapshot, task_state))
        info = task.info(snapshot, task_state)
        is_finite = all_finite((physics, obs, terms))
        terms, obs, info = zero_unless(is_finite, (_float32(terms), obs, info))
        terminated = task.terminated(snapshot, task_state) | ~is_finite
        return state.replace(
            physics=physics,
            snapshot=snapshot,
            poses=poses,
            task_state=task_state,
            obs=obs,
            reward=sum(terms.values(), start=jnp.float32(0.0)),
            reward_terms=terms,
            terminated=terminated,
            truncated=(step >= self.max_episode_steps) & ~terminated,
            info={**info, "nan": ~is_finite, "overflow": overflow},
            step=step,
        )

    @full_precision
    def add_images(self, state: EnvState) -> EnvState:
        """Render the configured cameras into the observation; nothing to do without cameras."""
        if self._camera_fn is None:
            return state
        return state.replace(obs={**state.obs, **self._camera_fn(state.poses, state.overrides)})

    def _read(self, kinematics: Kinematics) -> tuple[Snapshot, BodyPoses | None]:
        """What tasks see, and what cameras see where there are any."""
        poses = BodyPoses(kinematics.xpos, kinematics.xmat) if self._camera_fn is not None else None
        return make_snapshot(self.physics.robot, kinematics), poses

    def _draw_overrides(self, key: PRNGKeyArray) -> dict[str, Array]:
        if not self.config.domain_randomization:
            return {}
        from simscaleai_jax.sim.randomization import draw

        return draw(key, self.config.randomization, self.physics.host_model)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every float leaf is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def zero_unless(condition: Bool[Array, ""], tree: Any) -> Any:
    """The tree, or zeros of its shape."""
    return jax.tree.map(lambda leaf: jnp.where(condition, leaf, jnp.zeros_like(leaf)), tree)


def _float32(tree: dict[str, Array]) -> dict[str, Array]:
    return {key: jnp.asarray(value, jnp.float32) for key, value in tree.items()}
