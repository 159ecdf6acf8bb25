"""Random programs: drawn from a seed, printed as source, and made small where they fail."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.generated.menu import MENU, PRELUDE, Line
from tests.generated.piecemeal import piecemeal


@dataclasses.dataclass(frozen=True)
class Step:
    """One line with its arguments.

    Attributes:
        line: What it is drawn from.
        reads: The values it reads; 0 is the program's argument, k the result of its k-th step.
        text: The line, with its constants in place, `{a}` and `{b}` still open.
    """

    line: Line
    reads: tuple[int, int]
    text: str


@dataclasses.dataclass(frozen=True)
class Program:
    """Steps, the last of which is the result; and the seed they were drawn from."""

    steps: tuple[Step, ...]
    seed: int = 0

    @property
    def source(self) -> str:
        """The function as Python."""
        lines = ["def program(v0):"]
        for k, step in enumerate(self.steps, 1):
            a, b = (f"v{read}" for read in step.reads)
            lines.append(f"    v{k} = {step.text.replace('{a}', a).replace('{b}', b)}")
        return "\n".join([*lines, f"    return v{len(self.steps)}"])

    def script(self, dtype: str = "float64") -> str:
        """All that is needed to run it, on `x`, and against the baseline `x0`."""
        head = f"import jax\n\njax.config.update('jax_enable_x64', True)\ndtype = '{dtype}'"
        return f"{head}\n{PRELUDE}\n\n{self.source}\n"

    def compile(self, dtype: Any = jnp.float64) -> Callable:
        """The function, with constants of this dtype."""
        names = dict(namespace(jnp.dtype(dtype).name))
        exec(compile(self.source, "<generated program>", "exec"), names)
        return names["program"]

    def all(self, fact: str) -> bool:
        """Whether something is true of every line."""
        return all(getattr(step.line, fact) for step in self.steps)

    @property
    def sharded(self) -> bool:
        """Whether it runs on several devices."""
        return any(step.line.sharded for step in self.steps)

    def without(self, k: int) -> "Program":
        """The program whose k-th step is its first argument instead."""
        instead = self.steps[k - 1].reads[0]

        def moved(read: int) -> int:
            read = instead if read == k else read
            return read - 1 if read > k else read

        kept = [
            dataclasses.replace(step, reads=(moved(step.reads[0]), moved(step.reads[1])))
            for number, step in enumerate(self.steps, 1)
            if number != k
        ]
        return dataclasses.replace(self, steps=tuple(kept))

    def smaller(self) -> Iterator["Program"]:
        """Programs with less in them: the first half, one step less, one value less."""
        for size in range(1, len(self.steps)):
            yield dataclasses.replace(self, steps=self.steps[:size])
        for k in range(len(self.steps), 0, -1):
            if len(self.steps) > 1:
                yield self.without(k)
        for k, step in enumerate(self.steps):
            if step.reads != (0, 0):
                steps = list(self.steps)
                steps[k] = dataclasses.replace(step, reads=(0, 0))
                yield dataclasses.replace(self, steps=tuple(steps))


@cache
def namespace(dtype: str) -> dict[str, Any]:
    """What a program can name: constants of one dtype and a few functions."""
    names: dict[str, Any] = {"dtype": dtype}
    exec(compile(PRELUDE, "<prelude of generated programs>", "exec"), names)
    return names


def inputs(dtype: Any = jnp.float64) -> tuple[Any, Any]:
    """The argument, and a baseline."""
    names = namespace(jnp.dtype(dtype).name)
    return names["x"], names["x0"]


def generate(seed: int) -> Program:
    """Draws a program of 5 to 40 steps whose values are neither large nor all the same.

    Every second one is made of lines that conserve.
    """
    rng = np.random.default_rng(seed)
    weights = np.array([weight for weight, _ in MENU])
    size = 5 + int(36 * rng.random() ** 3)
    values, steps = [inputs()[0]], []
    while len(steps) < size:
        kind = MENU[rng.choice(len(MENU), p=weights / weights.sum())][1]
        line = kind[rng.integers(len(kind))]
        if seed % 2 and not line.conserves:
            continue
        # mostly what was made last, so that programs are deep; what nobody reads is dead code
        reads = tuple(max(0, len(values) - 1 - int(rng.exponential(scale))) for scale in (0.5, 2.0))
        step = Step(line, (reads[0], reads[1]), _constants(line.text, rng))
        made = _value(step, values)
        if made is not None:
            values.append(made)
            steps.append(step)
    return Program(tuple(steps), seed)


def _constants(text: str, rng: np.random.Generator) -> str:
    for name, count in (("W", 3), ("c", 3), ("K", 2)):
        text = re.sub(rf"\{{{name}\}}", lambda _: f"{name}{rng.integers(count)}", text)  # noqa: B023
    return text


def _value(step: Step, values: list[Any]) -> Any:
    """What a step makes; None where that is of no use."""
    text = step.text.replace("{a}", "v_a").replace("{b}", "v_b")
    names = namespace("float64")

    def run(v_a: Any, v_b: Any) -> Any:
        return eval(text, names | {"v_a": v_a, "v_b": v_b})

    compiled = jax.jit(run) if step.line.sharded else piecemeal(run)
    made = np.asarray(compiled(*(values[read] for read in step.reads)))
    size = np.abs(made).max()
    spread = made.std()
    usable = made.shape == (4, 4) and np.isfinite(size) and size < 20 and spread > 1e-2
    return jnp.asarray(made) if usable else None


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """The smallest program found that still fails, by leaving out and reading less."""
    for _ in range(200):
        for candidate in program.smaller():
            if fails(candidate):
                program = candidate
                break
        else:
            return program
    return program
