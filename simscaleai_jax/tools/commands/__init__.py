"""One module per command of `simscale`; each has `main(argv)`. The registry is in `simscaleai_jax.tools.cli`."""
