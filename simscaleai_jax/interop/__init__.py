"""Policies to and from torch, and out to ONNX and StableHLO.

`transfer` converts checkpoints and files, `acting` says what a policy's export holds beside the weights, `mapping`
lists every name and layout, `torch_mirror` holds torch modules and the policy that load the exports. Nothing is
imported here, so that `simscaleai_jax.interop.torch_mirror` works in an interpreter that has torch and no JAX.
"""

from typing import Any

__all__ = ["export_policy", "export_torch", "import_torch"]


def export_policy(*args: Any, **kwargs: Any) -> Any:
    """See `interop.transfer.export_policy`."""
    from simscaleai_jax.interop import transfer

    return transfer.export_policy(*args, **kwargs)


def export_torch(*args: Any, **kwargs: Any) -> Any:
    """See `interop.transfer.export_torch`."""
    from simscaleai_jax.interop import transfer

    return transfer.export_torch(*args, **kwargs)


def import_torch(*args: Any, **kwargs: Any) -> Any:
    """See `interop.transfer.import_torch`."""
    from simscaleai_jax.interop import transfer

    return transfer.import_torch(*args, **kwargs)
