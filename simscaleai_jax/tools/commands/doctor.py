"""`simscale doctor`: what this machine has, how fast it is, and what to mend."""

import dataclasses
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.tools.arguments import parse
from simscaleai_jax.tools.output import print_table

DESCRIPTION = """Say what this machine has: versions, devices, cores, compile cache, OpenGL, ffmpeg and extras; how many
environment steps a second each physics engine makes here; and what is known to be wrong with it, with what to do.
Ends with status 1 where something has to be mended.

Examples:
  simscale doctor
  simscale doctor --impl c --json
  simscale doctor --no-measure"""

PACKAGES = ("jax", "jaxlib", "mujoco", "mujoco-mjx", "flax", "optax", "orbax-checkpoint", "gymnasium", "numpy", "h5py")
EXTRAS = {
    "cuda": "jax-cuda13-plugin", "tpu": "libtpu", "warp": "warp-lang", "torch": "torch", "onnx": "onnx",
    "lerobot": "pyarrow", "wandb": "wandb", "tensorboard": "tensorboardX", "trackio": "trackio",
}  # fmt: skip
DRAW = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8).close()"
OPENGL_SECONDS = 30
OLDEST_JAX = (0, 11, 2)
ENOUGH_MB = 2_000  # of free disk, for the compile cache and checkpoints
MEASURED_ENVS = 256
MEASURED_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class DoctorOptions:
    """Options of `simscale doctor`.

    Attributes:
      measure: time the engines; MJX alone compiles for up to two minutes.
      impl: engines to time; default: all that this machine has.
      env_name: environment that is timed.
    """

    measure: bool = True
    impl: tuple[Literal["c", "jax", "warp"], ...] = ()
    env_name: str = "reach"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report: what it is about, what was found, and what to do about it ("" where all is well)."""

    what: str
    found: str
    advice: str = ""


def main(argv: list[str]) -> None:
    """Looks at everything, prints the report.

    Raises:
      ExpectedError: something has to be mended.
    """
    options = parse(DoctorOptions, argv, "doctor", DESCRIPTION)
    findings = []
    for what, look in CHECKS.items():
        findings += [Finding(what, *found) for found in _safely(look)]
    if options.measure:
        findings += measure(options)
    rows = [(f.what, f.found, f.advice) for f in findings]
    print_table("This machine", ("what", "found", "to do"), rows)
    wrong = [f.what for f in findings if f.advice.startswith("!")]
    if wrong:
        raise ExpectedError(f"to be mended (marked with '!'): {', '.join(dict.fromkeys(wrong))}")


def _safely(look: Callable[[], Iterator[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """A check that fails is a finding, too: the others still matter."""
    try:
        return list(look())
    except Exception as error:
        return [(f"{type(error).__name__}: {error}", "! see the message")]


def _python() -> Iterator[tuple[str, ...]]:
    yield (
        f"{platform.python_version()} in {sys.prefix}",
        "" if sys.version_info >= (3, 12) else "! install 3.12 or later",
    )


def _packages() -> Iterator[tuple[str, ...]]:
    found = {name: _version(name) for name in PACKAGES}
    missing = [name for name, number in found.items() if number is None]
    advice = f"! pip install {' '.join(missing)}" if missing else ""
    jax_version = tuple(int(part) for part in (found["jax"] or "0").split(".")[:3] if part.isdigit())
    if not missing and jax_version < OLDEST_JAX:
        advice = "! pip install --upgrade jax: MJX gives wrong physics on CPUs below 0.11.2"
    if found["jax"] != found["jaxlib"]:
        advice = f"! jax and jaxlib belong together: pip install jaxlib=={found['jax']}"
    yield ", ".join(f"{name} {number or 'missing'}" for name, number in found.items()), advice


def _extras() -> Iterator[tuple[str, ...]]:
    found = {name: _version(package) for name, package in EXTRAS.items()}
    there = [f"{name} ({EXTRAS[name]} {number})" for name, number in found.items() if number]
    missing = [name for name, number in found.items() if not number]
    yield ", ".join(there) or "none", f"as needed: pip install 'simscaleai-jax[{','.join(missing)}]'" if missing else ""


def _devices() -> Iterator[tuple[str, ...]]:
    import jax

    devices = jax.devices()
    advice = ""
    if devices[0].platform == "cpu" and Path("/proc/driver/nvidia/version").exists():
        advice = "! there is an NVIDIA GPU that JAX does not see: pip install 'simscaleai-jax[cuda]'"
    yield f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})", advice


def _cores() -> Iterator[tuple[str, ...]]:
    from simscaleai_jax.sim.physics.host import num_threads

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    yield f"{usable} of {os.cpu_count()} cores, {num_threads()} threads for simulations{load}", ""


def _memory() -> Iterator[tuple[str, ...]]:
    if not hasattr(os, "sysconf"):
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield f"{total:.1f} GiB", "" if total >= 4 else "small: fewer environments (--ppo.num-envs)"


def _cache() -> Iterator[tuple[str, ...]]:
    import shutil

    from simscaleai_jax.core import compile_cache

    folder = compile_cache.enable()
    if folder is None:
        variable = compile_cache.ENVIRONMENT_VARIABLE
        yield "off", f"everything compiles anew each time: give {variable} a folder that can be written"
        return
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    free = shutil.disk_usage(folder).free / 2**20
    yield f"{folder}: {held:.0f} MB", "" if free > ENOUGH_MB else f"! only {free:.0f} MB are free on its disk"


def _settings() -> Iterator[tuple[str, ...]]:
    from simscaleai_jax.core import jax_settings

    names = [name for name in sorted(os.environ) if name.startswith(("JAX_", "XLA_", "SIMSCALE_"))]
    advice = ""
    try:
        jax_settings.check()
    except ValueError as error:
        advice = f"! {error}"
    yield ", ".join(f"{name}={os.environ[name]}" for name in names) or "none", advice


def _opengl() -> Iterator[tuple[str, ...]]:
    chosen = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}"
    command = [sys.executable, "-c", DRAW]  # a process of its own: some of OpenGL's libraries abort theirs
    done = subprocess.run(command, capture_output=True, text=True, timeout=OPENGL_SECONDS, check=False)
    if done.returncode == 0:
        yield f"works ({chosen})", ""
        return
    advice = "not needed: pictures come from the ray-caster; for renderer='mujoco' set MUJOCO_GL=egl"
    yield f"none ({chosen})", advice


def _video() -> Iterator[tuple[str, ...]]:
    try:
        import imageio_ffmpeg

        yield f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}", ""
    except (ImportError, RuntimeError):
        yield "no ffmpeg", "films become GIFs: pip install imageio-ffmpeg"


def _display() -> Iterator[tuple[str, ...]]:
    has_display = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    yield "yes" if has_display else "none", "" if has_display else "figures and films go to files (--save)"


CHECKS: dict[str, Callable[[], Iterator[tuple[str, ...]]]] = {
    "Python": _python,
    "packages": _packages,
    "extras": _extras,
    "devices": _devices,
    "cores": _cores,
    "memory": _memory,
    "compile cache": _cache,
    "JAX's settings": _settings,
    "OpenGL": _opengl,
    "films": _video,
    "display": _display,
}


def measure(options: DoctorOptions) -> list[Finding]:
    """Environment steps a second of every engine, and seconds until it ran."""
    findings = []
    for impl in options.impl or ("c", "jax", *(["warp"] if _version("warp-lang") else [])):
        what = f"engine {impl}"
        print(f"Timing {options.env_name} on {impl!r}: compiling first ...", file=sys.stderr, flush=True)
        findings += [Finding(what, *found) for found in _safely(lambda impl=impl: _speed(options.env_name, impl))]
    return findings


def _speed(env_name: str, impl: str) -> Iterator[tuple[str, ...]]:
    import jax
    import jax.numpy as jnp

    from simscaleai_jax.sim import make_batched_env

    start = time.perf_counter()
    env = make_batched_env(env_name, cameras=[], impl=impl, dt=0.01)
    state: Any = jax.jit(env.init)(jax.random.key(0), jnp.arange(MEASURED_ENVS))
    step, action = jax.jit(env.step, donate_argnums=0), jnp.zeros((MEASURED_ENVS, env.action_size))
    state = jax.block_until_ready(step(state, action))
    ready, count = time.perf_counter() - start, 0
    start = time.perf_counter()
    while time.perf_counter() - start < MEASURED_SECONDS:
        state = jax.block_until_ready(step(state, action))
        count += 1
    rate = count * MEASURED_ENVS / (time.perf_counter() - start)
    yield f"{rate:,.0f} {env_name} steps/s with {MEASURED_ENVS} environments; {ready:.0f} s until it ran", ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
