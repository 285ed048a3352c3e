"""The documented reward functions, on NumPy and under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.rl.rewards import ActionPenalty, CompositeReward, DistanceReward, RewardFunction, SuccessBonus

OBS = {"ee_pos": np.array([0.0, 0.0, 0.3]), "target_pos": np.array([0.0, 0.4, 0.0])}  # 0.5 m apart
NEAR = {"ee_pos": np.zeros(3), "target_pos": np.array([0.0, 0.0, 0.049])}
ACTION = np.array([1.0, -2.0, 0.0, 2.0])


class Constant(RewardFunction):
    """A user's own term."""

    def compute(self, obs, action, info):
        return info["pay"]


@pytest.mark.parametrize(
    ("reward", "obs", "wanted"),
    [
        (DistanceReward(), OBS, -0.5),
        (DistanceReward(scale=3.0), OBS, -1.5),
        (DistanceReward("target_pos", "target_pos"), OBS, 0.0),
        (SuccessBonus(), OBS, 0.0),
        (SuccessBonus(), NEAR, 1.0),
        (SuccessBonus(threshold=0.6, bonus=7.0), OBS, 7.0),
        (ActionPenalty(), OBS, -0.03),
        (ActionPenalty(squared=True), OBS, -0.09),
        (CompositeReward([(DistanceReward(), 2.0), (ActionPenalty(scale=1.0), 0.5), (Constant(), 1.0)]), OBS, 0.5),
    ],
)
def test_value_on_numpy_and_under_jit(reward, obs, wanted):
    info = {"pay": 3.0}
    value = reward.compute(obs, ACTION, info)
    assert isinstance(value, float)
    assert value == pytest.approx(wanted)
    traced = jax.jit(reward.compute)(obs, ACTION, info)
    assert traced == pytest.approx(wanted, rel=1e-6)


def test_coordinates_are_on_the_last_axis():
    batch = {key: jnp.stack([jnp.asarray(OBS[key]), jnp.asarray(NEAR[key])]) for key in OBS}
    np.testing.assert_allclose(DistanceReward().compute(batch, None, {}), [-0.5, -0.049], rtol=1e-5)
    np.testing.assert_allclose(SuccessBonus().compute(batch, None, {}), [0.0, 1.0])


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"obs\['object_pos'\]; the observation has ee_pos, target_pos"):
        DistanceReward("ee_pos", "object_pos").compute(OBS, ACTION, {})
