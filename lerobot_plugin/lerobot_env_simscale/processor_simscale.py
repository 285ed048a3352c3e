"""Steps around a simscale policy: the export normalizes by itself, so what is left is the batch and the device."""

from typing import Any

from lerobot.processor import make_default_pre_post_processors


def make_simscale_pre_post_processors(config: Any, dataset_stats: Any = None) -> tuple[Any, Any]:
    """(preprocessor, postprocessor)."""
    return make_default_pre_post_processors(config, None, normalizer_device=config.device)
