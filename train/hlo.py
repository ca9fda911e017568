"""What a compiled program does, by its text: collectives and matrix products, loops counted.

XLA's own cost analysis counts the body of a loop once; a scanned model is nearly all loop. Here an
instruction counts as often as the loops around it turn, where the program says how often: the loop
over optimizer steps, whose length is an argument, counts once, so all is per step. No jax here.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2,
    "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8,
}  # fmt: skip
_INTEGERS = ("s32", "s64", "u32", "u64")
_HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{\s*$")
_KINDS = "|".join((*COLLECTIVES, "while", "dot", "convolution", "custom-call"))
_INSTRUCTION = re.compile(
    rf"^\s*(?:ROOT )?%([\w.\-]+) = (.*?) (({_KINDS})(?:-start)?|[a-z][\w\-]*)\((.*)$"
)
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"([a-z]+\d+|pred)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One collective of the program: how often a step runs it, and what each time moves.

    `sent_bytes`: what a device sends over its links, by the ring algorithm of n devices.

    Source: Thakur et al. 2005, Int. J. High Perf. Comput. Appl. 19(1), section 4, for the rings.
    """

    kind: str
    n_devices: int
    n_times: int
    sent_bytes: int


@dataclass(frozen=True)
class _Instruction:
    name: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    opcode: str
    rest: str


class Program:
    """A compiled module's text, taken apart."""

    def __init__(self, text: str):
        self._computations: dict[str, list[_Instruction]] = {}
        self._entry = ""
        inside: list[_Instruction] = []
        for line in text.splitlines():
            if head := _HEAD.match(line):
                inside = self._computations[head[2]] = []
                self._entry = head[2] if head[1] else self._entry
            elif found := _INSTRUCTION.match(line):
                name, shape, opcode, _, rest = found.groups()
                inside.append(_Instruction(name, _shapes(shape), opcode, rest))

    def collectives(self) -> list[Collective]:
        """All collectives of a step; one that the compiler has cut into pieces is one."""
        found: dict[str, Collective] = {}
        for _, instruction, n_times in self._executed(self._entry, 1):
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                channel = re.search(r"channel_id=(\d+)", instruction.rest)
                key = channel[1] if channel else instruction.name
                found.setdefault(key, _collective(kind, instruction, n_times))
        return list(found.values())

    def product_flops(self) -> int:
        """FLOPs of the matrix products of a step on one device, 2 per multiply-add.

        What custom calls compute, such as fused attention, is not among them.
        """
        total = 0
        for computation, instruction, n_times in self._executed(self._entry, 1):
            if instruction.opcode in ("dot", "convolution"):
                total += n_times * self._flops(computation, instruction)
        return total

    def n_custom_calls(self, target: str) -> int:
        """How many calls of a target the program holds."""
        called = (i for body in self._computations.values() for i in body)
        return sum(f'custom_call_target="{target}"' in i.rest for i in called)

    def _executed(self, name: str, n_times: int) -> Iterator[tuple[str, _Instruction, int]]:
        for instruction in self._computations.get(name, []):
            yield name, instruction, n_times
            turns = self._turns(instruction) if instruction.opcode == "while" else 1
            called = _CALLED.findall(instruction.rest)
            for branches in _BRANCHES.findall(instruction.rest):
                called += [branch.strip().lstrip("%") for branch in branches.split(",")]
            for inner in called:
                yield from self._executed(inner, n_times * turns)

    def _turns(self, loop: _Instruction) -> int:
        """Of a loop that counts from 0 up to a constant; 1 if it does not say how far."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(known[1])
        called = dict(re.findall(r"(condition|body)=%([\w.\-]+)", loop.rest))
        condition, body = (self._computations.get(called[k], []) for k in ("condition", "body"))
        # A condition without a constant of its own compares with an argument.
        limits = list(_int_constants(condition).values())
        place = [i.rest for i in condition if i.opcode == "get-tuple-element"]
        if not limits or len(place) != 1:
            return max(limits, default=1)
        index = int(re.findall(r"index=(\d+)", place[0])[0])
        return math.ceil(max(limits) / _step(body, index))

    def _flops(self, computation: str, product: _Instruction) -> int:
        shapes = {i.name: i.shapes for i in self._computations[computation]}
        (_, left), (_, right) = (shapes[name][0] for name in _operands(product)[:2])
        out = math.prod(product.shapes[0][1])
        if product.opcode == "dot":
            axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", product.rest)
            contracted = [int(axis) for axis in axes[1].split(",") if axis] if axes else []
            return 2 * out * math.prod(left[axis] for axis in contracted)
        return _convolution_flops(product, left, right)


def _int_constants(body: Sequence[_Instruction]) -> dict[str, int]:
    scalars = {((kind, ()),) for kind in _INTEGERS}
    constants = [i for i in body if i.opcode == "constant" and i.shapes in scalars]
    return {i.name: int(i.rest.split(")")[0]) for i in constants}


def _step(body: Sequence[_Instruction], index: int) -> int:
    """What a turn of a loop adds to an entry of its tuple: 2 where the compiler unrolled it."""
    constants = _int_constants(body)
    after = _operands(body[-1])[index]
    added = [_operands(i) for i in body if i.name == after and i.opcode == "add"]
    return max((constants.get(name, 0) for pair in added for name in pair), default=0) or 1


def _operands(instruction: _Instruction) -> list[str]:
    return re.findall(r"%([\w.\-]+)", instruction.rest.split(")")[0])


def _shapes(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(
        (kind, tuple(int(n) for n in sizes.split(",") if n)) for kind, sizes in _ARRAY.findall(text)
    )


def _convolution_flops(product: _Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Of a convolution, as which a TPU writes every product; padding is not counted."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", product.rest)
    assert labels is not None
    of_left, of_right, of_out = labels.groups()
    out = product.shapes[0][1]
    n_batch, n_out = out[of_out.index("b")], out[of_out.index("f")]
    total = 2 * n_batch * n_out * right[of_right.index("i")]
    for axis in sorted(set(of_out) - {"b", "f"}):
        window = {
            name: values.split("x")
            for name, values in re.findall(r"(\w+)=([\dx_\-]+)", _window(product.rest))
        }
        k = int(axis)
        total *= _valid_pairs(
            left[of_left.index(axis)], right[of_right.index(axis)], out[of_out.index(axis)],
            int(window.get("stride", [1] * 9)[k]),
            int(window.get("pad", ["0_0"] * 9)[k].split("_")[0]),
            int(window.get("lhs_dilate", [1] * 9)[k]), int(window.get("rhs_dilate", [1] * 9)[k]),
        )  # fmt: skip
    return total


def _window(rest: str) -> str:
    found = re.search(r"window=\{([^}]*)\}", rest)
    return found[1] if found else ""


def _valid_pairs(
    n_left: int, n_window: int, n_out: int, stride: int, pad: int, spread: int, reach: int
) -> int:
    """Pairs of an output and a place of the window that fall on an input, not on padding."""
    places = (o * stride + w * reach - pad for o in range(n_out) for w in range(n_window))
    return sum(0 <= p <= (n_left - 1) * spread and p % spread == 0 for p in places)


def _collective(kind: str, instruction: _Instruction, n_times: int) -> Collective:
    sizes = [_BYTES.get(dtype, 4) * math.prod(shape) for dtype, shape in instruction.shapes]
    is_started = instruction.opcode.endswith("-start")
    if kind == "all-gather" and is_started:
        n_bytes = max(sizes)
    elif kind == "collective-permute":
        n_bytes = sizes[0]
    else:
        n_bytes = sum(sizes)
    n = _group_size(instruction.rest)
    around = (n - 1) / n if n else 0
    sent = {
        "all-gather": n_bytes * around,
        "all-reduce": 2 * n_bytes * around,
        "reduce-scatter": n_bytes * (n - 1),
        "all-to-all": n_bytes * around,
        "collective-permute": n_bytes,
    }[kind]
    return Collective(kind, n, n_times, round(sent))


def _group_size(rest: str) -> int:
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r"source_target_pairs=\{([^a-z]*)\}", rest):
        return found[1].count("{")
    return 1
