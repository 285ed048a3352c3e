"""Where and with what a benchmark was measured."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "mujoco", "mujoco-mjx", "numpy")


def stamp() -> dict[str, Any]:
    """Date, commit, hardware and versions, for the head of a result file."""
    import jax

    described = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": described.stdout.strip(),
        "hardware": {"cpu": _processor(), "cores": os.cpu_count(), "device": jax.devices()[0].device_kind},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
