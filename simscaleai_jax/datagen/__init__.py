"""Demonstrations at accelerator speed: rollouts on the device, complete and resumable HDF5 files, exporters."""

from simscaleai_jax.datagen.files.merge import merge_files
from simscaleai_jax.datagen.generator import generate_dataset
from simscaleai_jax.datagen.language import draw_instruction, instructions, register_instructions

__all__ = ["draw_instruction", "generate_dataset", "instructions", "merge_files", "register_instructions"]
