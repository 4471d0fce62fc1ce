"""What a compiled program moves through the memory of a device, read from the text of XLA's optimised program.

The kernels of a program are the operations that are scheduled: those of the entry, of the bodies of loops (as often as
they run) and of called computations. A kernel reads each operand and writes each result once, as they lie in memory,
with the padding of tiles. Of an array that a kernel only takes slices of, or replaces a slice of, the slices count.
Caches are not counted; memory spaces other than the device's own, such as a TPU's VMEM, are apart.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# Operations that move nothing: names for other arrays, constants, and the ends of copies that count where they start.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "after-all", "add-dependency"}
_FREE |= {"copy-done", "slice-done", "async-done", "partition-id", "replica-id", "iota"}
_SLICES = {"slice", "dynamic-slice", "gather"}
_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}


class Array(NamedTuple):
    """An array of the program: element type, sizes, and its layout as written."""

    kind: str
    sizes: tuple[int, ...]
    layout: str

    @property
    def on_device(self) -> bool:
        """Whether it lies in the large memory of the device."""
        return "S(" not in self.layout

    @property
    def bytes(self) -> int:
        """The bytes that it takes, with the padding of the first tiling of its layout."""
        minor_first = re.match(r"\{([\d,]+)", self.layout)
        sizes = [self.sizes[int(i)] for i in minor_first[1].split(",")] if minor_first else list(self.sizes)
        tile = re.search(r"T\(([\d,]+)\)", self.layout)
        for i, n in enumerate(reversed(tile[1].split(",")) if tile else ()):
            if i < len(sizes):
                sizes[i] += -sizes[i] % int(n)
        bits = _BITS.get(self.kind) or int("0" + "".join(re.findall(r"\d+", self.kind)[:1]))
        return math.prod(sizes) * bits // 8


class Operation(NamedTuple):
    """A line of the program; of a constant or a parameter `operands` is what stands in its brackets."""

    code: str
    results: list[Array]
    operands: list[str]
    attributes: str
    root: bool

    def called(self, key: str) -> str:
        """The name of a computation that it calls."""
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


Computation = dict[str, Operation]


class Kernel(NamedTuple):
    """An operation that is scheduled: how often it runs, and bytes with the array they are part of."""

    times: int
    operation: Operation
    reads: list[tuple[int, Array]]
    writes: list[tuple[int, Array]]


class Traffic(NamedTuple):
    """Bytes read from and written to the device's memory, how many kernels run, and the loops, by number of rounds."""

    bytes: int
    kernels: int
    loops: list[int]


def _arrays(shape):
    found = re.findall(r"([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?", re.sub(r"/\*.*?\*/", "", shape))
    return [
        Array(kind, tuple(int(n.strip("<=")) for n in sizes.split(",") if n), layout) for kind, sizes, layout in found
    ]


def _closing(text, start):
    """The place behind the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth == 0:
            return i + 1
    return len(text)


def _operation(root, line):
    end = _closing(line, 0) if line[0] == "(" else line.index(" ")
    begin = line.index("(", end)
    close = _closing(line, begin)
    code, inside = line[end:begin].strip(), line[begin + 1 : close - 1]
    operands = [inside] if code in ("parameter", "constant") else re.findall(r"%([\w.\-]+)", inside)
    return Operation(code, _arrays(line[:end]), operands, line[close:], root)


def parsed(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a program by name, and the name of its entry."""
    program, entry, here = {}, "", {}
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            here = program[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif operation := re.match(r"\s+(ROOT )?%([\w.\-]+) = (.*)", line):
            here[operation[2]] = _operation(bool(operation[1]), operation[3])
    return program, entry


# ---------------------------------------------------------------- one kernel


def _bytes(arrays):
    return sum(x.bytes for x in arrays)


def _taken(program, computation, operation, at, whole):
    """The bytes that an operation takes of its operand number `at`, which has `whole` bytes."""
    if operation.code in _SLICES and at == 0:
        return _bytes(operation.results)
    if operation.code == "dynamic-update-slice" and at == 0:
        return 0
    if operation.code in ("bitcast", "get-tuple-element"):
        (name,) = (name for name, x in computation.items() if x is operation)
        return _used(program, computation, name, whole)
    inside = program.get(operation.called("calls"))
    if operation.code != "fusion" or not inside:
        return whole
    (name,) = (name for name, x in inside.items() if x.code == "parameter" and x.operands == [str(at)])
    return _used(program, inside, name, whole)


def _used(program, computation, name, whole):
    """The bytes that a computation takes of one of its values."""
    users = ((x, at) for x in computation.values() for at, operand in enumerate(x.operands) if operand == name)
    taken = (_taken(program, computation, x, at, whole) for x, at in users if x.code != "parameter")
    # A value that is returned as it is, is read as a whole.
    return whole if computation[name].root else min(whole, sum(taken))


def _written(program, computation, operation):
    """The bytes that an operation writes for each of its results."""
    if operation.code == "dynamic-update-slice":
        return [_bytes(computation[operation.operands[1]].results)]
    inside = program.get(operation.called("calls"))
    if operation.code != "fusion" or not inside:
        return [x.bytes for x in operation.results]
    (root,) = (x for x in inside.values() if x.root)
    parts = [inside[name] for name in root.operands] if root.code == "tuple" else [root]
    if len(parts) != len(operation.results):
        return [x.bytes for x in operation.results]
    found = []
    for part, result in zip(parts, operation.results, strict=True):
        while part.code in ("bitcast", "copy"):
            part = inside[part.operands[0]]
        replaced = part.code in ("fusion", "dynamic-update-slice")
        found.append(min(result.bytes, sum(_written(program, inside, part))) if replaced else result.bytes)
    return found


def _kernel(program, computation, times, operation):
    sources = [computation[name] for name in operation.operands]
    if operation.code.endswith(
        "-start"
    ):  # of a copy to or from another memory: (to, from, context) or ((from), to, ..)
        to = operation.results[0 if operation.code == "copy-start" else -2]
        return Kernel(times, operation, [(to.bytes, sources[0].results[0])], [(to.bytes, to)])
    reads = [
        (_taken(program, computation, operation, at, x.bytes) if len(source.results) == 1 else x.bytes, x)
        for at, source in enumerate(sources)
        for x in source.results
        if source.code != "constant"
    ]
    return Kernel(
        times, operation, reads, list(zip(_written(program, computation, operation), operation.results, strict=True))
    )


# ---------------------------------------------------------------- the program


def _rounds(program, loop):
    """How often a loop runs: as XLA found out, or else the constant in its condition."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    todo, limits = [loop.called("condition")], []
    while todo:
        for x in program.get(todo.pop(), {}).values():
            if x.code == "fusion":
                todo.append(x.called("calls"))
            if x.code == "constant" and x.results[0].kind == "s32":
                limits.append(int(x.operands[0]))
    return max(limits, default=1)


def kernels(program: dict[str, Computation], name: str, times: int = 1) -> Iterator[Kernel | int]:
    """The kernels of a computation; for each loop, also its number of rounds."""
    computation = program[name]
    for operation in computation.values():
        if operation.code == "while":
            rounds = _rounds(program, operation)
            yield rounds
            yield from kernels(program, operation.called("body"), times * rounds)
        elif operation.code == "conditional":  # the first branch stands for all
            names = re.findall(r"%([\w.\-]+)", operation.attributes.split("metadata=")[0])
            yield from kernels(program, next(x for x in names if x in program), times)
        elif operation.code == "call":
            yield from kernels(program, operation.called("to_apply"), times)
        elif operation.code not in _FREE and "ConcatBitcast" not in operation.attributes:
            yield _kernel(program, computation, times, operation)


def traffic(text: str) -> Traffic:
    """What a program moves."""
    found = list(kernels(*parsed(text)))
    run = [x for x in found if isinstance(x, Kernel)]
    moved = sum(x.times * sum(n for n, array in [*x.reads, *x.writes] if array.on_device) for x in run)
    return Traffic(moved, sum(x.times for x in run), [x for x in found if isinstance(x, int)])
