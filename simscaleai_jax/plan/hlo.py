"""Reads a compiled program's text: what runs how often, what it moves, and what the compiler thinks that it costs."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

from simscaleai_jax.core.sharding import SLICE

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
SIZES = {
    "pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8,
    "s64": 8, "u64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all")
LANES = 128
BETWEEN_SLICES = re.compile(r'_xla_megascale_target="\{([\d,]+)\}x[^"]*",_xla_megascale_transfer_type="(\w+)"')
HOST_CALLS = re.compile(r'custom_call_target="[^"]*(?:callback|host)[^"]*"| (?:outfeed|infeed|send|recv)\(')

_COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*\))?\s*->.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
    r"(body|calls|to_apply|branch_computations|true_computation|false_computation|called_computations)"
    r"=(\{[^}]*\}|%?[\w.\-]+)"
)
_COMMENT = re.compile(r"/\*.*?\*/")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program: its result's shape as text, what it does, and the rest of the line."""

    name: str
    shape: str
    opcode: str
    rest: str

    def number(self, name: str) -> int | None:
        """An integer of the line's attributes, quoted or not."""
        found = re.search(rf'\b{name}"?[=:]"?(\d+)', self.rest)
        return int(found.group(1)) if found else None

    @property
    def op_name(self) -> str:
        """Where in the Python program it comes from: its scopes, "/" between them."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found.group(1) if found else ""


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between chips.

    Attributes:
      kind: one of COLLECTIVES.
      size: bytes of the whole array: reduced, gathered, or to be scattered.
      count: how often it runs in one call of the program; loops of unknown length count once.
      group: chips that take part; between slices as many as slices, one chip of each.
      axes: names of the mesh's axes that it goes over, where the compiler says.
      op_name: where it comes from.
    """

    kind: str
    size: int
    count: int
    group: int
    axes: tuple[str, ...]
    op_name: str

    @property
    def wire(self) -> float:
        """Bytes that each chip sends in one run, at the least (on a ring)."""
        if self.kind == "collective-permute":
            return self.size
        share = (self.group - 1) / self.group
        return self.size * share * (2 if self.kind == "all-reduce" else 1)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of one instruction of the program, over all its runs.

    Attributes:
      op_name: where it comes from.
      name: the instruction.
      shape: of its result.
      cycles: the compiler's estimate, 0 where it gives none.
      moved: bytes between the chip's memory and its cores.
      padded: bytes that results take in whole tiles, and `written` the bytes of numbers among them.
      count: runs.
    """

    op_name: str
    name: str
    shape: str
    cycles: int
    moved: int
    padded: int
    written: int
    count: int


class Module:
    """A compiled program as text, taken apart."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] = []
        for line in text.splitlines():
            if not line.startswith(" "):
                if head := _COMPUTATION.match(line):
                    current = self.computations.setdefault(head.group(2), [])
                    self.entry = head.group(2) if head.group(1) else self.entry
            elif found := _INSTRUCTION.match(_COMMENT.sub("", line)):
                current.append(Instruction(*found.groups()))

    def collectives(self) -> list[Collective]:
        """Every exchange. The pieces into which a TPU cuts one that runs beside other work count as one."""
        found: dict[object, Collective] = {}
        direct = self._runs(False)
        for computation, count in self._runs(True).items():
            is_scatter = computation.startswith("all-reduce-scatter")  # how a TPU writes a reduce-scatter
            is_piece = computation not in direct and not is_scatter
            for instruction in self.computations[computation]:
                if instruction.opcode == "send" and (across := _between_slices(instruction, count)):
                    found[instruction.name] = across
                kind = instruction.opcode.removesuffix("-start")
                if kind not in COLLECTIVES:
                    continue
                channel = instruction.number("channel_id")
                group, axes = _group(instruction.rest)
                size = _whole_size(kind, instruction, group)
                kind = "reduce-scatter" if is_scatter and kind == "all-reduce" else kind
                made = Collective(kind, size, count, group, axes, instruction.op_name)
                found.setdefault((channel, made) if is_piece else instruction.name, made)
        return list(found.values())

    def costs(self) -> list[Cost]:
        """Every instruction that does work; of a conditional the branch that costs most."""
        return [
            cost
            for name, count in self._runs(False).items()
            for cost in self._computation_costs(name, count)
            if cost.cycles or cost.moved
        ]

    def has_float64(self) -> bool:
        """Whether anything is computed in double precision."""
        return " f64[" in self.text or "(f64[" in self.text

    def has_host_calls(self) -> bool:
        """Whether the program stops for the host."""
        return any(HOST_CALLS.search(line) and not BETWEEN_SLICES.search(line) for line in self.text.splitlines())

    def unknown_loops(self) -> int:
        """Loops whose number of rounds the text does not say."""
        return sum(
            self._rounds(instruction) is None
            for name in self._runs(False)
            for instruction in self.computations[name]
            if instruction.opcode == "while"
        )

    def _runs(self, into_fusions: bool) -> dict[str, int]:
        """Computation -> how often it runs in a call of the program."""
        counts: dict[str, int] = defaultdict(int)

        def enter(name: str, times: int) -> None:
            counts[name] += times
            for instruction in self.computations[name]:
                for inner, factor in self._called(instruction, into_fusions):
                    enter(inner, times * factor)

        enter(self.entry, 1)
        return dict(counts)

    def _called(self, instruction: Instruction, into_fusions: bool) -> Iterator[tuple[str, int]]:
        opcode = instruction.opcode
        if "=" not in instruction.rest or (opcode == "fusion" and not into_fusions):
            return
        if opcode not in ("while", "conditional", "call", "fusion") and not opcode.endswith("-start"):
            return
        names = [
            (role, name)
            for role, listed in _CALLED.findall(instruction.rest.partition(", metadata=")[0])
            for name in re.findall(r"[\w.\-]+", listed)
            if name in self.computations and (role != "to_apply" or opcode == "call")
        ]
        if opcode == "conditional" and not into_fusions:
            names = [max(names, key=lambda pair: self._total_cycles(pair[1]))]
        rounds = (self._rounds(instruction) or 1) if opcode == "while" else 1
        yield from ((name, rounds) for _, name in names)

    def _total_cycles(self, name: str) -> int:
        own = sum(instruction.number("estimated_cycles") or 0 for instruction in self.computations[name])
        return own + sum(
            times * self._total_cycles(inner)
            for instruction in self.computations[name]
            for inner, times in self._called(instruction, False)
        )

    def _rounds(self, loop: Instruction) -> int | None:
        """Rounds of a while loop: as the text says, or the constant that its counter is compared with."""
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known.group(1))
        condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        lines = self.computations.get(condition.group(1), []) if condition else []
        compared = re.match(r"%?[\w.\-]+, %?([\w.\-]+)\), direction=LT", lines[-1].rest) if lines else None
        limit = next((line for line in lines if compared and line.name == compared.group(1)), None)
        constant = re.match(r"(\d+)\)", limit.rest) if limit and limit.opcode == "constant" else None
        return int(constant.group(1)) if constant else None

    def _computation_costs(self, name: str, count: int) -> Iterator[Cost]:
        shapes = {instruction.name: instruction.shape for instruction in self.computations[name]}
        for instruction in self.computations[name]:
            if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
                continue
            operands = re.findall(r"%([\w.\-]+)", instruction.rest.partition(")")[0])
            read = sum(in_memory(shapes.get(operand, "")) for operand in operands)
            cycles = instruction.number("estimated_cycles") or 0
            padded, written = tiles(instruction.shape)
            yield Cost(
                instruction.op_name, instruction.name, instruction.shape, cycles * count,
                (read + in_memory(instruction.shape)) * count, padded * count, written * count, count,
            )  # fmt: skip


def size_of(shape: str) -> int:
    """Bytes of the numbers of a shape, or of a tuple of shapes.

    >>> size_of("(f32[2,3]{1,0}, pred[])")
    25
    """
    return sum(SIZES.get(kind, 0) * _count(dims) for kind, dims, _ in _SHAPE.findall(shape))


def in_memory(shape: str) -> int:
    """Like `size_of`, without what a TPU keeps beside its cores (memory spaces, "S(1)" and above)."""
    found = _SHAPE.findall(shape)
    return sum(SIZES.get(kind, 0) * _count(dims) for kind, dims, layout in found if "S(" not in layout)


def tiles(shape: str) -> tuple[int, int]:
    """(bytes in whole tiles, bytes of numbers) of the results that a TPU keeps in tiles of (rows, 128 lanes).

    >>> tiles("f32[4096,5,4,4]{3,2,1,0:T(4,128)}")
    (41943040, 1310720)
    """
    padded = written = 0
    for kind, dims, layout in _SHAPE.findall(shape):
        tile = re.match(r"\{([\d,]+):T\((\d+),128\)", layout)
        if not tile:
            continue
        sizes = [int(size) for size in dims.split(",")]
        lanes, rows, *others = [sizes[int(axis)] for axis in tile.group(1).split(",")]
        whole = math.ceil(lanes / LANES) * LANES * math.ceil(rows / int(tile.group(2))) * int(tile.group(2))
        padded += SIZES.get(kind, 0) * whole * math.prod(others)
        written += SIZES.get(kind, 0) * _count(dims)
    return padded, written


def _count(dims: str) -> int:
    return math.prod(int(size) for size in dims.split(",") if size)


def _whole_size(kind: str, instruction: Instruction, group: int) -> int:
    """Bytes of the array that an exchange is about, whatever it returns of it."""
    size = size_of(instruction.shape)
    if instruction.opcode.endswith("-start") and instruction.shape.startswith("("):
        parts = [SIZES.get(name, 0) * _count(dims) for name, dims, _ in _SHAPE.findall(instruction.shape)]
        size = max(parts) if kind == "all-gather" else size // (2 if kind == "collective-permute" else 1)
    return size * group if kind == "reduce-scatter" else size


def _between_slices(send: Instruction, count: int) -> Collective | None:
    """The exchange between slices that a host's part of it starts; None for what is sent for another reason."""
    found, sent = BETWEEN_SLICES.search(send.rest), _SHAPE.search(send.shape)
    if not found or not sent:
        return None
    kind, slices = found.group(2).lower().replace("_", "-"), found.group(1).count(",") + 1
    return Collective(kind, size_of(sent.group()), count, slices, (SLICE,), send.op_name)


def _group(rest: str) -> tuple[int, tuple[str, ...]]:
    """(chips that take part, names of the mesh's axes) of a collective."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found.group(1))}
        axes = re.findall(r"'([^']+)'", found.group(2))
        return math.prod(sizes.get(axis, 1) for axis in axes), tuple(axes)
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(found.group(2)), ()
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(found.group(1).split(",")), ()
    return 1, ()
