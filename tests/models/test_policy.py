"""Policies from checkpoints: normalisation, chunk execution, ensembling, batches of any shape."""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from simscaleai_jax.core import checkpoint, flat_tree
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.models import BehaviorCloning, Statistics
from simscaleai_jax.models.record import describe, flat_parameters
from simscaleai_jax.policy import Policy, load_policy
from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.sim.config import SimConfig
from tests.models.conftest import Compiled

HORIZON = 3


def save(
    path: Path,
    model: Any,
    statistics: Statistics | None = None,
    limits: dict[str, Any] | None = None,
    execution: dict[str, Any] | None = None,
    **extra: Any,
) -> Path:
    name, kwargs = describe(model)
    tree: dict[str, Any] = {"params": flat_tree.nest(flat_parameters(model)), **extra}
    if statistics is not None:
        tree["statistics"] = statistics.arrays()
    action = {"shape": [4], "dtype": "float32", **(limits or {"low": -1.0, "high": 1.0})}
    spec = {"joint": {"shape": [3], "dtype": "float32"}, "place": {"shape": [2], "dtype": "float32"}}
    said = {} if execution is None else {"execution": execution}
    manifest = Manifest("model", name, kwargs, action_spec=action, observation_spec=spec, extra=said)
    return checkpoint.save(path, tree, manifest)


@pytest.fixture(scope="module")
def model() -> BehaviorCloning:
    return BehaviorCloning(5, hidden_dim=8, n_layers=1)


def observation(*batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"place": rng.normal(size=(*batch, 2)), "joint": rng.normal(size=(*batch, 3)), "unused": np.zeros(9)}


def test_a_policy_normalises_clips_and_takes_any_batch(model: BehaviorCloning, tmp_path: Path) -> None:
    """C24."""
    statistics = Statistics(
        state_mean=np.arange(5.0), state_std=np.full(5, 2.0), action_mean=np.full(4, 0.1), action_std=np.full(4, 40.0)
    )
    policy = load_policy(save(tmp_path / "bc", model, statistics))
    obs, key = observation(2, 3), jax.random.key(0)
    state = np.concatenate([obs["joint"], obs["place"]], -1).astype(np.float32)
    normal = ((state - np.arange(5.0)) / 2.0).astype(np.float32)
    wanted = np.clip(np.asarray(model.predict({"state": normal})) * 40.0 + 0.1, -1.0, 1.0)
    actions = policy(obs, key)
    np.testing.assert_allclose(actions, wanted, atol=1e-5)
    assert (np.abs(wanted) == 1.0).any()
    one = {name: value[1, 2] if name != "unused" else value for name, value in obs.items()}
    np.testing.assert_allclose(policy(one, key), wanted[1, 2], atol=1e-5)
    rows = {name: value.reshape(6, -1) for name, value in obs.items() if name != "unused"}
    mapped = jax.vmap(policy)(rows, jax.random.split(key, 6))
    np.testing.assert_allclose(mapped, wanted.reshape(6, 4), atol=1e-5)
    with pytest.raises(ValueError, match="obs\\['joint'\\]"):
        policy({"place": obs["place"]}, key)


def test_a_checkpoint_says_how_its_chunks_are_executed(tmp_path: Path) -> None:
    chunked = BehaviorCloning(5, hidden_dim=8, n_layers=1, action_horizon=4, obs_horizon=2)
    limits = {"low": [-0.1] * 4, "high": [0.1, 0.2, 0.3, 0.4]}
    path = save(tmp_path / "bc", chunked, limits=limits, execution={"execute_steps": 2, "ensemble": None})
    policy = load_policy(path)
    assert (policy.execute_steps, policy.ensemble, policy.obs_horizon) == (2, None, 2)
    assert load_policy(path, execute_steps=3).execute_steps == 3
    averaging = load_policy(path, ensemble=0.1)
    assert (averaging.execute_steps, averaging.ensemble) == (4, 0.1)
    obs, key = observation(3), jax.random.key(0)
    state = np.concatenate([obs["joint"], obs["place"]], -1).astype(np.float32)
    wanted = np.asarray(chunked.predict({"state": np.stack([state, state], axis=1)}))
    np.testing.assert_allclose(policy.plan(obs, key), np.clip(wanted, -0.1, limits["high"]), atol=1e-6)
    later = {name: value + 1.0 for name, value in obs.items()}
    carry = policy.init(3)
    for seen in (obs, obs, later):
        action, carry = policy.step(carry, seen, key)
    wanted = np.asarray(chunked.predict({"state": np.stack([state, state + 1.0], axis=1)}))[:, 0]
    np.testing.assert_allclose(action, np.clip(wanted, -0.1, limits["high"]), atol=1e-6)


def test_averaged_weights_are_used_when_there_are_any(model: BehaviorCloning, tmp_path: Path) -> None:
    doubled = flat_tree.nest({name: 2.0 * value for name, value in flat_parameters(model).items()})
    path = save(tmp_path / "ema", model, ema_params=doubled)
    obs, key = observation(), jax.random.key(0)
    plain, averaged = (load_policy(path, use_ema=flag)(obs, key) for flag in (False, True))
    state = np.concatenate([obs["joint"], obs["place"]]).astype(np.float32)
    np.testing.assert_allclose(plain, model.predict({"state": state}), atol=1e-6)
    assert not np.allclose(plain, averaged)


def counting_policy(**options: Any) -> Policy:
    """Plans (10 t, 10 t + 1, 10 t + 2) at time t = obs["state"]."""

    def plan(params: Any, obs: Any, key: Any) -> Any:
        return jnp.stack([10.0 * obs["state"] + i for i in range(HORIZON)], axis=-2)

    return Policy(plan, (), 1, HORIZON, **options)


def run(policy: Policy, num_steps: int, batch: tuple[int, ...] = (), done_at: int = -1) -> np.ndarray:
    carry, actions = policy.init(batch), []
    for t in range(num_steps):
        action, carry = policy.step(carry, {"state": jnp.full((*batch, 1), float(t))}, jax.random.key(t))
        actions.append(np.asarray(action)[..., 0])
        if t == done_at:
            carry = policy.reset(carry, jnp.arange(batch[0]) == 0)
    return np.array(actions)


def test_a_chunk_is_executed_before_the_next_plan() -> None:
    np.testing.assert_array_equal(run(counting_policy(), 5), [0, 1, 2, 30, 31])
    np.testing.assert_array_equal(run(counting_policy(execute_steps=2), 5), [0, 1, 20, 21, 40])
    np.testing.assert_array_equal(run(counting_policy(execute_steps=1), 3), [0, 10, 20])


@pytest.mark.parametrize(("ensemble", "wanted"), [(None, [0.0, 3.0, 6.0]), (0.5, [0.0, 1.0, 2.0, 3.0, 4.0])])
def test_the_model_runs_only_where_a_plan_is_due(ensemble: float | None, wanted: list[float]) -> None:
    calls: list[float] = []

    def plan(params: Any, obs: Any, key: Any) -> Any:
        jax.debug.callback(lambda t: calls.append(float(t)), obs["state"][0])
        return jnp.zeros((HORIZON, 1))

    policy = Policy(plan, (), 1, HORIZON, ensemble=ensemble)

    @jax.jit
    def play(carry: Any) -> Any:
        def step(carry: Any, t: Any) -> tuple[Any, None]:
            obs = {"state": jnp.full((2, 1), t, jnp.float32)}
            is_over = jnp.asarray([ensemble is not None and t >= 5, t >= 3])
            keys = jax.random.split(jax.random.key(0), 2)
            return jax.vmap(policy.step)(carry, obs, keys, is_over)[1], None

        return jax.lax.scan(step, carry, jnp.arange(7))[0]

    jax.block_until_ready(play(policy.init(2)))
    jax.effects_barrier()
    assert sorted(set(calls)) == wanted


def test_episodes_that_end_plan_anew_alone() -> None:
    actions = run(counting_policy(), 5, (2,), done_at=0)
    np.testing.assert_array_equal(actions[:, 0], [0, 10, 11, 12, 40])
    np.testing.assert_array_equal(actions[:, 1], [0, 1, 2, 30, 31])
    policy = counting_policy()
    obs = {"state": jnp.ones((2, 1))}
    mapped, _ = jax.vmap(lambda o, k: policy.step(policy.init(), o, k))(obs, jax.random.split(jax.random.key(0), 2))
    np.testing.assert_array_equal(mapped, [[10.0], [10.0]])


def test_ensembling_averages_every_plan_for_now() -> None:
    decay = 0.5
    actions = run(counting_policy(ensemble=decay), 5)
    for t, action in enumerate(actions):
        plans = range(max(0, t - HORIZON + 1), t + 1)  # oldest first
        weights = [np.exp(-decay * i) for i in range(len(plans))]
        np.testing.assert_allclose(action, np.average([10 * p + t - p for p in plans], weights=weights), rtol=1e-6)


SPEC = {"state": {"shape": [1], "dtype": "float32"}}


def remembering_policy(**options: Any) -> Policy:
    """The action is what it remembers, as digits: the oldest of three observations leads."""

    def plan(params: Any, obs: Any, key: Any) -> Any:
        return (obs["state"][..., 0] @ jnp.array([100.0, 10.0, 1.0]))[..., None, None]

    return Policy(plan, (), 1, obs_horizon=3, observation_spec=SPEC, **options)


def test_a_history_is_carried_and_begins_with_the_episode() -> None:
    policy = remembering_policy()
    actions, carry = [], policy.init(2)
    for t in range(1, 6):
        obs = {"state": jnp.array([[float(t)], [2.0]])}
        action, carry = policy.step(carry, obs, jax.random.key(0))
        actions.append(np.asarray(action)[:, 0].tolist())
        if t == 4:
            carry = policy.reset(carry, jnp.array([True, False]))
    assert actions == [[111, 222], [112, 222], [123, 222], [234, 222], [555, 222]]
    assert policy({"state": jnp.array([7.0])}, jax.random.key(0)) == 777.0
    rows = jax.vmap(lambda carry, obs: policy.step(carry, obs, jax.random.key(0)))
    mapped, _ = rows(policy.init(2), {"state": jnp.array([[4.0], [5.0]])})
    np.testing.assert_array_equal(mapped, [[444.0], [555.0]])
    with pytest.raises(ValueError, match=r"needs obs\['state'\]"):
        policy.step(policy.init(), {"stat": jnp.zeros(1)}, jax.random.key(0))
    with pytest.raises(ValueError, match="observation_spec"):
        Policy(lambda params, obs, key: obs, (), 1, obs_horizon=2).init()


@struct.dataclass
class ClockState:
    obs: dict[str, jax.Array]
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]
    physics: tuple[()] = ()


class Clock:
    """A functional environment whose observation is the time and whose reward is the action; four or five steps."""

    max_episode_steps, action_size = 5, 1
    observation_spec: ClassVar = {"state": jax.ShapeDtypeStruct((1,), jnp.float32)}
    config = SimConfig(cameras=[])

    def reset(self, key: Any) -> ClockState:
        no = jnp.bool_(False)
        ends_early = jax.random.bernoulli(key)
        return ClockState({"state": jnp.zeros(1)}, jnp.float32(0), no, no, {"success": no, "early": ends_early})

    def step(self, state: ClockState, action: Any) -> ClockState:
        time = state.obs["state"] + 1
        over = (time[0] >= 5) | (state.info["early"] & (time[0] >= 4))
        info = state.info | {"success": over}
        return state.replace(obs={"state": time}, reward=action[0], terminated=over, info=info)


class GymClock(gym.Env):
    """The same clock behind gymnasium's API, always five steps."""

    observation_space = gym.spaces.Dict({"state": gym.spaces.Box(0, 9, (1,), np.float32)})
    action_space = gym.spaces.Box(-99, 99, (1,), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.time = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._obs(), float(action[0]), self.time == 5, False, {"success": True}

    def _obs(self) -> dict[str, np.ndarray]:
        return {"state": np.full(1, self.time, np.float32)}


CHUNKS = {3: [0, 1, 2, 30, 31], 2: [0, 1, 20, 21, 40], 1: [0, 10, 20, 30, 40]}  # actions by executed steps


@pytest.mark.parametrize("execute_steps", sorted(CHUNKS))
def test_the_evaluator_executes_chunks_in_every_path(execute_steps: int) -> None:
    """C25."""
    policy, wanted = counting_policy(execute_steps=execute_steps), CHUNKS[execute_steps]
    plain = evaluate_policy(GymClock(), policy, EvalConfig(n_episodes=2))
    assert (plain["min_reward"], plain["max_reward"]) == (sum(wanted), sum(wanted)), "every episode plans for itself"
    batched = evaluate_policy(Clock(), policy, EvalConfig(n_episodes=8))
    assert (batched["min_reward"], batched["max_reward"]) == (sum(wanted[:4]), sum(wanted))
    assert 4 < batched["mean_length"] < 5
    averaged = evaluate_policy(GymClock(), counting_policy(ensemble=0.0), EvalConfig(n_episodes=1))
    assert averaged["mean_reward"] == pytest.approx(run(counting_policy(ensemble=0.0), 5).sum())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="wanted 1 to 3"):
        counting_policy(execute_steps=4)
    with pytest.raises(ValueError, match="ensemble"):
        counting_policy(ensemble=-1.0)
    with pytest.raises(ValueError, match="give one"):
        counting_policy(ensemble=0.1, execute_steps=2)
    with pytest.raises(ValueError, match="no plans to average"):
        Policy(lambda params, obs, key: obs, (), 1, ensemble=0.1)
    with pytest.raises(ValueError, match="action_dim"):
        Policy(lambda params, obs, key: obs, (), 0).init()


def test_a_ppo_policy_has_parameters_and_refuses_what_it_would_ignore(model: BehaviorCloning, tmp_path: Path) -> None:
    agent = PPOAgent(3, 2, PPOConfig(hidden_dim=8, n_layers=1))
    agent.save(str(tmp_path / "ppo"))
    policy = load_policy(tmp_path / "ppo")
    obs, key = {"state": np.ones(3, np.float32)}, jax.random.key(0)
    np.testing.assert_allclose(policy(obs, key), agent.policy()(obs, key), atol=1e-6)
    policy.params = jax.tree.map(jnp.zeros_like, policy.params)
    np.testing.assert_array_equal(policy(obs, key), np.zeros(2))
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"language": "go"}, "reads no instruction"),
        ({"execute_steps": 2}, "wanted 1 to 1"),
        ({"ensemble": 0.1}, "no plans to average"),
    )
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            load_policy(tmp_path / "ppo", **options)
    with pytest.raises(ValueError, match="reads no instruction"):
        load_policy(save(tmp_path / "bc", model), language="go")


def test_an_instruction_reaches_the_model(compiled_cache: dict[str, Compiled], tmp_path: Path) -> None:
    compiled = compiled_cache.setdefault("vla-mlp", Compiled("vla-mlp"))
    name, kwargs = describe(compiled.model)
    tree = {"params": flat_tree.nest(flat_parameters(compiled.model))}
    path = checkpoint.save(tmp_path / "vla", tree, Manifest("model", name, kwargs, extra={"language": "left"}))
    obs = {key: value[0] for key, value in compiled.batch["observations"].items()}
    policy = load_policy(path)
    carry = policy.init()
    first, carry = policy.step(carry, obs, jax.random.key(0))
    batch = {"observations": compiled.batch["observations"], "language": ["left"] * 2}
    wanted = jax.jit(compiled.model)(compiled.model.prepare_batch(batch))["predicted_actions"][0]
    np.testing.assert_allclose(first, wanted[0], atol=1e-6)
    np.testing.assert_allclose(carry.chunk, wanted, atol=1e-6)
    tokens = compiled.model.language_encoder.tokenize(["right"])
    assert not np.allclose(policy({**obs, "language": tokens[0]}, jax.random.key(0)), first, atol=1e-7)


def test_an_observed_instruction_may_have_places_behind_what_the_model_reads(
    compiled_cache: dict[str, Compiled], tmp_path: Path
) -> None:
    compiled = compiled_cache.setdefault("vla-mlp", Compiled("vla-mlp"))
    name, kwargs = describe(compiled.model)
    tree = {"params": flat_tree.nest(flat_parameters(compiled.model))}
    path = checkpoint.save(tmp_path / "vla", tree, Manifest("model", name, kwargs, extra={"language": None}))
    obs = {key: value[0] for key, value in compiled.batch["observations"].items()}
    policy, length = load_policy(path), compiled.model.max_text_len
    assert policy.text_len == length
    tokens = np.zeros(length + 9, np.float32)
    tokens[:2] = compiled.model.language_encoder.tokenize(["go"])[0, :2]
    same = policy({**obs, "language": tokens[:length]}, jax.random.key(0))
    np.testing.assert_array_equal(policy({**obs, "language": tokens}, jax.random.key(0)), same)
    with pytest.raises(ValueError, match="needs batch\\['language'\\]"):
        policy(obs, jax.random.key(0))
    with pytest.raises(ValueError, match=f"has {length + 1} characters; the model reads {length}"):
        load_policy(path, language="a" * (length + 1))
