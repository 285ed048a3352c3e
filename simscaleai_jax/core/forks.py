"""JAX and forked processes: JAX's threads stay behind in the parent, and whatever waits for them waits forever."""

import os

_started_in: list[int] = []


def check_not_forked() -> None:
    """To be called before JAX is used; remembers the process in which that was first.

    Raises:
      RuntimeError: this process was forked from one in which JAX already runs.
    """
    if not _started_in:
        _started_in.append(os.getpid())
    if os.getpid() != _started_in[0]:
        raise RuntimeError(
            "This process was forked from one in which JAX runs, and JAX would wait here forever. Start workers with "
            "'spawn': gymnasium.make_vec(..., vectorization_mode='async', vector_kwargs={'context': 'spawn'}); or step "
            "all environments in one call: simscaleai_jax.sim.make_vec_env(name, num_envs)."
        )
