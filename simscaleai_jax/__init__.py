"""Robot-manipulation environments, policies and trainers on JAX and MJX.

Importing the package is light and silent: simulators, networks and trainers load when a subpackage is imported. It
makes the environments' ids known to gymnasium, which has no plugin mechanism.
"""

from simscaleai_jax.registration import register as _register

__version__ = "0.1.0"

__all__ = ["__version__"]

_register()
