"""Whether explanations are right, and what they cost, on the machine at hand.

    python -m experiments.device_check                  # on an accelerator: minutes of compilation
    python -m experiments.device_check --networks ViT-S/16 --dtypes float32
    python -m experiments.device_check --quick          # tiny networks: a minute on a CPU
    python -m experiments.device_check --cross-lower    # for GPU and TPU, where there is neither

Every preset on ResNet-50 and ViT-S in float32 and bfloat16, parameters drawn at random:

* value: largest difference of the explained function's value from the function's own, over the
  largest value; 0 is bit for bit. Programs that XLA fuses otherwise may differ by rounding.
* gradient: the same of the preset `gradient` from input times `jax.grad`.
* completeness: largest |sum(R) - (f(x) - f(x0))| over the largest value, where there is a baseline:
  another picture. In bfloat16 the value itself has an error of 0.002 to 0.02.
* seconds: of one explanation, over those of `jax.grad`; best of several.

Programs of a network in a dtype are traced one after the other and compiled beside each other;
times are taken when these are there. The table is written as Markdown, by the name of the card,
after each of them: what a time limit cuts off is the rest. Most of the time is compilation, more so
where XLA tries all algorithms (`XLA_FLAGS=--xla_gpu_autotune_level=0` keeps it from that, and
kernels slower).

Of float32 numbers accelerators may multiply the first bits alone; the environment variable
`JAX_DEFAULT_MATMUL_PRECISION=highest` asks for all, and is in the table's title.

Cross-lowering exports each program by `jax.export` for CUDA and TPU, which needs no such device: it
shows that everything has a lowering there, and how long the program is. It does not run anything.
"""

import argparse
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from experiments import command
from experiments.benchmark import AGAINST_BASELINE, RULES, report
from experiments.data import records
from experiments.networks import ResNet, ResNet50, ViT, ViTS
from jaxrel import rulesets

RESULTS = Path(__file__).parent / "results"

PRESETS = {**RULES, "deeplift_reveal_cancel": rulesets.deeplift_reveal_cancel()}
COMPARED = (*AGAINST_BASELINE, "deeplift_reveal_cancel")

NETWORKS = {"ResNet-50": (ResNet50(), 224, 8), "ViT-S/16": (ViTS(), 224, 8)}
"""Network, side of its pictures, and how many of them."""

TINY = {
    "ResNet tiny": (ResNet(depths=(1,), width=4, classes=5), 32, 2),
    "ViT tiny": (ViT(depth=1, width=16, heads=2, patch=8, classes=5), 32, 2),
}

COLUMNS = ("network", "dtype", "rules", "value", "gradient", "completeness", "seconds")


class Case(NamedTuple):
    """One function of parameters, pictures and reference, to be explained in one dtype.

    Attributes:
        network: Its name.
        dtype: Of parameters and pictures.
        fun: `fun(variables, x)`: one logit for each picture.
        operands: Variables, pictures, reference; or their shapes.
    """

    network: str
    dtype: Any
    fun: Callable[[Any, jax.Array], jax.Array]
    operands: tuple[Any, jax.Array, jax.Array]


DTYPES = ("float32", "bfloat16")


def cases(
    networks: dict[str, Any], shapes_only: bool, dtypes: Sequence[str] = DTYPES
) -> Iterator[Case]:
    """Makes each network in each dtype."""
    for name, (network, side, count) in networks.items():
        x, x0 = jax.random.normal(jax.random.key(1), (2, count, side, side, 3))
        initial = functools.partial(jax.eval_shape if shapes_only else _run, network.init)
        operands = initial(jax.random.key(0), x), x, x0
        for dtype in map(jnp.dtype, dtypes):
            cast = functools.partial(_cast, dtype, shapes_only)

            def fun(variables: Any, x: jax.Array, network=network) -> jax.Array:
                return network.apply(variables, x)[:, 0]

            yield Case(name, dtype, fun, jax.tree.map(cast, operands))


def _run(fun: Callable[..., Any], *args: Any) -> Any:
    return jax.jit(fun)(*args)


def _cast(dtype: Any, shapes_only: bool, a: Any) -> Any:
    return jax.ShapeDtypeStruct(a.shape, dtype) if shapes_only else a.astype(dtype)


def programs(case: Case) -> dict[str, Callable[..., tuple[jax.Array, ...]]]:
    """The functions to compile: value, gradient, and value and relevance by each preset."""

    def value(variables: Any, x: jax.Array, x0: jax.Array) -> tuple[jax.Array, ...]:
        return case.fun(variables, x), case.fun(variables, x0)

    def gradient(variables: Any, x: jax.Array, x0: jax.Array) -> tuple[jax.Array, ...]:
        out, pullback = jax.vjp(lambda x: case.fun(variables, x), x)
        return out, x * pullback(jnp.ones_like(out))[0]

    def explained(name: str) -> Callable[..., tuple[jax.Array, ...]]:
        def explain(variables: Any, x: jax.Array, x0: jax.Array) -> tuple[jax.Array, ...]:
            baseline = x0 if name in COMPARED else None
            explain = jaxrel.value_and_relevance(case.fun, PRESETS[name], 1, baseline=baseline)
            return explain(variables, x)

        return explain

    return {"value": value, "jax.grad": gradient, **{name: explained(name) for name in PRESETS}}


def compiled(case: Case, workers: int) -> dict[str, Any]:
    """Traces the programs of a case in turn and compiles them beside each other."""
    report(f"{case.network}, {jnp.dtype(case.dtype).name}: tracing")
    with ThreadPoolExecutor(workers) as pool:
        futures = {
            name: pool.submit(jax.jit(f).lower(*case.operands).compile)
            for name, f in programs(case).items()
        }
        return {name: future.result() for name, future in futures.items()}


def seconds(program: Callable[..., Any], operands: tuple, repeats: int) -> float:
    """How long one run takes, best of `repeats` after one that is not counted."""
    jax.block_until_ready(program(*operands))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(program(*operands))
        best = min(best, time.perf_counter() - start)
    return best


def check(case: Case, made: dict[str, Any], repeats: int) -> Iterator[dict[str, Any]]:
    """Runs the programs of a case; yields a row for each preset, and one for `jax.grad`."""
    value, value0 = (_array(v) for v in made["value"](*case.operands))
    _, expected = (_array(v) for v in made["jax.grad"](*case.operands))
    base = seconds(made["jax.grad"], case.operands, repeats)
    place = {"network": case.network, "dtype": jnp.dtype(case.dtype).name}
    yield {**place, "rules": "jax.grad (absolute)", "seconds": base}
    for name in PRESETS:
        out, found = (_array(v) for v in made[name](*case.operands))
        row = {**place, "rules": name, "value": _apart(out, value)}
        if name == "gradient":
            row["gradient"] = _apart(found, expected)
        if name in COMPARED:
            missed = found.sum(tuple(range(1, found.ndim))) - (value - value0)
            row["completeness"] = float(np.max(np.abs(missed)) / np.max(np.abs([value, value0])))
        row["seconds"] = seconds(made[name], case.operands, repeats) / base
        row["finite"] = bool(np.isfinite(found).all())
        yield row


def _array(value: jax.Array) -> np.ndarray:
    return np.asarray(value.astype(jnp.float32)).astype(np.float64)


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def cross_lower(all_cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """Exports every preset for CUDA and TPU; yields a row with the size of each program."""
    for case in all_cases:
        made = programs(case)
        for name in ("jax.grad", *PRESETS):
            report(f"{case.network}, {jnp.dtype(case.dtype).name}: {name}")
            start = time.process_time()
            exported = jax.export.export(jax.jit(made[name]), platforms=("cuda", "tpu"))
            program = exported(*case.operands)
            yield {
                "network": case.network,
                "dtype": jnp.dtype(case.dtype).name,
                "rules": name,
                "cuda, tpu: bytes": len(program.mlir_module_serialized),
                "seconds": time.process_time() - start,
            }


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Formats rows as a Markdown table."""

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)

    lines = [columns, ["---"] * len(columns), *([cell(r.get(c)) for c in columns] for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    parser = command.parser("device_check", __doc__)
    parser.add_argument("--networks", metavar="NAMES", help="comma-separated (default: all)")
    parser.add_argument(
        "--dtypes", metavar="NAMES", default=",".join(DTYPES), help="default: %(default)s"
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks")
    parser.add_argument("--cross-lower", action="store_true", help="export for cuda and tpu only")
    parser.add_argument("--workers", type=int, default=16, help="compilations at once")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the best counts")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory of the table")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Checks, prints the table and writes it."""
    known = TINY if options.quick else NETWORKS
    networks = command.names("--networks", options.networks or ",".join(known), known)
    dtypes = command.names("--dtypes", options.dtypes, DTYPES)
    output = records.folder(options.output)
    made = cases({name: known[name] for name in networks}, options.cross_lower, dtypes)
    tiny = " quick" if options.quick else ""
    if options.cross_lower:
        columns = ("network", "dtype", "rules", "cuda, tpu: bytes", "seconds")
        write = _Table(output, f"cross-lowered{tiny}", columns)
        write(list(cross_lower(list(made))))
        print(write.text)
        return
    write = _Table(output, jax.devices()[0].device_kind + tiny, COLUMNS)
    for case in made:
        rows = list(check(case, compiled(case, options.workers), options.repeats))
        infinite = [row["rules"] for row in rows if not row.get("finite", True)]
        report(f"not finite: {', '.join(infinite)}" if infinite else "all finite")
        write(rows)
    print(write.text)


class _Table:
    """A file that is written anew whenever there are more rows.

    Args:
        folder: Its place.
        card: The title, and the file's name.
        columns: Of the table.
    """

    def __init__(self, folder: Path, card: str, columns: Sequence[str]):
        self.columns, self.start = columns, time.perf_counter()
        self.rows: list[dict[str, Any]] = []
        slug = re.sub(r"\W+", "_", card).strip("_").lower()
        self.path = folder / f"device_check_{slug}.md"
        precision = jax.config.jax_default_matmul_precision or "default"  # pyright: ignore
        self.title = f"{card}, jax {jax.__version__}, matmul precision {precision}"
        if flags := os.environ.get("XLA_FLAGS"):
            self.title += f", {flags}"
        self.text = ""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds rows."""
        self.rows += rows
        took = f"{time.perf_counter() - self.start:.0f} s in all"
        self.text = f"{self.title}, {took}\n\n{table(self.rows, self.columns)}\n"
        self.path.write_text(self.text)


main = command.main(_parser, _check)

if __name__ == "__main__":
    sys.exit(main())
