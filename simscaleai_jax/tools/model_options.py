"""A model's constructor arguments as options: --model.NAME, with their types, defaults and meanings in --help."""

import dataclasses
import inspect
import typing
from collections.abc import Sequence
from typing import Any

from simscaleai_jax.core.errors import unknown_name
from simscaleai_jax.tools.arguments import config_path, read_options, with_preset
from simscaleai_jax.tools.names import Names

DEFAULT_MODEL = "bc"
INTERNAL = ("rngs", "dtype", "remat", "auxiliary_size")  # the trainer gives them
MEANINGS = {
    "state_dim": "length of the state vector",
    "action_dim": "length of an action",
    "hidden_dim": "width of the hidden layers",
    "n_layers": "hidden layers of the action head",
    "use_image": "also see one camera image",
    "image_channels": "channels of that image",
    "in_channels": "channels of the image",
    "image_size": "side of the image in pixels",
    "image_embed_dim": "length of the image's features",
    "image_pooling": "how an image becomes features: average, or keypoints (where small things are)",
    "dropout": "share of activations that training drops",
    "loss_type": "error that is minimized: mse, l1 or huber",
    "patch_size": "side of a patch in pixels",
    "embed_dim": "width of the tokens",
    "num_heads": "attention heads",
    "num_layers": "layers of the vision transformer",
    "mlp_ratio": "width of a transformer's hidden layer, in embed_dim",
    "use_language": "read an instruction",
    "vocab_size": "characters that instructions are made of",
    "max_text_len": "characters that are read of an instruction",
    "mask_padding": "read nothing behind an instruction's end",
    "grounding": "how words find things in the picture: attention among tokens, or keypoints (places asked for)",
    "lang_num_layers": "layers of the language transformer",
    "action_head_type": "mlp, diffusion or flow",
    "action_horizon": "actions that are planned at a time",
    "obs_horizon": "observations that a plan reads, the latest ones",
    "image_key": "observation key of that picture",
    "cameras": "observation keys of the pictures that are seen",
    "posterior_layers": "layers of the transformer that encodes the latent in training",
    "latent_dim": "length of the latent",
    "kl_weight": "weight of the latent's divergence from a normal distribution",
    "head_layers": "layers of a diffusion or flow head",
    "num_diffusion_steps": "steps of the diffusion process in training",
    "num_inference_steps": "steps in which an action is drawn",
    "schedule": "noise of the diffusion head: cosine or linear",
    "scan_layers": "compile one transformer layer and repeat it",
    "attention": "auto, xla or cudnn",
}


def model_options_class(name: str) -> type:
    """A frozen dataclass with the arguments of the model called `name`; None means its default, or what the data say.

    Raises:
      ValueError: there is no such model.
    """
    from simscaleai_jax.models.registry import find_model

    cls = find_model(name)
    hints = typing.get_type_hints(cls.__init__)
    fields, lines = [], []
    for argument, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if argument in INTERNAL or not is_named or not _is_simple(hints.get(argument, str)):
            continue
        fields.append((argument, hints.get(argument, str) | None, dataclasses.field(default=None)))
        default = "" if parameter.default is parameter.empty else f"; the model's own default is {parameter.default!r}"
        lines.append(f"  {argument}: {MEANINGS.get(argument, f'argument of {cls.__name__}')}{default}.")
    options = dataclasses.make_dataclass(f"{cls.__name__}Options", fields, frozen=True)
    options.__doc__ = "\n".join([f"Arguments of {cls.__name__}.", "", "Attributes:", *lines, ""])
    return options


def named_model(argv: Sequence[str], file_names: Names) -> str:
    """The model that the arguments, or else the file or preset they name, choose."""
    found = None
    for i, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") in ("--model", "--model-name"):
            found = value if equals else "".join(argv[i + 1 : i + 2])
    if found is not None:
        return _known(found)
    path = config_path(with_preset(argv, _TakesFiles))
    if path is None:
        return DEFAULT_MODEL
    said = read_options(path, "train")
    name = said.get("model_name", said.get("model", DEFAULT_MODEL))
    return _known(name if isinstance(name, str) else DEFAULT_MODEL)


@dataclasses.dataclass
class _TakesFiles:
    config: str | None = None


def _known(name: str) -> str:
    from simscaleai_jax.models.registry import list_models

    if name not in list_models():
        raise unknown_name("model", name, list_models())
    return name


def _is_simple(hint: Any) -> bool:
    args = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    return all(arg in (int, float, bool, str, Ellipsis) for arg in args or [hint])
