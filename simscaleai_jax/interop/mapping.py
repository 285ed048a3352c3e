"""Every parameter's two names and layouts.

Ours is "action_head/layers/0/kernel" (in, out), torch's is "action_head.0.weight" (out, in). A model's table is a list
of `Entry`; converting is reading it in one direction or the other. NumPy only.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from simscaleai_jax.core.errors import suggest, unknown_name

Transform = Callable[[np.ndarray], np.ndarray]
Names = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One torch tensor.

    Attributes:
      torch: its state_dict name.
      ours: flat name of our parameter.
      to_torch: our layout to torch's.
      from_torch: torch's layout to ours.
      layer: index on our leading layer axis, None where there is none.
    """

    torch: str
    ours: str
    to_torch: Transform = np.asarray
    from_torch: Transform = np.asarray
    layer: int | None = None


def to_torch(entries: list[Entry], params: Mapping[str, np.ndarray]) -> Names:
    """Our flat parameters as torch tensors, contiguous float32.

    Raises:
      ValueError: a parameter is missing, or one is left over.
    """
    _check_names("parameters", {entry.ours for entry in entries}, params)
    out = {}
    for entry in entries:
        value = np.asarray(params[entry.ours], np.float32)
        value = value if entry.layer is None else value[entry.layer]
        out[entry.torch] = np.ascontiguousarray(entry.to_torch(value))
    return out


def from_torch(entries: list[Entry], state_dict: Mapping[str, np.ndarray]) -> Names:
    """Torch tensors as our flat parameters, float32.

    Raises:
      ValueError: a tensor is missing, or one is left over.
    """
    _check_names("tensors", {entry.torch for entry in entries}, state_dict)
    stacks: dict[str, list[np.ndarray]] = {}
    for entry in entries:
        value = np.asarray(entry.from_torch(np.asarray(state_dict[entry.torch], np.float32)))
        stacks.setdefault(entry.ours, []).append(value)
    stacked = {entry.ours for entry in entries if entry.layer is not None}
    return {
        name: np.stack(values) if name in stacked else np.ascontiguousarray(values[0])
        for name, values in stacks.items()
    }


def entries_for(model_name: str, kwargs: Mapping[str, Any]) -> list[Entry]:
    """The table of a model with all its constructor arguments.

    Raises:
      ValueError: a model without a torch layout.
    """
    if model_name not in TABLES:
        raise unknown_name("model for torch", model_name, TABLES)
    return TABLES[model_name](kwargs)


def _bc(kwargs: Mapping[str, Any]) -> list[Entry]:
    table = _perceptron("state_encoder", "state_encoder", 2)
    if kwargs["use_image"]:
        for name in [f"image_encoders.{i}" for i in range(len(kwargs.get("cameras", ())))] or ["image_encoder"]:
            table += _image_encoder(name, name.replace(".", "/"), kwargs)
    if kwargs.get("auxiliary_size"):
        table += _weights("auxiliary", "auxiliary")
    return table + _perceptron("action_head", "action_head", kwargs["n_layers"])


def _vla(kwargs: Mapping[str, Any]) -> list[Entry]:
    see, read = (_asking, _words) if kwargs["grounding"] == "keypoints" else (_patches_encoder, _text_encoder)
    names = [f"vision_encoders.{i}" for i in range(len(kwargs.get("cameras", ())))] or ["vision_encoder"]
    table = [entry for name in names for entry in see(name, name.replace(".", "/"), kwargs)] + read(kwargs)
    if kwargs["auxiliary_size"]:
        table += _weights("auxiliary", "auxiliary")
    if kwargs["state_dim"] > 0:
        table += _weights("state_proj.0", "state_proj/linear1") + _weights("state_proj.2", "state_proj/linear2")
    table += _layers("fusion_transformer", "fusion_transformer", max(kwargs["num_layers"] // 2, 2))
    if kwargs["action_head_type"] != "mlp":
        return table + _denoiser("action_head.", "action_head/", kwargs["head_layers"])
    for theirs, ours in ((0, "linear1"), (3, "linear2"), (5, "linear3")):
        table += _weights(f"action_head.{theirs}", f"action_head/{ours}")
    return table


def _patches_encoder(theirs: str, ours: str, kwargs: Mapping[str, Any]) -> list[Entry]:
    patch = _patches(kwargs["patch_size"], kwargs["in_channels"])
    table = [Entry(f"{theirs}.cls_token", f"{ours}/cls_token")]
    table += [Entry(f"{theirs}.patch_embed.pos_embed", f"{ours}/patch_embed/pos_embed")]
    table += _weights(f"{theirs}.patch_embed.proj", f"{ours}/patch_embed/proj", *patch)
    table += _layers(f"{theirs}.encoder", f"{ours}/encoder", kwargs["num_layers"])
    return table + _norm(f"{theirs}.norm", f"{ours}/norm")


def _text_encoder(kwargs: Mapping[str, Any]) -> list[Entry]:
    if not kwargs["use_language"]:
        return []
    table = [Entry("language_encoder.pos_embed", "language_encoder/pos_embed")]
    table += [Entry("language_encoder.token_embed.weight", "language_encoder/token_embed")]
    table += _layers("language_encoder.encoder", "language_encoder/encoder", kwargs["lang_num_layers"])
    return table + _norm("language_encoder.norm", "language_encoder/norm")


def _asking(theirs: str, ours: str, kwargs: Mapping[str, Any]) -> list[Entry]:
    table = _weights(f"{theirs}.first", f"{ours}/first", _conv, _conv_back)
    table.append(_weights(f"{theirs}.keys", f"{ours}/keys")[0])  # it has no bias
    for name in ("queries", "out1", "out2"):
        table += _weights(f"{theirs}.{name}", f"{ours}/{name}")
    return table


def _words(kwargs: Mapping[str, Any]) -> list[Entry]:
    table = [Entry("language_encoder.token_embed.weight", "language_encoder/token_embed")]
    table += _weights("language_encoder.windows", "language_encoder/windows", _reverse, _reverse)
    return table + _weights("language_encoder.out", "language_encoder/out")


def _generative(kwargs: Mapping[str, Any]) -> list[Entry]:
    table = _perceptron("state_encoder", "encoder/state_encoder", 2) if kwargs["state_dim"] > 0 else []
    for i in range(len(kwargs["cameras"])):
        table += _image_encoder(f"image_encoders.{i}", f"encoder/image_encoders/{i}", kwargs)
    return table + _denoiser("action_head.", "action_head/", kwargs["n_layers"])


def _act(kwargs: Mapping[str, Any]) -> list[Entry]:
    table = _weights("state_proj", "state_proj") if kwargs["state_dim"] > 0 else []
    for i in range(len(kwargs["cameras"])):
        table += _image_encoder(f"image_encoders.{i}", f"image_encoders/{i}", kwargs)
    for name in ("queries", "places", "posterior.first", "posterior.places"):
        table.append(Entry(name, name.replace(".", "/")))
    for name in ("latent_proj", "action_head", "posterior.action_proj", "posterior.out"):
        table += _weights(name, name.replace(".", "/"))
    table += _layers("transformer", "transformer", kwargs["num_layers"])
    table += _layers("posterior.transformer", "posterior/transformer", kwargs["posterior_layers"])
    return table + _norm("norm", "norm") + _norm("posterior.norm", "posterior/norm")


def _image_encoder(theirs: str, ours: str, kwargs: Mapping[str, Any]) -> list[Entry]:
    if kwargs.get("image_pooling") == "keypoints":
        table = _weights(f"{theirs}.first", f"{ours}/first", _conv, _conv_back)
        table.append(_weights(f"{theirs}.maps", f"{ours}/maps")[0])  # it has no bias
        return table + _weights(f"{theirs}.out", f"{ours}/out")
    table = []
    for layer, place in enumerate((0, 2, 4)):
        table += _weights(f"{theirs}.{place}", f"{ours}/convolutions/{layer}", _conv, _conv_back)
    return table + _weights(f"{theirs}.8", f"{ours}/out", *_pooled(64, 4))


def _actor_critic(kwargs: Mapping[str, Any]) -> list[Entry]:
    for extra in ("critic_obs_dim", "image_shape"):
        if kwargs.get(extra) is not None:
            raise ValueError(f"An ActorCritic with {extra}={kwargs[extra]} has no torch layout.")
    table = [Entry("actor_log_std", "actor_log_std")]
    for i in range(kwargs["n_layers"]):
        table += _weights(f"feature_net.{2 * i}", f"feature_net/{i}")
    return table + _weights("actor_mean", "actor_mean") + _weights("critic", "critic")


def _denoiser(theirs: str, ours: str, n_layers: int) -> list[Entry]:
    table = _weights(f"{theirs}time_embed.1", f"{ours}network/time_embed")
    table += _weights(f"{theirs}condition_proj", f"{ours}network/condition_proj")
    for i in range(n_layers):
        block, ours_block = f"{theirs}noise_net.{i}", f"{ours}network/blocks/{i}"
        table += _weights(f"{block}.net.0", f"{ours_block}/linear1") + _weights(
            f"{block}.net.2", f"{ours_block}/linear2"
        )
        if i == 0:  # the later blocks keep their width: their skip is the identity
            table += _weights(f"{block}.skip", f"{ours_block}/skip")
    return table + _weights(f"{theirs}final", f"{ours}network/final")


TABLES: dict[str, Callable[[Mapping[str, Any]], list[Entry]]] = {
    "act": _act,
    "bc": _bc,
    "diffusion": _generative,
    "flow": _generative,
    "vla": _vla,
    "mlp_head": lambda kwargs: _perceptron("net", "net", kwargs["n_layers"]),
    "diffusion_head": lambda kwargs: _denoiser("", "", kwargs["n_layers"]),
    "flow_head": lambda kwargs: _denoiser("", "", kwargs["n_layers"]),
    "actor_critic": _actor_critic,
}


def _perceptron(theirs: str, ours: str, num_hidden: int) -> list[Entry]:
    return [entry for i in range(num_hidden + 1) for entry in _weights(f"{theirs}.{3 * i}", f"{ours}/layers/{i}")]


def _layers(theirs: str, ours: str, num_layers: int) -> list[Entry]:
    pairs = {
        "self_attn.out_proj": "out",
        "linear1": "linear1",
        "linear2": "linear2",
    }
    table = []
    for i in range(num_layers):
        layer, stack = f"{theirs}.layers.{i}", f"{ours}/layers"
        table.append(Entry(f"{layer}.self_attn.in_proj_weight", f"{stack}/qkv/kernel", _transpose, _transpose, i))
        table.append(Entry(f"{layer}.self_attn.in_proj_bias", f"{stack}/qkv/bias", layer=i))
        for name, our_name in pairs.items():
            table += _weights(f"{layer}.{name}", f"{stack}/{our_name}", layer=i)
        for name in ("norm1", "norm2"):
            table += _norm(f"{layer}.{name}", f"{stack}/{name}", layer=i)
    return table


def _transpose(value: np.ndarray) -> np.ndarray:
    return value.T


def _reverse(value: np.ndarray) -> np.ndarray:
    """(w, in, out) and (out, in, w)."""
    return value.transpose(2, 1, 0)


def _conv(value: np.ndarray) -> np.ndarray:
    return value.transpose(3, 2, 0, 1)


def _conv_back(value: np.ndarray) -> np.ndarray:
    return value.transpose(2, 3, 1, 0)


def _patches(patch: int, channels: int) -> tuple[Transform, Transform]:
    """(p*p*C, D), pixels row by row, and a convolution's (D, C, p, p)."""
    return (
        lambda value: value.reshape(patch, patch, channels, -1).transpose(3, 2, 0, 1),
        lambda value: value.transpose(2, 3, 1, 0).reshape(patch * patch * channels, -1),
    )


def _pooled(channels: int, size: int) -> tuple[Transform, Transform]:
    """(P*P*C, E), flattened from (H, W, C), and (E, C*P*P), flattened from (C, H, W)."""
    return (
        lambda value: value.reshape(size, size, channels, -1).transpose(3, 2, 0, 1).reshape(value.shape[1], -1),
        lambda value: value.reshape(-1, channels, size, size).transpose(2, 3, 1, 0).reshape(-1, value.shape[0]),
    )


def _weights(
    theirs: str, ours: str, out: Transform = _transpose, back: Transform = _transpose, layer: int | None = None
) -> list[Entry]:
    return [
        Entry(f"{theirs}.weight", f"{ours}/kernel", out, back, layer),
        Entry(f"{theirs}.bias", f"{ours}/bias", layer=layer),
    ]


def _norm(theirs: str, ours: str, layer: int | None = None) -> list[Entry]:
    return [
        Entry(f"{theirs}.weight", f"{ours}/scale", layer=layer),
        Entry(f"{theirs}.bias", f"{ours}/bias", layer=layer),
    ]


def _check_names(what: str, wanted: set[str], given: Mapping[str, Any]) -> None:
    if missing := sorted(wanted - set(given)):
        raise ValueError(f"{len(missing)} {what} are missing, first {missing[0]!r}.{suggest(missing[0], given)}")
    if extra := sorted(set(given) - wanted):
        raise ValueError(f"{len(extra)} {what} are not known, first {extra[0]!r}.{suggest(extra[0], wanted)}")
