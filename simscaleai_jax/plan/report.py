"""What one program needs on a machine, as a dict of plain numbers: bytes are per chip, counts per call."""

import re
import time
from collections import Counter
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from simscaleai_jax.core.ahead import Program
from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.core.sharding import SLICE
from simscaleai_jax.plan import counts
from simscaleai_jax.plan.hlo import Collective, Cost, Module
from simscaleai_jax.plan.targets import Target

PARTS = ("physics", "task", "resets", "policy", "learning")  # named scopes of PPO's program
SHOWN = 8  # instructions
LARGE = 64 * 2**20  # bytes of an argument that every chip holds
MIN_USE = 0.25  # of the tiles' room, below which it is said
TOO_LARGE = re.compile(r"RESOURCE_EXHAUSTED|exceeds? .*hbm|out of memory", re.IGNORECASE)


class TooLargeError(ExpectedError):
    """The program needs more memory than a chip has."""


def examine(program: Program, target: Target, is_split: bool = False) -> dict[str, Any]:
    """Compiles a program and reads what the compiler says.

    Args:
      program: whose arguments lie on `target.mesh`.
      target: the machine.
      is_split: parameters are split over the chips, so that gathering them is as it should be.
    Returns:
      seconds, memory, flops, collectives, cycles, estimate and warnings.
    Raises:
      TooLargeError: it does not fit; the message is the compiler's.
    """
    times = [time.perf_counter()]
    traced = program.trace()
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled = _compile(lowered, target)
    times.append(time.perf_counter())
    seconds = {name: times[i + 1] - times[i] for i, name in enumerate(("trace", "lower", "compile"))}
    module = Module(compiled.as_text() or "")
    work, costs, collectives = counts.count(traced.jaxpr.jaxpr), module.costs(), module.collectives()
    devices = target.mesh.size
    report = {
        "topology": target.name,
        "slices": target.slices,
        "devices": devices,
        "seconds": seconds,
        "memory": _memory(compiled, target),
        "flops": {"products": work.products / devices, "passes": work.passes / devices, "other": work.other / devices},
        "bytes_moved": sum(cost.moved for cost in costs),
        "collectives": _collectives(collectives),
        "cycles": _cycles(costs),
    }
    report["estimate"] = _estimate(report, target)
    may_gather = is_split or target.slices > 1  # a sum over slices is scattered and gathered within each
    report["warnings"] = _warnings(program, module, costs, collectives, may_gather, devices)
    return report


def _compile(lowered: Any, target: Target) -> Any:
    """Compiles anew, because a program from the cache would say nothing about seconds."""
    was_on = jax.config.jax_enable_compilation_cache
    _use_cache(False)
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not TOO_LARGE.search(str(error)):
            raise
        said = next((line for line in str(error).splitlines() if "exceed" in line.lower()), str(error).splitlines()[0])
        raise TooLargeError(f"The program does not fit into the memory of a chip of {target.name}: {said}") from None
    finally:
        _use_cache(was_on)


def _use_cache(is_on: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", is_on)
    compilation_cache.reset_cache()  # JAX looks at the setting once


def _memory(compiled: Any, target: Target) -> dict[str, float | None]:
    found = compiled.memory_analysis()
    names = {
        "arguments": "argument_size_in_bytes", "outputs": "output_size_in_bytes", "donated": "alias_size_in_bytes",
        "temporaries": "temp_size_in_bytes", "code": "generated_code_size_in_bytes",
    }  # fmt: skip
    memory: dict[str, float | None] = {name: getattr(found, field) for name, field in names.items()}
    needed = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    memory["needed"] = needed + found.temp_size_in_bytes + found.generated_code_size_in_bytes
    memory["available"] = target.chip.memory if target.chip else None
    if target.chip and memory["needed"] > target.chip.memory:  # XLA for GPUs compiles it all the same
        wanted = f"{memory['needed'] / 2**30:.2f} GiB exceed {target.chip.memory / 2**30:.2f} GiB"
        raise TooLargeError(f"The program does not fit into the memory of a chip of {target.name}: {wanted}")
    return memory


def _collectives(collectives: list[Collective]) -> dict[str, Any]:
    rows: Counter[tuple] = Counter()
    for each in collectives:
        rows[(each.kind, each.size, each.group, each.axes, each.op_name)] += each.count
    listed = [
        {"kind": kind, "size": size, "count": count, "chips": group, "axes": list(axes), "from": op_name}
        for (kind, size, group, axes, op_name), count in rows.most_common()
    ]
    return {
        "count": sum(each.count for each in collectives),
        "bytes": sum(each.count * each.size for each in collectives),
        "sent": sum(each.count * each.wire for each in collectives if SLICE not in each.axes),
        "sent_between_slices": sum(each.count * each.wire for each in collectives if SLICE in each.axes),
        "each": sorted(listed, key=lambda row: -row["count"] * row["size"]),
    }


def _cycles(costs: list[Cost]) -> dict[str, Any] | None:
    """The compiler's own estimate, which only TPU programs carry."""
    total = sum(cost.cycles for cost in costs)
    if not total:
        return None
    parts: Counter[str] = Counter()
    for cost in costs:
        parts[part_of(cost.op_name)] += cost.cycles
    dearest = sorted(costs, key=lambda cost: -cost.cycles)[:SHOWN]
    return {
        "total": total,
        "parts": dict(parts.most_common()),
        "costliest": [
            {"cycles": cost.cycles, "count": cost.count, "shape": cost.shape[:80], "from": cost.op_name or cost.name}
            for cost in dearest
        ],
    }


def part_of(op_name: str) -> str:
    """The innermost of `PARTS` among the scopes of an instruction; outside of them "forward" or "backward", or "other".

    >>> part_of("jit(dispatch)/while/body/policy/vmap(physics)/step/mul")
    'physics'
    """
    scopes = re.split(r"[/()]", op_name)
    passes = {"transpose": "backward", "jvp": "forward"}
    outside = next((part for scope, part in passes.items() if scope in scopes), "other")
    return next((scope for scope in reversed(scopes) if scope in PARTS), outside)


def _estimate(report: dict[str, Any], target: Target) -> dict[str, float | None] | None:
    """Seconds of a call at published peaks: a bound from below, no measurement."""
    chip = target.chip
    if chip is None:
        return None
    cycles = report["cycles"]
    return {
        "products": report["flops"]["passes"] / chip.flops,
        "memory": report["bytes_moved"] / chip.bandwidth,
        "links": report["collectives"]["sent"] / chip.link,
        "cycles": cycles["total"] / chip.clock if cycles and chip.clock else None,
    }


def _warnings(
    program: Program, module: Module, costs: list[Cost], collectives: list[Collective], may_gather: bool, devices: int
) -> list[str]:
    found = []
    if module.has_float64():
        found.append("computes in float64, which no accelerator here does fast")
    if module.has_host_calls():
        found.append("calls the host while it runs")
    gathers = [each for each in collectives if each.kind not in ("all-reduce", "reduce-scatter")]
    if gathers and not may_gather:
        dearest = max(gathers, key=lambda each: each.size * each.count)
        found.append(
            f"exchanges data that is split over the chips, which grows with them: {len(gathers)} {dearest.kind} or "
            f"alike, the largest of {dearest.size:,} bytes in {dearest.op_name}"
        )
    copied = _copied(program) if devices > 1 else 0
    if copied:
        found.append(f"every chip holds a copy of {copied:,} bytes of large arguments (train --fsdp splits parameters)")
    padded, written = (sum(getattr(cost, name) for cost in costs) for name in ("padded", "written"))
    if padded and written < MIN_USE * padded:
        found.append(f"{100 * (1 - written / padded):.0f}% of what results take in tiles of 128 lanes is empty")
    if (loops := module.unknown_loops()) > 1:  # one is that over the updates of a call
        found.append(f"{loops - 1} loops have no fixed number of rounds; what is in them counts once")
    return found


def _copied(program: Program) -> int:
    leaves = jax.tree.leaves(program.arguments)
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves if leaf.sharding and leaf.sharding.is_fully_replicated]
    return sum(size for size in sizes if size >= LARGE)
