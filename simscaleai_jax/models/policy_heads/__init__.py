"""Action heads: from features (B, D) to actions (B, A) or chunks (B, h, A)."""

from simscaleai_jax.models.policy_heads.denoiser import ResidualBlock, SinusoidalPosEmbed
from simscaleai_jax.models.policy_heads.diffusion_head import DiffusionActionHead
from simscaleai_jax.models.policy_heads.flow_head import FlowActionHead
from simscaleai_jax.models.policy_heads.mlp_head import MLPActionHead

__all__ = ["DiffusionActionHead", "FlowActionHead", "MLPActionHead", "ResidualBlock", "SinusoidalPosEmbed"]
