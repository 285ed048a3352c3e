"""Makes the built-in environments known to gymnasium; `import simscaleai_jax.sim` calls `register`."""

ENVIRONMENTS = {"simscaleai_jax/Reach-v0": "reach", "simscaleai_jax/PickPlace-v0": "pick_place"}


def register() -> None:
    """Register every environment that gymnasium does not know yet; the simulator itself loads when one is made."""
    import gymnasium

    for name, env_name in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, "simscaleai_jax.sim.factory:make_env", kwargs={"env_name": env_name})
