"""What everything that runs on MuJoCo itself shares: its threads, its log, and a model's fields of one episode."""

import os

import jax
import mujoco

from simscaleai_jax.core.distributed import NUM_THREADS


def num_threads() -> int:
    """Threads that one batch of simulations may use: all of this machine's cores that this process may run on, or as
    many as the environment variable SIMSCALE_NUM_THREADS says, divided among its devices, which may all call at once.

    Raises:
      ValueError: the variable is not a positive integer.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get(NUM_THREADS, "")
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ValueError(f"{NUM_THREADS} must be a positive integer, got {wanted!r}")
        cores = int(wanted)
    return max(1, cores // jax.local_device_count())


def end_at_divergence(model: mujoco.MjModel) -> None:
    """Keep MuJoCo from putting a diverged state back to the start in silence: here it ends the episode."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET


def silence_log() -> None:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT into the working folder and a line per diverged simulation to the
    terminal: such episodes end, and are counted. A log that the user has set up himself is left alone.
    """
    config = mujoco.MjLogConfig.get()
    if config.logfile == "MUJOCO_LOG.TXT":
        config.logto_file = config.logto_console = False
        mujoco.MjLogConfig.set(config)
