"""PPO from images: which cameras the encoder sees, and a probe that only the second camera lets it solve."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.rl.agents.ppo import PPOAgent, PPOConfig
from simscaleai_jax.rl.ppo.envs import model_kwargs_for
from simscaleai_jax.rl.ppo.rollout import network_inputs
from simscaleai_jax.rl.ppo.storage import load_policy

from .probes import PROBES, Probe

SIDE = 20
SMALL = PPOConfig(
    encoder="cnn", actor_keys=("clock",), hidden_dim=16, n_layers=1, num_envs=32, n_steps=64, num_minibatches=2,
    n_epochs=4, lr=5e-3, gamma=0.5, total_timesteps=40 * 64, updates_per_dispatch=40, entropy_coef=0.0,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The probe "action for the observation", whose observation is a dark or a bright picture of the second camera."""

    probe: Probe = PROBES["action for the observation"]
    action_size: int = 1
    max_episode_steps: int = 10
    shapes: tuple = ((SIDE, SIDE, 3), (SIDE, SIDE, 3))

    @property
    def observation_spec(self):
        images = [jax.ShapeDtypeStruct(shape, jnp.uint8) for shape in self.shapes]
        number = jax.ShapeDtypeStruct((1,), jnp.float32)
        return {"clock": number, "shade": number, "image": images[0], "image_side_cam": images[1]}

    def init(self, key, env_ids):
        return self._picture(self.probe.init(key, env_ids))

    def step(self, state, action):
        return self._picture(self.probe.step(state.replace(obs={"state": state.x[:, None]}), action))

    def _picture(self, state):
        clock, shade = jnp.zeros((state.x.shape[0], 1)), jnp.where(state.x > 0, 200, 50).astype(jnp.uint8)
        blank = jnp.zeros((state.x.shape[0], SIDE, SIDE, 3), jnp.uint8)
        numbers = {"clock": clock, "shade": state.x[:, None]}
        images = {"image": blank, "image_side_cam": blank + shade[:, None, None, None]}
        return state.replace(obs=numbers | images, final_obs=numbers)


def test_channels_of_all_cameras_are_joined():
    config = PPOConfig(encoder="cnn", actor_keys=("clock",))
    assert model_kwargs_for(Pictures(), config)["image_shape"] == (SIDE, SIDE, 6)
    obs = {"clock": np.zeros(1), "image": np.full((2, 2, 3), 1, np.uint8), "image_side_cam": np.full((2, 2, 3), 2)}
    assert np.asarray(network_inputs(obs, config)["image"])[0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert "image" not in network_inputs(obs, PPOConfig(actor_keys=("clock",)))


def test_cameras_of_different_sizes_are_refused():
    env = Pictures(shapes=((SIDE, SIDE, 3), (SIDE, 2 * SIDE, 3)))
    with pytest.raises(ValueError, match=r"needs cameras of one size; .*\(20, 20, 3\), \(20, 40, 3\)"):
        model_kwargs_for(env, PPOConfig(encoder="cnn"))


@pytest.mark.wide
def test_what_only_an_image_shows_is_learned():
    history = PPOAgent.for_env(Pictures(), SMALL).train(Pictures(), progress=False)
    assert np.mean(history["episode_reward"][:2]) < 0.4
    assert np.mean(history["episode_reward"][-3:]) > 0.9
    assert not np.any(history["auxiliary_loss"])


@pytest.mark.wide
def test_an_auxiliary_loss_teaches_the_encoder_and_the_actor_acts_on_its_predictions(tmp_path):
    env = Pictures()
    agent = PPOAgent.for_env(
        env, dataclasses.replace(SMALL, auxiliary_keys=("shade",), critic_keys=("shade",), auxiliary_lr=5e-3)
    )
    history = agent.train(env, progress=False)
    assert history["auxiliary_loss"][0] > 0.1
    assert history["auxiliary_loss"][-1] < 0.01
    assert np.mean(history["episode_reward"][:2]) < 0.4
    assert np.mean(history["episode_reward"][-3:]) > 0.9
    agent.save(str(tmp_path / "agent"))
    obs = {name: value[0] for name, value in env.init(jax.random.key(0), jnp.arange(1)).obs.items() if name != "shade"}
    action = load_policy(tmp_path / "agent")(obs, jax.random.key(0))
    assert np.allclose(action, agent.predict(obs), atol=1e-5), "acting does not need what only training sees"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auxiliary_keys": ("shade",)}, "auxiliary_keys are predicted from images; set encoder to 'cnn'"),
        ({"auxiliary_lr": -1.0}, r"auxiliary_lr must be above 0; got -1\.0"),
        ({"encoder": "cnn", "auxiliary_keys": ("shaed",)}, r"'shaed'\. Did you mean 'shade'"),
    ],
)
def test_a_wrong_auxiliary_loss_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PPOAgent.for_env(Pictures(), PPOConfig(**settings))
