"""Robot-manipulation environments, policies and trainers on JAX and MJX.

Importing the package is light and silent: simulators, networks and trainers load when a subpackage is imported. It
makes the environments' ids known to gymnasium, which has no plugin mechanism.
"""

from importlib.metadata import PackageNotFoundError as _NotInstalled
from importlib.metadata import version as _version

from simscaleai_jax.registration import register as _register

try:
    __version__ = _version("simscaleai-jax")
except _NotInstalled:  # run from a folder of sources
    __version__ = "0+unknown"

__all__ = ["__version__"]

_register()
