"""LeRobot plugin: environments (`--env.type=simscale`) and exported policies (`--policy.type=simscale`)."""

from lerobot_env_simscale.config import SimscaleEnv
from lerobot_env_simscale.configuration_simscale import SimscaleConfig
from lerobot_env_simscale.environment import LeRobotEnv

__all__ = ["LeRobotEnv", "SimscaleConfig", "SimscaleEnv"]
