"""JAX's settings that a user may have made: all are obeyed but those under which training could not be right.

Obeyed: looking for NaN and infinity, matrix precision (the physics and PPO's networks stay whole float32), default
device (programs run where `device` says), logs of compiling. The generator of random numbers is `GENERATOR` whatever
the default is: the others give a batch other numbers than its members, and what happens in an environment would depend
on its neighbours.
"""

GENERATOR = "threefry2x32"

# name -> (value that is refused, why, value that is not)
REFUSED = {
    "jax_enable_x64": (True, "training computes in float32", False),
    "jax_disable_jit": (True, "training compiles its programs before it runs them", False),
    "jax_numpy_rank_promotion": ("raise", "environments and models add vectors to batches of them", "allow"),
    "jax_numpy_dtype_promotion": ("strict", "environments and models mix flags and numbers", "standard"),
}


def check() -> None:
    """Refuses, before anything is compiled, settings under which training cannot be right.

    Raises:
      ValueError: one is made; the message says which, why, and how to unmake it.
    """
    import jax

    for name, (value, reason, instead) in REFUSED.items():
        if getattr(jax.config, name) == value:
            raise ValueError(
                f"{name} is {value!r}, but {reason}: unset {name.upper()}, or jax.config.update({name!r}, {instead!r})."
            )
