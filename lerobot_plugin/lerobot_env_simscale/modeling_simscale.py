"""The policy class of `--policy.type=simscale`: our torch twin behind LeRobot's interface, without JAX."""

from pathlib import Path
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy

from lerobot_env_simscale.configuration_simscale import SimscaleConfig
from simscaleai_jax.interop.torch_mirror import load

WEIGHTS = "model.safetensors"


class SimscalePolicy(PreTrainedPolicy):
    """Takes LeRobot's observations apart into ours and acts on them raw, normalization inside."""

    config_class = SimscaleConfig
    name = "simscale"

    def __init__(self, config: SimscaleConfig, path: str | Path = "", **kwargs: Any) -> None:
        """Raises a ValueError without the folder of an export: such a policy begins with one."""
        super().__init__(config)
        if not path:
            raise ValueError("A simscale policy is an export: give its folder as --policy.path.")
        self.policy = load(Path(path) / WEIGHTS, execute_steps=config.execute_steps or None)
        self.model = self.policy.model
        self._carry: Any = None

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, *, config: Any = None, **kwargs: Any) -> Any:
        """The policy of a folder that `python -m lerobot_env_simscale` has written."""
        from lerobot.configs import PreTrainedConfig

        config = config or PreTrainedConfig.from_pretrained(pretrained_name_or_path)
        return cls(config, pretrained_name_or_path).eval()

    def reset(self) -> None:
        """Forgets the plans."""
        self._carry = None

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        """(B, A): the next action of each plan."""
        obs = self._observations(batch)
        if self._carry is None:
            self._carry = self.policy.init(len(next(iter(obs.values()))))
        action, self._carry = self.policy.step(self._carry, obs)
        return action

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        """(B, h, A): fresh plans."""
        return self.policy.plan(self._observations(batch))

    def forward(self, batch: dict[str, Any]) -> Any:
        """Refused: LeRobot does not train it."""
        raise NotImplementedError("A simscale policy is trained by simscaleai_jax; LeRobot plays it.")

    def get_optim_params(self) -> Any:
        """Its weights."""
        return self.parameters()

    def _observations(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Our observation keys; pictures are float (B, C, H, W) in [0, 1] here and uint8 (B, H, W, C) there."""
        obs: dict[str, torch.Tensor] = {}
        for feature, sizes in self.config.observations.items():
            parts = torch.split(batch[feature], list(sizes.values()), dim=-1)
            obs |= dict(zip(sizes, parts, strict=True))
        for feature, key in self.config.cameras.items():
            obs[key] = (batch[feature] * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)
        return obs
