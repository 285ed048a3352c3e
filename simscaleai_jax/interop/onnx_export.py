"""A checkpoint as an ONNX model that takes raw observations; onnxruntime needs neither JAX nor torch.

Inputs: every observation key of the acting record, (B, n) float32 or uint8 (B, H, W, C); "language" (1, L) int64 token
ids where the model reads them, the recorded instruction by default, or (B, L) where none is recorded; "noise" (B, h, A)
where actions are drawn. Output: "actions" (B, h, A), the plan. A policy that reads a history takes the latest k of
every observation, (B, k, ...). The metadata entry "policy" is the acting record.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simscaleai_jax.core.observations import is_image_key
from simscaleai_jax.core.text import PAD
from simscaleai_jax.interop.acting import head_type
from simscaleai_jax.interop.files import TorchRecord, write_whole
from simscaleai_jax.interop.onnx_graph import Graph
from simscaleai_jax.models.image_encoders import (
    CONVOLUTIONS,
    KEYPOINTS,
    POOLED,
    QUERIES,
    SHARPNESS,
    grid,
    pool_matrix,
)
from simscaleai_jax.models.language import WINDOW
from simscaleai_jax.models.policy_heads.flow_head import FlowActionHead
from simscaleai_jax.models.policy_heads.schedule import sampling_steps

Images = Mapping[str, str]  # key -> value
UNREAD = -1e9  # added to the scores of what is not attended to


def write_onnx(path: str | Path, record: TorchRecord, kwargs: Mapping[str, Any]) -> Path:
    """Writes the model of an export's record; `kwargs` are all constructor arguments of its class."""
    model = build(record, kwargs)
    return write_whole(path, lambda temporary: temporary.write_bytes(model.SerializeToString()))


def build(record: TorchRecord, kwargs: Mapping[str, Any]) -> Any:
    """The ONNX model.

    Raises:
      ValueError: a checkpoint that does not say which observations it reads.
    """
    policy = record.policy
    if not policy.get("observations"):
        raise ValueError("This checkpoint does not say which observations it reads, and an ONNX model must name them.")
    graph = Graph(record.state_dict)
    steps = () if policy["obs_horizon"] == 1 else (policy["obs_horizon"],)
    inputs = {name: _observation(graph, name, spec, steps) for name, spec in policy["observations"].items()}
    state = _state(graph, inputs, policy)
    images = {name: _image(graph, value, steps) for name, value in inputs.items() if is_image_key(name)}
    actions = NETWORKS[record.model_name](graph, state, images, policy, kwargs)
    actions = graph.reshape(actions, -1, policy["horizon"], policy["action"]["dim"])
    shape = ("batch", policy["horizon"], policy["action"]["dim"])
    return graph.finish(_physical(graph, actions, policy["action"]), shape, {"policy": json.dumps(policy)})


def _observation(graph: Graph, name: str, spec: Mapping[str, Any], steps: tuple[int, ...]) -> str:
    return graph.input(name, np.uint8 if is_image_key(name) else np.float32, ("batch", *steps, *spec["shape"]))


def _state(graph: Graph, inputs: Mapping[str, str], policy: Mapping[str, Any]) -> str:
    names = [inputs[name] for name in policy["state_keys"]]
    if not names:
        return ""
    state = graph.node("Concat", *names, axis=-1)
    known = policy["normalization"]
    if known is None:
        return state
    state = graph.node("Sub", state, graph.constant(known["mean"]))
    state = graph.node("Mul", state, graph.constant(known["scale"]))
    return state if known["clip"] is None else graph.clip(state, -known["clip"], known["clip"])


def _image(graph: Graph, name: str, steps: tuple[int, ...]) -> str:
    """(B, C, H, W) in [0, 1], or (B, k, C, H, W)."""
    pixels = graph.node("Cast", name, to=graph.onnx.TensorProto.FLOAT)
    perm = [0, 1, 4, 2, 3] if steps else [0, 3, 1, 2]
    return graph.node("Transpose", graph.node("Div", pixels, graph.constant(255.0)), perm=perm)


def _physical(graph: Graph, actions: str, known: Mapping[str, Any]) -> str:
    if known["scale"] is not None:
        actions = graph.node("Mul", actions, graph.constant(known["scale"]))
        actions = graph.node("Add", actions, graph.constant(known["mean"]))
    if known["low"] is None or known["high"] is None:
        return actions
    return graph.clip(actions, known["low"], known["high"])


def _actor_critic(graph: Graph, state: str, images: Images, policy: Any, kwargs: Mapping[str, Any]) -> str:
    for i in range(kwargs["n_layers"]):
        state = graph.activate(graph.linear(state, f"feature_net.{2 * i}"), "Tanh")
    return graph.linear(state, "actor_mean")


def _bc(graph: Graph, state: str, images: Images, policy: Any, kwargs: Mapping[str, Any]) -> str:
    features = graph.perceptron(_flat(graph, state), "state_encoder", (0, 3, 6), "Relu")
    if kwargs["use_image"]:
        cameras = kwargs.get("cameras", ())
        names = [f"image_encoders.{i}" for i in range(len(cameras))] or ["image_encoder"]
        for key, name in zip(cameras or [kwargs["image_key"]], names, strict=True):
            image = images[key]
            if kwargs["obs_horizon"] > 1:
                image = graph.node("Gather", image, graph.constant(kwargs["obs_horizon"] - 1, np.int64), axis=1)
            features = graph.node("Concat", features, _image_encoder(graph, image, name, kwargs), axis=-1)
    return graph.perceptron(features, "action_head", [3 * i for i in range(kwargs["n_layers"] + 1)], "Relu")


def _flat(graph: Graph, x: str) -> str:
    """(B, ...) to (B, N)."""
    return graph.node("Flatten", x, axis=1)


def _image_encoder(graph: Graph, image: str, name: str, kwargs: Mapping[str, Any]) -> str:
    size = kwargs["image_size"]
    if kwargs.get("image_pooling") == "keypoints":
        return _keypoints(graph, image, name, size)
    for index, (_, kernel, stride, pad) in zip((0, 2, 4), CONVOLUTIONS, strict=True):
        image = graph.activate(graph.convolution(image, f"{name}.{index}", stride, pad), "Relu")
        size = (size + 2 * pad - kernel) // stride + 1
    pool = pool_matrix(size, POOLED)
    rows = graph.node("MatMul", graph.constant(pool), image)
    pooled = graph.node("MatMul", rows, graph.constant(pool.T))
    return graph.activate(graph.linear(_flat(graph, pooled), f"{name}.8"), "Relu")


def _keypoints(graph: Graph, image: str, name: str, size: int) -> str:
    hidden, side = _cells(graph, image, name, size)
    maps = graph.node("MatMul", hidden, graph.transposed(f"{name}.maps.weight"))
    maps = graph.node("Mul", maps, graph.constant(SHARPNESS))
    weights = graph.node("Transpose", graph.node("Softmax", maps, axis=1), perm=[0, 2, 1])
    places = graph.node("MatMul", weights, graph.constant(grid(side)))  # (B, maps, 2)
    places = graph.reshape(graph.node("Transpose", places, perm=[0, 2, 1]), -1, 2 * KEYPOINTS)
    return graph.activate(graph.linear(places, f"{name}.out"), "Relu")


def _cells(graph: Graph, image: str, name: str, size: int) -> tuple[str, int]:
    """Features (B, N, F) of the cells of the first convolution, and the side of their grid."""
    features, kernel, stride, pad = CONVOLUTIONS[0]
    side = (size + 2 * pad - kernel) // stride + 1
    image = graph.node("Sub", image, graph.constant(0.5))
    hidden = graph.activate(graph.convolution(image, f"{name}.first", stride, pad), "Relu")
    return graph.node("Transpose", graph.reshape(hidden, -1, features, side * side), perm=[0, 2, 1]), side


def _encoded_cameras(graph: Graph, images: Images, kwargs: Mapping[str, Any]) -> list[str]:
    """(B, k, D) of each camera."""
    channels, size, steps = kwargs["image_channels"], kwargs["image_size"], kwargs["obs_horizon"]
    encoded = []
    for i, camera in enumerate(kwargs["cameras"]):
        frames = graph.reshape(images[camera], -1, channels, size, size)
        features = _image_encoder(graph, frames, f"image_encoders.{i}", kwargs)
        last = "out" if kwargs.get("image_pooling") == "keypoints" else "8"
        width = graph.weights[f"image_encoders.{i}.{last}.weight"].shape[0]
        encoded.append(graph.reshape(features, -1, steps, width))
    return encoded


def _generative(graph: Graph, state: str, images: Images, policy: Any, kwargs: Mapping[str, Any]) -> str:
    parts = [graph.perceptron(_flat(graph, state), "state_encoder", (0, 3, 6), "Relu")] if state else []
    parts += [_flat(graph, encoded) for encoded in _encoded_cameras(graph, images, kwargs)]
    return _sample(graph, graph.node("Concat", *parts, axis=-1), policy, kwargs)


def _act(graph: Graph, state: str, images: Images, policy: Any, kwargs: Mapping[str, Any]) -> str:
    horizon, width, steps = kwargs["action_horizon"], kwargs["embed_dim"], kwargs["obs_horizon"]
    tokens = [graph.linear(graph.reshape(state, -1, steps, kwargs["state_dim"]), "state_proj")] if state else []
    tokens += _encoded_cameras(graph, images, kwargs)
    latent = graph.rows(graph.weights["latent_proj.bias"].reshape(1, 1, width), tokens[0])  # of a latent of zeros
    context = graph.node("Concat", latent, *tokens, axis=1)
    context = graph.node("Add", context, graph.weight("places"))
    queries = graph.rows(graph.weights["queries"], tokens[0])
    hidden = graph.node("Concat", queries, context, axis=1)
    hidden = graph.transformer(hidden, "transformer", kwargs["num_layers"], kwargs["num_heads"])
    ends = (graph.constant([0], np.int64), graph.constant([horizon], np.int64), graph.constant([1], np.int64))
    return graph.linear(graph.norm(graph.node("Slice", hidden, *ends), "norm"), "action_head")


def _vla(graph: Graph, state: str, images: Images, policy: Any, kwargs: Mapping[str, Any]) -> str:
    cameras, heads, bias = kwargs.get("cameras", ()), kwargs["num_heads"], ""
    names = [f"vision_encoders.{i}" for i in range(len(cameras))] or ["vision_encoder"]
    seen = [(images[key], name) for key, name in zip(cameras or [kwargs["image_key"]], names, strict=True)]
    first = seen[0][0]
    if kwargs["grounding"] == "keypoints":
        text = _words(graph, first, policy, kwargs)
        parts = [*(_instructed_keypoints(graph, image, name, text, kwargs) for image, name in seen), text]
    else:
        parts = [_patches(graph, image, name, kwargs) for image, name in seen]
        if kwargs["use_language"]:
            text, bias = _language(graph, first, policy, kwargs)
            parts.append(text)
    if kwargs["state_dim"] > 0:
        parts.append(graph.reshape(graph.perceptron(state, "state_proj", (0, 2), "Gelu"), 0, 1, -1))
    if bias:
        patches = len(seen) * ((kwargs["image_size"] // kwargs["patch_size"]) ** 2 + 1)
        pads = (0, 0, 0, patches, 0, 0, 0, int(kwargs["state_dim"] > 0))
        bias = graph.node("Pad", bias, graph.constant(pads, np.int64))
    fused = graph.node("Concat", *parts, axis=1)
    fused = graph.transformer(fused, "fusion_transformer", max(kwargs["num_layers"] // 2, 2), heads, bias)
    features = graph.node("Gather", fused, graph.constant(0, np.int64), axis=1)
    if kwargs["action_head_type"] == "mlp":
        return graph.activate(graph.perceptron(features, "action_head", (0, 3, 5), "Gelu"), "Tanh")
    return _sample(graph, features, policy, kwargs)


def _patches(graph: Graph, image: str, name: str, kwargs: Mapping[str, Any]) -> str:
    """(B, 1 + N, D) tokens of the picture."""
    patch = f"{name}.patch_embed"
    patches = graph.convolution(image, f"{patch}.proj", kwargs["patch_size"])
    patches = graph.node("Transpose", graph.reshape(patches, 0, 0, -1), perm=[0, 2, 1])
    patches = graph.node("Add", patches, graph.weight(f"{patch}.pos_embed"))
    first = graph.rows(graph.weights[f"{name}.cls_token"], image)
    tokens = graph.node("Concat", first, patches, axis=1)
    tokens = graph.transformer(tokens, f"{name}.encoder", kwargs["num_layers"], kwargs["num_heads"])
    return graph.norm(tokens, f"{name}.norm")


def _instructed_keypoints(graph: Graph, image: str, name: str, text: str, kwargs: Mapping[str, Any]) -> str:
    """(B, 1, D): the places that a text (B, 1, D) asks for."""
    hidden, side = _cells(graph, image, name, kwargs["image_size"])
    keys = graph.node("MatMul", hidden, graph.transposed(f"{name}.keys.weight"))
    queries = graph.reshape(graph.linear(text, f"{name}.queries"), -1, QUERIES, CONVOLUTIONS[0][0])
    maps = graph.node("MatMul", queries, graph.node("Transpose", keys, perm=[0, 2, 1]))
    weights = graph.node("Softmax", maps, axis=-1)
    found = [graph.node("MatMul", weights, values) for values in (graph.constant(grid(side)), hidden)]
    seen = graph.reshape(graph.node("Concat", *found, axis=-1), 0, 1, -1)
    hidden = graph.activate(graph.linear(seen, f"{name}.out1"), "Gelu")
    return graph.linear(hidden, f"{name}.out2")


def _words(graph: Graph, like: str, policy: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    """(B, 1, D): the instruction as one token."""
    ids = _ids(graph, policy, kwargs)
    is_text = graph.node(
        "Cast", graph.node("Greater", ids, graph.constant(PAD, np.int64)), to=graph.onnx.TensorProto.FLOAT
    )
    is_text = graph.reshape(is_text, 0, 1, -1)  # (B, 1, L)
    hidden = graph.node("Gather", graph.weight("language_encoder.token_embed.weight"), ids, axis=0)
    hidden = graph.node("Mul", graph.node("Transpose", hidden, perm=[0, 2, 1]), is_text)
    weights = [graph.weight(f"language_encoder.windows.{part}") for part in ("weight", "bias")]
    found = graph.node("Conv", hidden, *weights, kernel_shape=[WINDOW], pads=[WINDOW // 2] * 2)
    found = graph.node("Mul", graph.activate(found, "Relu"), is_text)
    found = graph.node("ReduceMax", found, graph.constant([2], np.int64), keepdims=0)
    token = graph.linear(graph.reshape(found, 0, 1, -1), "language_encoder.out")
    return _for_each(graph, token, like, (1, kwargs["embed_dim"]))


def _ids(graph: Graph, policy: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    """The instruction's ids, (1, L) with the recorded ones where there are, else (B, L)."""
    tokens = policy["tokens"]
    default = None if tokens is None else np.asarray([tokens], np.int64)
    return graph.input("language", np.int64, ("batch" if tokens is None else 1, kwargs["max_text_len"]), default)


def _for_each(graph: Graph, value: str, like: str, shape: tuple[int, ...]) -> str:
    """(1 or B, *shape) as (B, *shape), with the B of `like`."""
    batch = graph.node("Shape", like, start=0, end=1)
    sizes = graph.node("Concat", batch, graph.constant(shape, np.int64), axis=0)
    return graph.node("Expand", value, sizes)


def _language(graph: Graph, like: str, policy: Mapping[str, Any], kwargs: Mapping[str, Any]) -> tuple[str, str]:
    """The instruction's tokens, encoded once and repeated for each row where it is recorded, and what keeps its padding
    from being read (B or 1, 1, 1, L), "" where it is read.
    """
    ids, length = _ids(graph, policy, kwargs), kwargs["max_text_len"]
    hidden = graph.node("Gather", graph.weight("language_encoder.token_embed.weight"), ids, axis=0)
    hidden = graph.node("Add", hidden, graph.weight("language_encoder.pos_embed"))
    bias = _unread(graph, ids, length) if kwargs["mask_padding"] else ""
    layers, heads = kwargs["lang_num_layers"], kwargs["num_heads"]
    hidden = graph.transformer(hidden, "language_encoder.encoder", layers, heads, bias)
    hidden = graph.norm(hidden, "language_encoder.norm")
    return _for_each(graph, hidden, like, (length, kwargs["embed_dim"])), bias


def _unread(graph: Graph, ids: str, length: int) -> str:
    """(B or 1, 1, 1, L): very negative behind a text's end, but never in its first place."""
    is_padding = graph.node("Equal", ids, graph.constant(PAD, np.int64))
    cost = np.full((1, length), UNREAD)
    cost[0, 0] = 0.0
    cost = graph.node("Where", is_padding, graph.constant(cost), graph.constant(0.0))
    return graph.reshape(cost, -1, 1, 1, length)


def _sample(graph: Graph, features: str, policy: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    """What the diffusion or flow head makes of noise."""
    size = policy["horizon"] * policy["action"]["dim"]
    noise = graph.input("noise", np.float32, ("batch", policy["horizon"], policy["action"]["dim"]))
    actions = graph.reshape(noise, 0, size)
    condition = graph.linear(features, "action_head.condition_proj")
    count = kwargs["num_inference_steps"]
    if head_type(policy["model_name"], kwargs) == "flow":
        for i in range(count):
            time = FlowActionHead.time_scale * i / count
            velocity = _direction(graph, condition, actions, time)
            actions = graph.node("Add", actions, graph.node("Mul", velocity, graph.constant(1.0 / count)))
        return graph.clip(actions, -1.0, 1.0)
    alpha_bar = graph.weights["action_head.alphas_cumprod"].astype(np.float64)
    visited = sampling_steps(len(alpha_bar), count)
    for i, step in enumerate(visited):
        here = float(alpha_bar[step])
        there = float(alpha_bar[visited[i + 1]]) if i + 1 < count else 1.0
        actions = _denoise(graph, _direction(graph, condition, actions, float(step)), actions, here, there)
    return graph.clip(actions, -1.0, 1.0)


def _denoise(graph: Graph, noise: str, actions: str, here: float, there: float) -> str:
    """One DDIM step; see `DiffusionActionHead.advance`."""

    def times(x: str, factor: float) -> str:
        return graph.node("Mul", x, graph.constant(factor))

    signal, spread = np.sqrt(here), np.sqrt(1.0 - here)
    clean = graph.clip(times(graph.node("Sub", actions, times(noise, spread)), 1.0 / signal), -1.0, 1.0)
    noise = times(graph.node("Sub", actions, times(clean, signal)), 1.0 / spread)
    return graph.node("Add", times(clean, np.sqrt(there)), times(noise, np.sqrt(1.0 - there)))


def _direction(graph: Graph, condition: str, actions: str, time: float) -> str:
    """The denoiser's answer at one time; the time's embedding is a constant that the weights are applied to here."""
    half = graph.weights["action_head.time_embed.1.weight"].shape[1] // 2
    frequencies = np.exp(np.arange(half) * (-np.log(10000.0) / (half - 1))).astype(np.float32)
    angles = np.float32(time) * frequencies
    wave = np.concatenate([np.sin(angles), np.cos(angles)])[None].astype(np.float32)
    embedded = graph.activate(graph.linear(graph.constant(wave), "action_head.time_embed.1"), "Gelu")
    batch = graph.node("Shape", actions, start=0, end=1)
    sizes = graph.node("Concat", batch, graph.constant((2 * half,), np.int64), axis=0)
    hidden = graph.node("Concat", condition, graph.node("Expand", embedded, sizes), actions, axis=-1)
    for i in range(sum(name.endswith(".net.0.bias") for name in graph.weights)):
        block = f"action_head.noise_net.{i}"
        inner = graph.activate(graph.linear(hidden, f"{block}.net.0"), "Gelu")
        inner = graph.activate(graph.linear(inner, f"{block}.net.2"), "Gelu")
        hidden = graph.node("Add", inner, graph.linear(hidden, f"{block}.skip") if i == 0 else hidden)
    return graph.linear(hidden, "action_head.final")


NETWORKS = {
    "act": _act,
    "actor_critic": _actor_critic,
    "bc": _bc,
    "diffusion": _generative,
    "flow": _generative,
    "vla": _vla,
}
