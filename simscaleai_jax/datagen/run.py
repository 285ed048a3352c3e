"""Makes the missing shards of a run: device rollout, host collection, background writing."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from simscaleai_jax.core.compile_cache import enable
from simscaleai_jax.core.sharding import batch_sharding, make_mesh, replicated
from simscaleai_jax.datagen.collect import play_episodes
from simscaleai_jax.datagen.files.background import BackgroundWriter
from simscaleai_jax.datagen.files.shards import Shard
from simscaleai_jax.datagen.files.writer import ShardWriter
from simscaleai_jax.datagen.generator import (
    CHUNK_STEPS,
    MAX_PART_EPISODES,
    PART_BYTES,
    ProgressFn,
    file_attributes,
    instruction,
)
from simscaleai_jax.datagen.identity import robot_attributes
from simscaleai_jax.datagen.policies import labelled, make_policy
from simscaleai_jax.datagen.rollout import Slots, empty_slots, make_chunk_fn

LANES = 16  # slots come in whole vectors: XLA computes the rest of an array with other code, which rounds differently


class Run:
    """One compiled rollout and the shards that it fills one after the other."""

    def __init__(
        self,
        env: Any,
        env_name: str,
        settings: Mapping[str, Any],
        policy: Any,
        noise: Any,
        num_envs: int,
        progress_fn: ProgressFn | None,
        expert: Any = None,
    ) -> None:
        enable()
        self.env, self.settings = env, settings
        told = getattr(getattr(env, "task", None), "instructions", None)
        self.sentences = () if told is None else told.sentences
        self.num_envs = -(-num_envs // LANES) * LANES
        self.policy = make_policy(settings["policy_type"], env_name, env, policy)
        if "expert" in settings:
            kind = "scripted" if expert is None else "policy"
            self.policy = labelled(self.policy, make_policy(kind, env_name, env, expert))
        self.progress_fn = progress_fn
        self.chunk_fn = make_chunk_fn(
            env,
            self.policy,
            settings["seed"],
            chunk_steps=CHUNK_STEPS,
            only_success=settings["only_success"],
            noise=noise,
            with_next_obs=settings["with_next_obs"],
        )

    def make(self, shards: Sequence[Shard], masks: Mapping[str, np.ndarray]) -> None:
        """Writes the shards; what earlier runs have finished of them is kept."""
        wanted = sum(shard.count for shard in shards)
        done = 0
        for shard in shards:
            attributes = file_attributes(self.settings) | robot_attributes(self.env)
            with ShardWriter(shard, self.settings, attributes, masks, self._part_episodes()) as writer:
                numbers = writer.missing()
                done += shard.count - len(numbers)
                with BackgroundWriter(writer, 4 * writer.part_episodes) as background:
                    for number, episode in play_episodes(
                        self.chunk_fn, self._slots(), numbers, sentences=self.sentences
                    ):
                        episode.language = episode.language or instruction(self.settings, number)
                        background.put(number, episode)
                        done += 1
                        if self.progress_fn is not None:
                            self.progress_fn(done, wanted)
                writer.finish()

    def _slots(self) -> Slots:
        """Idle slots, split over this process's devices where they divide evenly. Under jit every device would call
        MuJoCo's C engine for all of them; there they stay on one.
        """
        slots = empty_slots(self.env, self.policy, self.num_envs)
        devices = jax.local_devices()
        is_on_host = self.settings.get("impl") == "c"
        if len(devices) == 1 or self.num_envs % len(devices) or is_on_host:
            return slots
        mesh = make_mesh(devices)
        split = jax.tree.map(
            lambda leaf: jax.device_put(leaf, batch_sharding(mesh)), dataclasses.replace(slots, cursor=None)
        )
        return dataclasses.replace(split, cursor=jax.device_put(slots.cursor, replicated(mesh)))

    def _part_episodes(self) -> int:
        """As many episodes as fit into a part in memory; a function of the settings only, as resuming needs."""
        shapes = [(spec.shape, spec.dtype) for spec in self.env.observation_spec.values()]
        step_bytes = sum(int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize for shape, dtype in shapes)
        episode_bytes = step_bytes * self.env.max_episode_steps
        return int(np.clip(PART_BYTES // max(episode_bytes, 1), 1, MAX_PART_EPISODES))
