"""Machines to compile for, by name: "v5e:16x16" is a slice of 256 TPU v5e chips, "h100:8" a node of eight GPUs, "cpu:8"
eight devices of this machine.

TPU programs are compiled by libtpu, GPU programs by JAX's CUDA plugin; neither needs the accelerator for it.
"""

import dataclasses
import importlib.util
import os
from typing import Any

import jax
from jax.sharding import Mesh

from simscaleai_jax.core import sharding
from simscaleai_jax.core.errors import unknown_name

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of accelerator. Speeds are its vendor's published peaks, per device (TPU v7x has two devices a chip).

    Attributes:
      name: for people.
      memory: bytes.
      flops: bfloat16 products and sums per second.
      bandwidth: bytes per second of its memory.
      link: bytes per second to the other chips of a slice, all links together.
      clock: cycles per second, None where it is not published.
      shapes: slices that can be had, the smallest first.
      options: what the topology's description is made with besides its name.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    clock: float | None
    shapes: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

# cloud.google.com/tpu/docs/system-architecture-tpu-vm and the pages of each version; clocks:
# jax-ml.github.io/scaling-book/tpus
CHIPS = {
    "v4": Chip("TPU v4", 32 * GIB, 275e12, 1228e9, 300e9, 1.05e9, CUBES, (("chip_config_name", "megacore"),)),
    "v5e": Chip("TPU v5e", 16 * GIB, 197e12, 819e9, 200e9, 1.5e9, FLAT),
    "v5p": Chip("TPU v5p", 95 * GIB, 459e12, 2765e9, 600e9, 1.75e9, CUBES),
    "v6e": Chip("TPU v6e", 32 * GIB, 918e12, 1640e9, 448e9, None, FLAT),
    "tpu7x": Chip("TPU7x", 96 * GIB, 1153.5e12, 3690e9, 600e9, None, CUBES),
}
CPU = "cpu"


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What XLA has to know of a GPU to compile for it.

    Attributes:
      description: as the driver calls it.
      capability: of CUDA, major and minor.
      cores: streaming multiprocessors. lanes: of each, for float32.
      shared: bytes of shared memory of each; a block may take 1,024 less. cache: bytes of the second level.
      clock: GHz.
      memory: bytes that the driver reports.
    """

    description: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    shared: int
    cache: int
    clock: float
    memory: int


# resources.nvidia.com: architecture papers and data sheets of A100 (SXM, 80 GB), H100 (SXM) and H200. Links: NVLink,
# in one direction.
NODE = ("1", "2", "4", "8")
CHIPS |= {
    "a100": Chip("A100", 80 * GIB, 312e12, 2039e9, 300e9, None, NODE),
    "h100": Chip("H100", 80 * GIB, 989e12, 3352e9, 450e9, None, NODE),
    "h200": Chip("H200", 141e9, 989e12, 4800e9, 450e9, None, NODE),
}
GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 167_936, 41_943_040, 1.41, 85_094_039_552),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 233_472, 52_428_800, 1.98, 84_929_347_584),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 128, 233_472, 52_428_800, 1.98, 150_754_820_096),
}

# Without these libtpu looks for the TPU of this machine, and holds a lock of the whole machine.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine to compile for.

    Attributes:
      name: as it was asked for.
      mesh: its devices.
      chip: what they are; None for this machine's CPU.
      slices: slices that the slower network between machines connects.
    """

    name: str
    mesh: Mesh
    chip: Chip | None
    slices: int = 1


def find_target(name: str, slices: int = 1) -> Target:
    """The machine called `name`; nothing of it has to be there.

    Args:
      name: "CHIP:SHAPE", for example "v5e:4x4" or "h100:8", or "cpu:N" for N of this machine's CPU devices.
      slices: so many of these; of GPUs, nodes.
    Raises:
      ValueError: there is no such chip or slice; the message lists what there is.
      ImportError: libtpu, or JAX's CUDA plugin, is missing.
    """
    kind, _, shape = name.partition(":")
    if kind == CPU:
        return Target(name, sharding.make_mesh(sharding.pick_devices(CPU, int(shape) if shape.isdigit() else 1)), None)
    if kind not in CHIPS:
        raise unknown_name("topology", name, presets())
    chip = CHIPS[kind]
    if not shape or slices < 1:
        raise ValueError(f"A topology is a chip and its slice, for example {kind}:{chip.shapes[3]}; got {name!r}.")
    if kind in GPUS:
        return Target(name, sharding.make_mesh(_gpus(name, shape, slices)), chip, slices)
    _check_libtpu(name)
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    from jax.experimental import topologies

    options = dict(chip.options) | ({"num_slices": slices} if slices > 1 else {})
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"libtpu knows no topology {name!r}; there are {', '.join(presets(kind))}. ({str(error).splitlines()[0]})"
        ) from None
    return Target(name, sharding.make_mesh(devices), chip, slices)


def _gpus(name: str, shape: str, nodes: int) -> list[Any]:
    """Devices of `nodes` nodes of `shape` GPUs, for the compiler alone."""
    if shape not in NODE:
        raise ValueError(f"A node has {', '.join(NODE)} GPUs; got {name!r}.")
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise ImportError(f"Compiling for {name} needs JAX's CUDA plugin: pip install 'simscaleai-jax[plan-cuda]'")
    from jax.experimental import topologies

    kind = name.partition(":")[0]
    topology = {"target_config": _description(GPUS[kind], CHIPS[kind].bandwidth), "topology": f"1x{nodes}x{shape}"}
    return list(topologies.get_topology_desc(platform="cuda", topology_name=name, **topology).devices)


def _description(gpu: Gpu, bandwidth: float) -> str:
    """XLA's GpuTargetConfigProto as text. What all three have in common stands here."""
    device = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "threads_per_core_limit": 2048,
        "shared_memory_per_block": 49_152, "shared_memory_per_core": gpu.shared,
        "shared_memory_per_block_optin": gpu.shared - 1024, "core_count": gpu.cores, "fpus_per_core": gpu.lanes,
        "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65_535, "block_dim_limit_z": 65_535,
        "registers_per_core_limit": 65_536, "registers_per_block_limit": 65_536, "l2_cache_size": gpu.cache,
        "clock_rate_ghz": gpu.clock, "device_memory_size": gpu.memory,
        "memory_bandwidth": int(bandwidth),
    }  # fmt: skip
    major, minor = gpu.capability
    fields = " ".join(f"{key}: {value}" for key, value in device.items())
    return (
        f"gpu_device_info {{ {fields} cuda_compute_capability {{ major: {major} minor: {minor} }} }} "
        f'platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }} runtime_version {{ major: 13 minor: 0 }} '
        f'device_description_str: "{gpu.description}"'
    )


def presets(kind: str | None = None) -> list[str]:
    """Names that `find_target` takes (and others of the same form, which libtpu knows)."""
    found = [f"{name}:{shape}" for name, chip in CHIPS.items() for shape in chip.shapes if kind in (None, name)]
    return found if kind else [*found, "cpu:8"]


def _check_libtpu(name: str) -> None:
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise ImportError(f"Compiling for {name} needs libtpu (640 MB): pip install 'simscaleai-jax[tpu]'")
