"""Programs compiled for a TPU and a GPU that are absent keep to their bounds; what this needs is in `accelerators`.

Run it with `--devices=1 --optimised`: the parts of an axis depend on the number of devices, and the compilers obey the
flags that hurry XLA.
"""

import jax
import pytest

from bench import compiled

compiled.prepare()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in compiled.CHIPS for name, x in compiled.PROGRAMS.items() if x.bound(kind)],
)
def test_a_program_keeps_to_its_bounds(kind, name):
    assert jax.device_count() == 1
    program = compiled.PROGRAMS[name]
    (_, ours), *others = program.contenders.items()
    faults = compiled.faults(kind, program, compiled.figures(kind, ours, program.arguments))
    # A peer compiled by the same XLA shows whether the compiler has changed or we have.
    beside = {who: compiled.figures(kind, f, program.arguments) for who, f in others} if faults else {}
    assert not faults, f"{name} for {kind}: {'; '.join(faults)}; beside it {beside}"
