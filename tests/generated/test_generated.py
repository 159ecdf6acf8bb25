"""The invariants on programs drawn at random; one that fails is printed as small as it can be made.

Each program is held to one invariant after the other in turn, so that each invariant sees a share
of them; with `--full` ten times as many programs are drawn.
"""

import numpy as np
import pytest

from tests.covering import case
from tests.generated.invariants import INVARIANTS, failure, inputs
from tests.generated.program import Program, generate, shrink

PROGRAMS, FULL = 60, 2000


def held_to(seed: int):
    """Every invariant sees even and odd seeds, which draw from different lines."""
    return INVARIANTS[seed // 2 % len(INVARIANTS)]


@pytest.mark.parametrize("seed", [case(k, full=k >= PROGRAMS) for k in range(FULL)])
def test_generated_program(seed: int) -> None:
    invariant = held_to(seed)
    program = generate(seed)
    if failure(program, invariant) is None:
        return
    small = shrink(program, lambda p: failure(p, invariant) is not None)
    what = f"{invariant.__name__}: {invariant.__doc__}\n{failure(small, invariant)}"
    pytest.fail(f"{what}\n\n{small.script()}", pytrace=False)


def test_programs_are_the_same_every_time() -> None:
    drawn = [[generate(seed).source for seed in range(3)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len({generate(seed).source for seed in range(10)}) == 10


def test_a_printed_program_runs_on_its_own() -> None:
    program = generate(1)
    names: dict = {}
    exec(compile(program.script(), "<script>", "exec"), names)
    np.testing.assert_array_equal(names["program"](names["x"]), program.compile()(inputs()[0]))


def test_a_failing_program_is_made_small() -> None:
    """A fault that one line has, wherever it stands, is found in that line alone."""

    def fails(program: Program) -> bool:
        return any("tanh" in step.text for step in program.steps)

    found = 0
    for seed in range(20):
        program = generate(seed)
        if fails(program):
            small = shrink(program, fails)
            assert len(small.steps) == 1 and fails(small)
            assert small.steps[0].reads == (0, 0)
            found += 1
    assert found > 3
