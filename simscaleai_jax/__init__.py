"""Robot-manipulation environments, policies and trainers on JAX and MJX.

Importing the package is light and silent: simulators, networks and trainers load when a subpackage is imported.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
