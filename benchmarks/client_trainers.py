"""Reach learned by other libraries' PPO through `simscaleai_jax.adapters`, judged over fresh episodes by one rule.

Each function trains and returns (act, environment steps): `act` takes state vectors (N, S) and gives actions (N, A).
Settings follow configs/ppo_reach.yaml as far as a library has them.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import simscaleai_jax.sim as sim
from simscaleai_jax import adapters
from simscaleai_jax.core.intervals import wilson
from simscaleai_jax.core.observations import state_vector

Act = Callable[[np.ndarray], np.ndarray]
SETTINGS = {"dt": 0.01, "cameras": []}
NUM_ENVS, ROLLOUT, EPOCHS = 256, 32, 4  # one update: 8,192 transitions
NUM_UPDATES = 50
STEPS = NUM_ENVS * ROLLOUT * NUM_UPDATES
LR, GAMMA, LOG_STD = 1e-3, 0.97, -0.5
SIZES = (128, 128)
EVAL_SEED = 95_000  # no training draws from it, and no setting was chosen by it


def trained(name: str, seed: int, num_episodes: int = 200) -> dict[str, Any]:
    """Trains with one library and plays fresh episodes: {"success", "episodes", "interval", "steps", "seconds"}."""
    start = time.perf_counter()
    act, steps = TRAINERS[name](seed)
    seconds = time.perf_counter() - start
    found = success(act, num_episodes)
    return {"seed": seed, "steps": steps, "seconds": round(seconds, 1), **found}


def success(act: Act, num_episodes: int) -> dict[str, Any]:
    """Successes of one episode in each of as many copies, each from a start of its own."""
    envs = sim.make_vec_env("reach", num_episodes, autoreset_mode="NextStep", **SETTINGS)
    obs, _ = envs.reset(seed=EVAL_SEED)
    is_over, is_success = np.zeros(num_episodes, bool), np.zeros(num_episodes, bool)
    while not is_over.all():
        obs, _, terminated, truncated, info = envs.step(np.clip(act(np.asarray(state_vector(obs))), -1.0, 1.0))
        ended = (terminated | truncated) & ~is_over
        is_success |= ended & info["success"]
        is_over |= ended
    rate = float(is_success.mean())
    return {"success": rate, "episodes": num_episodes, "interval": wilson(rate, num_episodes)}


def sb3(seed: int) -> tuple[Act, int]:
    """Stable-Baselines3's PPO, with its own VecNormalize."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    vec = VecNormalize(adapters.to_sb3(_envs(seed)), gamma=GAMMA)
    shape = {"net_arch": list(SIZES), "log_std_init": LOG_STD}
    agent = PPO(
        "MlpPolicy", vec, n_steps=ROLLOUT, batch_size=1024, n_epochs=EPOCHS, learning_rate=LR, gamma=GAMMA,
        target_kl=0.03, policy_kwargs=shape, seed=seed, device="cpu",
    ).learn(STEPS)  # fmt: skip
    return lambda state: agent.predict(vec.normalize_obs(state), deterministic=True)[0], agent.num_timesteps


def rsl_rl(seed: int) -> tuple[Act, int]:
    """rsl_rl's OnPolicyRunner."""
    import torch
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    torch.manual_seed(seed)
    network = {"class_name": "MLPModel", "hidden_dims": list(SIZES), "activation": "elu", "obs_normalization": True}
    noise = {"class_name": "GaussianDistribution", "init_std": float(np.exp(LOG_STD)), "std_type": "log"}
    config = {
        "num_steps_per_env": ROLLOUT,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {**network, "distribution_cfg": noise},
        "critic": dict(network),
        "algorithm": {
            "class_name": "PPO", "num_learning_epochs": EPOCHS, "num_mini_batches": 8, "learning_rate": LR,
            "gamma": GAMMA, "entropy_coef": 0.0, "desired_kl": 0.015,
        },
        "save_interval": NUM_UPDATES,
    }  # fmt: skip
    runner = OnPolicyRunner(adapters.to_rsl_rl(_envs(seed)), config, log_dir=None, device="cpu")
    runner.learn(NUM_UPDATES)
    policy = runner.get_inference_policy()

    @torch.no_grad()
    def act(state: np.ndarray) -> np.ndarray:
        return policy(TensorDict({"policy": torch.as_tensor(state)}, batch_size=[len(state)])).numpy()

    return act, STEPS


def skrl(seed: int) -> tuple[Act, int]:
    """skrl's torch PPO with its running scalers."""
    import torch
    from skrl.agents.torch.ppo import PPO, PPO_CFG
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
    from skrl.resources.preprocessors.torch import RunningStandardScaler
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils import set_seed
    from torch import nn

    set_seed(seed)
    vec = adapters.to_skrl(_envs(seed))
    spaces = {"observation_space": vec.observation_space, "action_space": vec.action_space, "device": "cpu"}

    def network(size: int) -> nn.Sequential:
        inside = nn.Sequential(nn.Linear(vec.observation_space.shape[0], SIZES[0]), nn.Tanh())
        return inside.extend([nn.Linear(*SIZES), nn.Tanh(), nn.Linear(SIZES[1], size)])

    class Actor(GaussianMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            GaussianMixin.__init__(self)
            self.net, self.log_std = network(4), nn.Parameter(torch.full((4,), LOG_STD))

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {"log_std": self.log_std}

    class Critic(DeterministicMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            DeterministicMixin.__init__(self)
            self.net = network(1)

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {}

    scaler = {"size": vec.observation_space, "device": "cpu"}
    config = PPO_CFG(
        rollouts=ROLLOUT, learning_epochs=EPOCHS, mini_batches=8, discount_factor=GAMMA, learning_rate=LR,
        kl_threshold=0.03, time_limit_bootstrap=True, observation_preprocessor=RunningStandardScaler,
        observation_preprocessor_kwargs=scaler, value_preprocessor=RunningStandardScaler,
        value_preprocessor_kwargs={"size": 1, "device": "cpu"},
    )  # fmt: skip
    memory = RandomMemory(memory_size=ROLLOUT, num_envs=NUM_ENVS, device="cpu")
    agent = PPO(models={"policy": Actor(), "value": Critic()}, memory=memory, cfg=config, **spaces)
    trainer = SequentialTrainer(
        cfg={"timesteps": ROLLOUT * NUM_UPDATES, "headless": True, "disable_progressbar": True}, env=vec, agents=agent
    )
    trainer.train()
    agent.enable_training_mode(False)

    @torch.no_grad()
    def act(state: np.ndarray) -> np.ndarray:
        _, outputs = agent.act(torch.as_tensor(state), None, timestep=0, timesteps=0)
        return outputs["mean_actions"].numpy()

    return act, STEPS


def brax(seed: int) -> tuple[Act, int]:
    """brax's PPO, with settings that were found on seeds from 10 on and other starts than those of `success`."""
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo.train import train

    if not hasattr(jax, "device_put_replicated"):  # brax 0.14 calls it, jax 0.11 no longer has it; for one device:
        jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
    env = adapters.to_brax(sim.make_functional_env("reach", **SETTINGS))
    steps: list[int] = []
    make_policy, params, _ = train(
        env, num_timesteps=2 * STEPS, episode_length=env.max_episode_steps, num_envs=4 * NUM_ENVS,
        unroll_length=ROLLOUT // 2, batch_size=NUM_ENVS // 2, num_minibatches=8, num_updates_per_batch=EPOCHS,
        # Its adaptive rate also has an update see observations scaled as they were when the actions were drawn.
        learning_rate=LR / 3, learning_rate_schedule="ADAPTIVE_KL", learning_rate_schedule_max_lr=LR, desired_kl=0.015,
        discounting=GAMMA, entropy_cost=1e-2, clipping_epsilon=0.2, max_grad_norm=1.0, reward_scaling=0.02,
        normalize_observations=True, num_evals=2,
        num_resets_per_eval=5,  # new starts after every ten rollouts, in which an episode has 160 of its 200 steps
        network_factory=lambda *sizes, **options: networks.make_ppo_networks(
            *sizes, **options, policy_hidden_layer_sizes=SIZES, value_hidden_layer_sizes=SIZES
        ),
        seed=seed, progress_fn=lambda count, _: steps.append(int(count)),
    )  # fmt: skip
    policy = jax.jit(make_policy(params, deterministic=True))
    return lambda state: np.asarray(policy(state, jax.random.PRNGKey(0))[0]), steps[-1]


def rejax(seed: int) -> tuple[Act, int]:
    """rejax's PPO on the gymnax environment."""
    from rejax import PPO

    algo = PPO.create(
        env=adapters.to_rejax(sim.make_functional_env("reach", **SETTINGS)), num_envs=NUM_ENVS, num_steps=ROLLOUT,
        num_minibatches=8, num_epochs=EPOCHS, learning_rate=LR, gamma=GAMMA, ent_coef=0.0, max_grad_norm=0.5,
        normalize_observations=True, normalize_rewards=True, total_timesteps=STEPS, eval_freq=STEPS,
        skip_initial_evaluation=True, agent_kwargs={"hidden_layer_sizes": SIZES, "activation": "tanh"},
    )  # fmt: skip
    state, _ = jax.jit(algo.train)(jax.random.PRNGKey(seed))
    mean = jax.jit(lambda obs: _mean_action(algo, state, algo.normalize_obs(state.obs_rms_state, obs)))
    return lambda obs: np.asarray(mean(obs)), int(state.global_step)


def _mean_action(algo: Any, state: Any, obs: Any) -> Any:
    return algo.actor.apply(state.actor_ts.params, obs, method=lambda module, x: module._action_dist(x).mean())


def _envs(seed: int) -> Any:
    return sim.make_vec_env("reach", NUM_ENVS, seed=seed, **SETTINGS)


TRAINERS = {"sb3": sb3, "brax": brax, "rejax": rejax, "rsl_rl": rsl_rl, "skrl": skrl}
