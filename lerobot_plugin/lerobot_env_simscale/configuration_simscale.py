"""`--policy.type=simscale`: a policy of ours, exported as safetensors."""

import dataclasses
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig

KINDS = ("VISUAL", "STATE", "ENV", "ACTION")


@PreTrainedConfig.register_subclass("simscale")
@dataclasses.dataclass
class SimscaleConfig(PreTrainedConfig):
    """What is beside the export, which says everything else.

    Attributes:
      observations: LeRobot's feature -> our observation keys that it joins, and how many numbers each has.
      cameras: LeRobot's feature -> our observation key.
      execute_steps: actions executed of each plan, 0 for the export's own number.
      normalization_mapping: nothing, for the export normalizes by itself.
    """

    observations: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    cameras: dict[str, str] = dataclasses.field(default_factory=dict)
    execute_steps: int = 0
    normalization_mapping: dict[str, NormalizationMode] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(KINDS, NormalizationMode.IDENTITY)
    )

    @property
    def observation_delta_indices(self) -> list[int] | None:
        return None

    @property
    def action_delta_indices(self) -> list[int] | None:
        return None

    @property
    def reward_delta_indices(self) -> list[int] | None:
        return None

    def get_optimizer_preset(self) -> Any:
        raise NotImplementedError("A simscale policy is trained by simscaleai_jax; LeRobot plays it.")

    def get_scheduler_preset(self) -> Any:
        return None

    def validate_features(self) -> None:
        """Nothing: the export checks its observations at the first step."""
