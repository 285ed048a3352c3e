"""Vision-language-action model: image, instruction and state become tokens, a transformer fuses them, a head acts.

Tokens: [class token and patches; characters; state], or where the instruction asks for places in the picture
[places; sentence; state]; of several cameras, those of the first come first. The head reads the first one, fused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.models.dropout import dropout, dropout_seeds
from simscaleai_jax.models.image_encoders import InstructedKeypoints
from simscaleai_jax.models.inputs import is_text, leading_size, model_image, model_state, prepare_language
from simscaleai_jax.models.language import SimpleLanguageEncoder, WordEncoder
from simscaleai_jax.models.layers import gelu, linear, make_rngs
from simscaleai_jax.models.losses import AUXILIARY_WEIGHT, error_fn, masked_mean, target_actions, valid_steps
from simscaleai_jax.models.policy_heads import DiffusionActionHead, FlowActionHead
from simscaleai_jax.models.policy_heads.chunks import chunk_shape
from simscaleai_jax.models.registry import register_model
from simscaleai_jax.models.specs import DataSpec, shape
from simscaleai_jax.models.transformer import TransformerEncoder
from simscaleai_jax.models.vision import PatchEmbedding, VisionEncoder

__all__ = ["PatchEmbedding", "SimpleLanguageEncoder", "VisionEncoder", "VisionLanguageAction"]

HEAD_TYPES = ("mlp", "diffusion", "flow")
GROUNDINGS = ("attention", "keypoints")


@register_model("vla")
class VisionLanguageAction(nnx.Module):
    """Predicts one action, or with `action_horizon` a chunk of them, from an image, an instruction and the state.

    Actions are (B, A), or with `action_horizon` h > 1 (B, h, A), in [-1, 1].

    Beyond the documented arguments: `image_key` is the picture, or `cameras` are the keys of several, each with an
    encoder of its own; `head_layers`, `num_diffusion_steps`, `num_inference_steps` and `schedule` shape the diffusion
    and flow heads; `dtype` is the computing dtype; `scan_layers`, `remat` and `attention` ("auto", "xla", "cudnn")
    choose how the transformers run, not what they compute. `loss_type` ("mse", "l1", "smooth_l1") is the "mlp" head's.
    `mask_padding` keeps what is behind an instruction's end from being read; it is on in a model that is built for a
    data set with instructions. `grounding` is how words find things in the picture: by "attention" among tokens of
    patches and of characters, or as "keypoints", where a convolution reads the text and asks for places in the picture
    (`InstructedKeypoints`); `patch_size`, `lang_num_layers` and layers of the picture are not theirs. With
    `auxiliary_size` the tokens of the sentence and of the places also learn to tell batch["auxiliary"]
    (B, auxiliary_size), which is known only in training: what an instruction means, where that thing is.
    """

    needs_picture = True

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
        image_key: str = "image",
        cameras: Sequence[str] = (),
        head_layers: int = 4,
        num_diffusion_steps: int = 100,
        num_inference_steps: int = 10,
        schedule: str = "cosine",
        dtype: str = "float32",
        scan_layers: bool = False,
        remat: bool = False,
        attention: str = "auto",
        loss_type: str = "mse",
        mask_padding: bool = False,
        grounding: str = "attention",
        auxiliary_size: int = 0,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        if grounding not in GROUNDINGS:
            raise unknown_name("grounding", grounding, GROUNDINGS)
        if grounding == "keypoints" and not use_language:
            raise ValueError("grounding='keypoints' asks the instruction for places; wanted use_language=True.")
        if auxiliary_size and grounding != "keypoints":
            raise ValueError("auxiliary_size is what sentences and places tell; wanted grounding='keypoints'.")
        if action_head_type not in HEAD_TYPES:
            raise unknown_name("action_head_type", action_head_type, HEAD_TYPES)
        self._error = error_fn(loss_type)
        rngs = make_rngs(rngs)
        self.image_size = image_size
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_layers = num_layers
        self.mlp_ratio = mlp_ratio
        self.dropout = dropout
        self.use_language = use_language
        self.vocab_size = vocab_size
        self.max_text_len = max_text_len
        self.lang_num_layers = lang_num_layers
        self.action_dim = action_dim
        self.action_head_type = action_head_type
        self.action_horizon = action_horizon
        self.state_dim = state_dim
        self.image_key = image_key
        self.cameras = tuple(cameras)
        self.head_layers = head_layers
        self.num_diffusion_steps = num_diffusion_steps
        self.num_inference_steps = num_inference_steps
        self.schedule = schedule
        self.dtype = dtype
        self.scan_layers = scan_layers
        self.remat = remat
        self.attention = attention
        self.loss_type = loss_type
        self.mask_padding = mask_padding
        self.grounding = grounding
        self.auxiliary_size = auxiliary_size
        self.deterministic = False
        self._build_encoders(rngs)
        self.action_head = self._make_head(rngs)
        if auxiliary_size:
            seen = embed_dim * (1 + len(self.picture_keys))
            self.auxiliary = linear(seen, auxiliary_size, dtype=dtype, rngs=rngs)

    @classmethod
    def arguments_for(cls, data: DataSpec) -> dict[str, Any]:
        """The constructor arguments that follow from a data set; it sees one picture if nobody says more."""
        found: dict[str, Any] = {"state_dim": data.state_dim, "action_dim": data.action_dim}
        found |= {"action_horizon": data.action_horizon, "use_language": data.has_language}
        found["mask_padding"] = data.has_language
        picture = data.picture()
        if picture is None:
            raise ValueError("The model 'vla' needs a picture, and the data set has none; others learn from states.")
        key, (channels, height, _) = picture
        return found | {"image_key": key, "in_channels": channels, "image_size": height}

    @property
    def picture_keys(self) -> tuple[str, ...]:
        """Pictures that are read."""
        return self.cameras or (self.image_key,)

    def _build_encoders(self, rngs: nnx.Rngs) -> None:
        shared: dict[str, Any] = {
            "dropout": self.dropout,
            "dtype": self.dtype,
            "scan_layers": self.scan_layers,
            "remat": self.remat,
            "attention": self.attention,
            "rngs": rngs,
        }
        dim, heads = self.embed_dim, self.num_heads
        plain: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        encoders = [self._make_vision_encoder(shared, plain) for _ in self.picture_keys]
        if self.cameras:
            self.vision_encoders = nnx.List(encoders)
        else:
            self.vision_encoder = encoders[0]
        if self.grounding == "keypoints":
            self.language_encoder = WordEncoder(self.vocab_size, self.max_text_len, dim, **plain)
        elif self.use_language:
            sizes = (self.vocab_size, self.max_text_len, dim, heads, self.lang_num_layers)
            self.language_encoder = SimpleLanguageEncoder(*sizes, mask_padding=self.mask_padding, **shared)
        if self.state_dim > 0:
            self.state_proj = StateProjection(self.state_dim, dim, dtype=self.dtype, rngs=rngs)
        self.fusion_transformer = TransformerEncoder(
            dim, heads, max(self.num_layers // 2, 2), int(self.mlp_ratio * dim), **shared
        )

    def _make_vision_encoder(self, shared: dict[str, Any], plain: dict[str, Any]) -> nnx.Module:
        channels, size, dim = self.in_channels, self.image_size, self.embed_dim
        if self.grounding == "keypoints":
            return InstructedKeypoints(channels, size, dim, **plain)
        layers = (self.num_heads, self.num_layers, self.mlp_ratio)
        return VisionEncoder(size, self.patch_size, channels, dim, *layers, **shared)

    def _make_head(self, rngs: nnx.Rngs) -> nnx.Module:
        if self.action_head_type == "mlp":
            size = self.action_dim * self.action_horizon
            return TanhHead(self.embed_dim, size, self.dropout, dtype=self.dtype, rngs=rngs)
        dims = (self.embed_dim, self.action_dim, self.embed_dim, self.head_layers)
        shared: dict[str, Any] = {"action_horizon": self.action_horizon, "dtype": self.dtype, "rngs": rngs}
        if self.action_head_type == "flow":
            return FlowActionHead(*dims, self.num_inference_steps, **shared)
        return DiffusionActionHead(
            *dims, self.num_diffusion_steps, self.num_inference_steps, schedule=self.schedule, **shared
        )

    def forward(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Predicts and, when the batch holds actions, scores.

        Args:
          batch: "observations" (see `models.inputs`); "language", strings or (B, L) token ids, when the model uses
            language; optional "actions" (B, A) or (B, h, A), "is_pad" or "mask" (B,) or (B, h).
          key: noise of the diffusion and flow heads (None: key 0) and, in training mode, dropout.
        Returns:
          {"predicted_actions"} and with actions {"loss", "action_mse"}; "auxiliary_mae" where the batch holds what
          sentence and places are to tell.
        Raises:
          ValueError: an input is missing or has the wrong shape.
        """
        batch = self.prepare_batch(batch)
        key_tokens, key_head = (None, None) if key is None else jax.random.split(key)
        keys = self._keys(key_tokens)
        seen, text = self._perceived(batch, keys)
        features = self._fused(batch, seen, text, keys[2])
        actions_shape = chunk_shape(features.shape[0], self.action_horizon, self.action_dim)
        target = target_actions(batch, actions_shape) if "actions" in batch else None
        valid = None if target is None else valid_steps(batch, actions_shape)
        if self.action_head_type == "mlp":
            out = {"predicted_actions": self.action_head(features, key=key_head).reshape(actions_shape)}
        else:
            out = self.action_head(features, target, key=key_head, valid=valid)
        if target is not None:
            miss = out["predicted_actions"] - target
            out["action_mse"] = masked_mean(jnp.square(miss), valid)
            out.setdefault("loss", masked_mean(self._error(miss), valid))
            if self.auxiliary_size and "auxiliary" in batch:
                known = jnp.concatenate([part[:, 0] for part in (*text, *seen)], axis=-1)
                told = self.auxiliary(known).astype(jnp.float32)
                out["auxiliary_mae"] = jnp.mean(jnp.abs(told - batch["auxiliary"]))
                out["loss"] = out["loss"] + AUXILIARY_WEIGHT * out["auxiliary_mae"]
        return out

    def __call__(self, batch: Mapping[str, Any], *, key: Array | None = None) -> dict[str, Array]:
        """Same as `forward`."""
        return self.forward(batch, key=key)

    def features(self, batch: Mapping[str, Any], *, key: Array | None = None) -> Float[Array, "B D"]:
        """The first fused token (B, embed_dim) of a prepared batch, which the action head reads."""
        keys = self._keys(key)
        return self._fused(batch, *self._perceived(batch, keys), keys[2])

    def _keys(self, key: Array | None) -> list[Array | None]:
        """Of dropout: for the first picture, the instruction, the fusion, further pictures."""
        count = 2 + len(self.picture_keys)
        return [None] * count if key is None or self.deterministic else list(jax.random.split(key, count))

    def _perceived(self, batch: Mapping[str, Any], keys: list[Array | None]) -> tuple[list[Array], list[Array]]:
        """Tokens (B, N, D) of each picture, and of the instruction where one is read."""
        text = [self.language_encoder(batch["language"], key=keys[1])] if self.use_language else []
        encoders = self.vision_encoders if self.cameras else [self.vision_encoder]
        seen = []
        for name, encoder, key in zip(self.picture_keys, encoders, [keys[0], *keys[3:]], strict=True):
            image = model_image(batch["observations"], self.in_channels, self.image_size, name)
            if isinstance(encoder, InstructedKeypoints):
                seen.append(encoder(image, text[0][:, 0]))
            else:
                seen.append(encoder.encode(image, key=key))
        return seen, text

    def _fused(self, batch: Mapping[str, Any], seen: list[Array], text: list[Array], key: Array | None) -> Array:
        tokens = [*seen, *text]
        if self.state_dim > 0:
            state = model_state(batch["observations"], self.state_dim)
            state = state[:, 0] if state.ndim == 3 else state
            tokens.append(self.state_proj(state)[:, None])
        mask = self._mask(batch, sum(part.shape[1] for part in seen))
        return self.fusion_transformer(jnp.concatenate(tokens, axis=1), key=key, num_out=1, mask=mask)[:, 0]

    def _mask(self, batch: Mapping[str, Any], before: int) -> Bool[Array, "B N"] | None:
        """Which of the fused tokens are attended to: all but the padding of the text, behind `before` tokens; None for
        all.
        """
        text = self.language_encoder.mask(jnp.asarray(batch["language"])) if self.use_language else None
        if text is None:
            return None
        read = jnp.ones((text.shape[0], before + int(self.state_dim > 0)), bool)
        return jnp.concatenate([read[:, :before], text, read[:, before:]], axis=1)

    def predict(self, obs: Mapping[str, Any], language: str | None = None, *, key: Array | None = None) -> Array:
        """Actions for deployment, without dropout: (B, A) or (B, h, A).

        One observation, with or without a leading axis of one, gives (A,) or (h, A).
        """
        observations = {name: jnp.asarray(value) for name, value in obs.items()}
        first = self.picture_keys[0]
        if first in observations and observations[first].ndim == 3:
            observations = {name: value[None] for name, value in observations.items()}
        batch: dict[str, Any] = {"observations": observations}
        if language is not None:
            batch["language"] = language
        batch = self.prepare_batch(batch)
        features = self.features(batch)
        if self.action_head_type == "mlp":
            actions = self.action_head(features)
        else:
            actions = self.action_head(features, key=key)["predicted_actions"]
        actions = actions.reshape(chunk_shape(features.shape[0], self.action_horizon, self.action_dim))
        return actions[0] if actions.shape[0] == 1 else actions

    def prepare_batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What jit can take: instructions become token ids (B, L); on the host, and a no-op on what it returned.

        Raises:
          ValueError: the model uses language and the batch has no "language", or one that it cannot read whole.
        """
        if not self.use_language:
            return {name: value for name, value in batch.items() if name != "language"}
        if batch.get("language") is None:
            raise ValueError(
                f"The model needs batch['language'] (use_language=True), but the keys are {sorted(batch)}."
            )
        if not is_text(batch["language"]):
            return dict(batch)
        size = leading_size(batch["observations"])
        return prepare_language(batch, self.language_encoder.tokenize, size, self.max_text_len)

    def input_spec(self, batch_size: int) -> dict[str, Any]:
        """Shapes of a prepared training batch."""
        size = self.image_size
        picture = shape(batch_size, size, size, self.in_channels, dtype=jnp.uint8)
        observations = dict.fromkeys(self.picture_keys, picture)
        if self.state_dim > 0:
            observations["state"] = shape(batch_size, self.state_dim)
        actions = shape(*chunk_shape(batch_size, self.action_horizon, self.action_dim))
        spec: dict[str, Any] = {"observations": observations, "actions": actions}
        if self.use_language:
            spec["language"] = shape(batch_size, self.max_text_len, dtype=jnp.int32)
        if self.auxiliary_size:
            spec["auxiliary"] = shape(batch_size, self.auxiliary_size)
        return spec


class StateProjection(nnx.Module):
    """The state vector as one token: linear, GELU, linear."""

    def __init__(self, state_dim: int, embed_dim: int, *, dtype: str, rngs: nnx.Rngs) -> None:
        self.linear1 = linear(state_dim, embed_dim, dtype=dtype, std=0.02, rngs=rngs)
        self.linear2 = linear(embed_dim, embed_dim, dtype=dtype, std=0.02, rngs=rngs)

    def __call__(self, state: Float[Array, "B S"]) -> Float[Array, "B D"]:
        """(B, state_dim) to (B, embed_dim)."""
        return self.linear2(gelu(self.linear1(state)))


class TanhHead(nnx.Module):
    """linear, GELU, dropout, linear to half the width, GELU, linear, tanh."""

    def __init__(self, embed_dim: int, action_size: int, dropout: float, *, dtype: str, rngs: nnx.Rngs) -> None:
        self.dropout = dropout
        self.deterministic = False
        self.linear1 = linear(embed_dim, embed_dim, dtype=dtype, std=0.02, rngs=rngs)
        self.linear2 = linear(embed_dim, embed_dim // 2, dtype=dtype, std=0.02, rngs=rngs)
        self.linear3 = linear(embed_dim // 2, action_size, dtype=dtype, std=0.02, rngs=rngs)

    def __call__(self, features: Float[Array, "B D"], *, key: Array | None = None) -> Float[Array, "B A"]:
        """(B, embed_dim) to (B, action_size) float32 in [-1, 1]."""
        seeds = None if self.deterministic else dropout_seeds(key, 1)
        hidden = dropout(gelu(self.linear1(features)), self.dropout, None if seeds is None else seeds[0])
        return jnp.tanh(self.linear3(gelu(self.linear2(hidden))).astype(jnp.float32))
