"""Policies that learn from demonstrations: Flax NNX modules, their action heads and the registry that names them."""

from simscaleai_jax.models.act import ActionChunkingTransformer
from simscaleai_jax.models.bc import BehaviorCloning
from simscaleai_jax.models.generative_policy import DiffusionPolicy, FlowPolicy
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.models.policy_heads import (
    DiffusionActionHead,
    FlowActionHead,
    MLPActionHead,
    ResidualBlock,
    SinusoidalPosEmbed,
)
from simscaleai_jax.models.registry import ModelRegistry, create_model, list_models, register_model
from simscaleai_jax.models.vla import PatchEmbedding, SimpleLanguageEncoder, VisionEncoder, VisionLanguageAction

__all__ = [
    "ActionChunkingTransformer",
    "BehaviorCloning",
    "DiffusionActionHead",
    "DiffusionPolicy",
    "FlowActionHead",
    "FlowPolicy",
    "MLPActionHead",
    "ModelRegistry",
    "PatchEmbedding",
    "ResidualBlock",
    "SimpleLanguageEncoder",
    "SinusoidalPosEmbed",
    "Statistics",
    "VisionEncoder",
    "VisionLanguageAction",
    "create_model",
    "list_models",
    "register_model",
]
