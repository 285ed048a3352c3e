"""Torch twin of the vision-language-action model; see `torch_mirror`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from simscaleai_jax.interop.torch_mirror_grounding import InstructedKeypoints, WordEncoder, tokenize
from simscaleai_jax.interop.torch_mirror_heads import DiffusionActionHead, FlowActionHead

ERRORS = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
PICTURES = ("image", "rgb", "depth", "segmentation")


def is_picture(name: str) -> bool:
    """Whether an observation key is a picture's by name: it has one of these words, or starts with one."""
    return name.startswith(PICTURES) or not set(PICTURES).isdisjoint(name.split("_"))


def pictures_among(ranks: dict[str, int]) -> list[str]:
    """Keys that hold pictures, sorted, from each tensor's number of axes: more than a vector's, which are those of the
    keys whose names are no picture's, or where all are, two less than the most.
    """
    plain = [rank for name, rank in ranks.items() if not is_picture(name)]
    vector = max(1, min(plain) if plain else max(ranks.values(), default=0) - 2)
    return sorted(name for name, rank in ranks.items() if is_picture(name) and rank > vector)


def to_channels_first(image: torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, C) or float (B, C, H, W) to float (B, C, H, W) in [0, 1]."""
    return image.permute(0, 3, 1, 2).float() / 255.0 if image.dtype == torch.uint8 else image.float()


def state_vector(observations: dict[str, torch.Tensor]) -> torch.Tensor:
    """observations["state"], or every key that is no picture, concatenated in sorted order."""
    if "state" in observations:
        return observations["state"].float()
    pictures = pictures_among({name: tensor.ndim for name, tensor in observations.items()})
    names = sorted(name for name in observations if name not in pictures)
    return torch.cat([observations[name].float() for name in names], dim=-1)


def transformer_encoder(
    embed_dim: int, num_heads: int, num_layers: int, mlp_dim: int, dropout: float
) -> nn.TransformerEncoder:
    """Layers that normalize first, with GELU."""
    layer = nn.TransformerEncoderLayer(
        embed_dim, num_heads, mlp_dim, dropout, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)


class PatchEmbedding(nn.Module):
    """Patches, projected, with their positions added."""

    def __init__(self, image_size: int = 128, patch_size: int = 16, in_channels: int = 3, embed_dim: int = 256) -> None:
        super().__init__()
        self.num_patches = (image_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, self.num_patches, embed_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, num_patches, embed_dim)."""
        return self.proj(x).flatten(2).mT + self.pos_embed


class VisionEncoder(nn.Module):
    """[class token, patches], a transformer, a norm."""

    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(image_size, patch_size, in_channels, embed_dim)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, embed_dim))
        self.encoder = transformer_encoder(embed_dim, num_heads, num_layers, int(embed_dim * mlp_ratio), dropout)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, num_patches + 1, embed_dim)."""
        patches = self.patch_embed(images)
        first = self.cls_token.expand(patches.shape[0], -1, -1)
        return self.norm(self.encoder(torch.cat([first, patches], dim=1)))


class SimpleLanguageEncoder(nn.Module):
    """Character embeddings with positions, a transformer, a norm."""

    def __init__(
        self,
        vocab_size: int = 1000,
        max_len: int = 64,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.1,
        *,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        self.max_len, self.mask_padding = max_len, mask_padding
        self.token_embed = nn.Embedding(vocab_size, embed_dim)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, max_len, embed_dim))
        self.encoder = transformer_encoder(embed_dim, num_heads, num_layers, 4 * embed_dim, dropout)
        self.norm = nn.LayerNorm(embed_dim)

    def tokenize(self, texts: list[str], device: Any = None) -> torch.Tensor:
        """(B, max_len) ids; see `tokenize`."""
        return tokenize(texts, self.max_len, device)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """(B, L) to (B, L, embed_dim)."""
        hidden = self.token_embed(token_ids) + self.pos_embed[:, : token_ids.shape[1]]
        return self.norm(self.encoder(hidden, src_key_padding_mask=self.padding(token_ids)))

    def padding(self, token_ids: torch.Tensor) -> torch.Tensor | None:
        """(B, L), True behind a text's end, never in its first place; None where padding is read like text."""
        if not self.mask_padding:
            return None
        padding = token_ids == 0
        padding[:, 0] = False
        return padding


class VisionLanguageAction(nn.Module):
    """Fuses image, instruction and state tokens; the head reads the class token."""

    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        use_language: bool = True,
        vocab_size: int = 1000,
        max_text_len: int = 64,
        lang_num_layers: int = 2,
        action_dim: int = 4,
        action_head_type: str = "mlp",
        action_horizon: int = 1,
        state_dim: int = 0,
        *,
        head_layers: int = 4,
        num_diffusion_steps: int = 100,
        num_inference_steps: int = 10,
        schedule: str = "cosine",
        image_key: str = "image",
        cameras: Any = (),
        loss_type: str = "mse",
        mask_padding: bool = False,
        grounding: str = "attention",
        auxiliary_size: int = 0,
    ) -> None:
        super().__init__()
        self.use_language, self.pictures, self.has_several = use_language, tuple(cameras) or (image_key,), bool(cameras)
        self.state_dim, self.error = state_dim, ERRORS[loss_type]
        self.shape = (action_dim,) if action_horizon == 1 else (action_horizon, action_dim)
        dims = (embed_dim, num_heads)
        sizes = (image_size, patch_size, in_channels, *dims, num_layers, mlp_ratio, dropout)
        asks = grounding == "keypoints"
        encoders = [
            InstructedKeypoints(in_channels, embed_dim) if asks else VisionEncoder(*sizes) for _ in self.pictures
        ]
        if cameras:
            self.vision_encoders = nn.ModuleList(encoders)
        else:
            self.vision_encoder = encoders[0]
        if asks:
            self.language_encoder: Any = WordEncoder(vocab_size, max_text_len, embed_dim)
        elif use_language:
            self.language_encoder = SimpleLanguageEncoder(
                vocab_size, max_text_len, *dims, lang_num_layers, dropout, mask_padding=mask_padding
            )
        if state_dim > 0:
            self.state_proj = nn.Sequential(nn.Linear(state_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim))
        self.fusion_transformer = transformer_encoder(
            *dims, max(num_layers // 2, 2), int(embed_dim * mlp_ratio), dropout
        )
        head_dims = (embed_dim, action_dim, embed_dim, head_layers)
        if action_head_type == "mlp":
            self.action_head: nn.Module = nn.Sequential(
                *(nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Dropout(dropout)),
                *(nn.Linear(embed_dim, embed_dim // 2), nn.GELU()),
                *(nn.Linear(embed_dim // 2, action_dim * action_horizon), nn.Tanh()),
            )
        elif action_head_type == "diffusion":
            self.action_head = DiffusionActionHead(
                *head_dims, num_diffusion_steps, num_inference_steps, schedule=schedule, action_horizon=action_horizon
            )
        elif action_head_type == "flow":
            self.action_head = FlowActionHead(*head_dims, num_inference_steps, action_horizon=action_horizon)
        else:
            raise ValueError(f"Unknown action_head_type {action_head_type!r}. Available: mlp, diffusion, flow.")
        if auxiliary_size:
            self.auxiliary = nn.Linear(embed_dim * (1 + len(self.pictures)), auxiliary_size)

    def features(self, batch: dict[str, Any]) -> torch.Tensor:
        """The first fused token (B, embed_dim)."""
        observations = batch["observations"]
        images, text, padding = [to_channels_first(observations[name]) for name in self.pictures], [], None
        if self.use_language:
            language = batch["language"]
            if isinstance(language, list):
                language = self.language_encoder.tokenize(language, images[0].device)
            text = [self.language_encoder(language)]
            padding = self.language_encoder.padding(language)
        encoders = self.vision_encoders if self.has_several else [self.vision_encoder]
        asked = [text[0][:, 0]] if isinstance(encoders[0], InstructedKeypoints) else []
        seen = [encoder(image, *asked) for encoder, image in zip(encoders, images, strict=True)]
        tokens = [*seen, *text]
        if self.state_dim > 0:
            tokens.append(self.state_proj(state_vector(observations))[:, None])
        if padding is not None:
            around = (sum(part.shape[1] for part in seen), int(self.state_dim > 0))
            padding = F.pad(padding, around, value=False)
        return self.fusion_transformer(torch.cat(tokens, dim=1), src_key_padding_mask=padding)[:, 0]

    def forward(self, batch: dict[str, Any], **draws: torch.Tensor) -> dict[str, torch.Tensor]:
        """{"predicted_actions"} and, with batch["actions"], {"loss", "action_mse"}; `draws` go to the head."""
        features = self.features(batch)
        target = batch.get("actions")
        if isinstance(self.action_head, nn.Sequential):
            out = {"predicted_actions": self.action_head(features).reshape(-1, *self.shape)}
        else:
            out = self.action_head(features, target, **draws)
        if target is not None:
            mse = F.mse_loss(out["predicted_actions"], target)
            out.setdefault("loss", self.error(out["predicted_actions"], target))
            out["action_mse"] = mse.detach()
        return out

    @torch.no_grad()
    def predict(self, obs: dict[str, torch.Tensor], language: str | None = None) -> torch.Tensor:
        """Actions in eval mode, without the batch axis for a batch of one."""
        self.eval()
        batch: dict[str, Any] = {"observations": obs}
        if language is not None:
            batch["language"] = [language] * obs[self.pictures[0]].shape[0]
        return self(batch)["predicted_actions"].squeeze(0)
