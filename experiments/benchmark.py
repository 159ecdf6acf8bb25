"""What an explanation costs, as a ratio to `jax.grad` of the same function.

    python -m experiments.benchmark
    python -m experiments.benchmark --models resnet50 vgg16 --rules all --seconds
    python -m experiments.benchmark --flipping

FLOPs and temporary memory are XLA's own counts for the compiled program, exact and repeatable.
Times of tracing and lowering are CPU time, the best of several, JAX's caches emptied in between.
Parameters are arguments of the compiled function, as a user's would be, and not constants in it.
"""

import argparse
import functools
import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxrel
from experiments import command
from experiments.networks import VGG16, Decoder, ResNet50, ViTS
from experiments.networks.efficientnet import EfficientNetLite0
from jaxrel import RuleSet, metrics, rulesets
from jaxrel.rules import Gamma

BOX = (-2.2, 2.7)  # ImageNet pixels after the usual normalisation

RULES: dict[str, RuleSet] = {
    "gradient": rulesets.gradient(),
    "slope": rulesets.slope(),
    "lrp": rulesets.lrp(),
    "epsilon": rulesets.epsilon(),
    "deconvnet": rulesets.deconvnet(),
    "guided_backprop": rulesets.guided_backprop(),
    "epsilon_plus": rulesets.epsilon_plus(),
    "epsilon_plus_flat": rulesets.epsilon_plus_flat(),
    "epsilon_alpha2_beta1": rulesets.epsilon_alpha2_beta1(),
    "epsilon_alpha2_beta1_flat": rulesets.epsilon_alpha2_beta1_flat(),
    "epsilon_gamma_box": rulesets.epsilon_gamma_box(*BOX),
    "gamma": RuleSet(matmul=Gamma()),
    "excitation_backprop": rulesets.excitation_backprop(),
    "deep_taylor": rulesets.deep_taylor(*BOX),
    "attn_lrp": rulesets.attn_lrp(),
    "cp_lrp": rulesets.cp_lrp(),
    "gim": rulesets.gim(),
    "compare_to_baseline": rulesets.compare_to_baseline(),
    "deeplift_rescale": rulesets.deeplift_rescale(),
}
AGAINST_BASELINE = ("compare_to_baseline", "deeplift_rescale")


class Deep(nn.Module):
    """A hundred dense layers with one activation function.

    Attributes:
        activation: The name of a function of `flax.linen`.
    """

    activation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, features) to the same."""
        kernels = self.param("kernels", nn.initializers.normal(0.3), (x.shape[-1], x.shape[-1]))
        for _ in range(100):
            x = getattr(nn, self.activation)(x @ kernels)
        return x


IMAGES = (8, 224, 224, 3)
MODELS: dict[str, tuple[Any, tuple[int, ...], bool]] = {
    "resnet50": (ResNet50(), IMAGES, True),
    "vgg16": (VGG16(), IMAGES, True),
    "vit_s": (ViTS(), IMAGES, True),
    "decoder48": (Decoder(depth=48, heads=4, vocabulary=256), (2, 32, 64), False),
    "scan4": (Decoder(depth=4, heads=4, vocabulary=256, scan=True), (2, 32, 64), False),
    "scan96": (Decoder(depth=96, heads=4, vocabulary=256, scan=True), (2, 32, 64), True),
    **{f"{name}100": (Deep(name), (2, 8), False) for name in "tanh softplus elu gelu".split()},
}
"""Network, shape of its input, and whether it is compiled: the others are only traced."""

COLUMNS = ("model", "rules", "flops", "memory", "trace", "seconds", "lowered bytes")


def measure(
    explain: Callable, operands: tuple, *, compiled: bool, seconds: bool
) -> dict[str, float]:
    """Traces, lowers and compiles a function and returns what that and the result cost.

    Args:
        explain: A function of `operands`.
        operands: Parameters and input; shapes are enough unless `seconds`.
        compiled: Whether to compile, for FLOPs and memory.
        seconds: Whether to run it too, best of three.

    Returns:
        `trace` in seconds, `lowered bytes` of the program's text, and where asked for `flops`,
        `memory` in bytes, `seconds`.
    """
    times = []
    for _ in range(2 if compiled else 5):
        jax.clear_caches()
        gc.collect()
        start = time.process_time()
        lowered = jax.jit(explain).lower(*operands)
        times.append(time.process_time() - start)
    found = {"trace": min(times), "lowered bytes": float(len(lowered.as_text()))}
    if not compiled:
        return found
    program = lowered.compile()
    analysis: Any = program.memory_analysis()
    costs: Any = program.cost_analysis()
    found["flops"] = costs["flops"]
    found["memory"] = float(analysis.temp_size_in_bytes)
    if seconds:
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(program(*operands))
            runs.append(time.perf_counter() - start)
        found["seconds"] = min(runs)
    return found


def compare(name: str, rules: Sequence[str], seconds: bool) -> list[dict[str, Any]]:
    """Measures the gradient and each rule set on one model; returns rows of ratios."""
    network, shape, compiled = MODELS[name]
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables: Any = jax.eval_shape(network.init, jax.random.key(0), x)
    if seconds and compiled:
        x = jax.random.normal(jax.random.key(1), shape)
        variables = jax.jit(network.init)(jax.random.key(0), x)

    def logits(variables: Any, x: jax.Array) -> jax.Array:
        return network.apply(variables, x)[:, 0]

    def gradient(variables: Any, x: jax.Array) -> jax.Array:
        return x * jax.grad(lambda x: logits(variables, x).sum())(x)

    def against(rules: RuleSet) -> Callable:
        """The reference is an argument: a constant one would be folded into the program."""
        return lambda variables, x, x0: jaxrel.relevance(logits, rules, 1, baseline=x0)(
            variables, x
        )

    run = functools.partial(measure, compiled=compiled, seconds=seconds)
    report(f"{name}: jax.grad")
    base = run(gradient, operands=(variables, x))
    rows: list[dict[str, Any]] = [{"model": name, "rules": "jax.grad (absolute)", **base}]
    for rule in rules:
        report(f"{name}: {rule}")
        if rule in AGAINST_BASELINE:
            cost = run(against(RULES[rule]), operands=(variables, x, x))
        else:
            explain = jaxrel.relevance(logits, RULES[rule], argnums=1)
            cost = run(explain, operands=(variables, x))
        ratios = {key: cost[key] / base[key] for key in cost if key != "lowered bytes"}
        rows.append(
            {"model": name, "rules": rule, **ratios, "lowered bytes": cost["lowered bytes"]}
        )
    return rows


def flipping(examples: int = 32, steps: int = 100) -> str:
    """What pixel flipping costs on EfficientNet-Lite0, beside its forward passes.

    XLA counts the body of a loop once. What it has is the difference between two steps at once and
    one; all the rest is outside.
    """
    network = EfficientNetLite0()
    x = jax.ShapeDtypeStruct((examples, 224, 224, 3), jnp.float32)
    relevance = jax.ShapeDtypeStruct(x.shape[:-1], jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)

    def logit(variables: Any, x: jax.Array) -> jax.Array:
        return network.apply(variables, x)[:, 0]  # type: ignore[return-value, index]

    def curve(chunk: int) -> Callable:
        return lambda variables, x, relevance: metrics.pixel_flipping(
            lambda x: logit(variables, x), x, relevance, steps=2 * chunk - 1, chunk=chunk
        )

    def flops(fun: Callable, *operands: Any) -> float:
        costs: Any = jax.jit(fun).lower(*operands).compile().cost_analysis()
        return costs["flops"]

    forward = flops(logit, variables, x)
    one, two = (flops(curve(chunk), variables, x, relevance) for chunk in (1, 2))
    total = one + steps * (two - one)
    return (
        f"pixel flipping, {examples} pictures, {steps} steps: {total:.4g} FLOPs, "
        f"{total / ((steps + 1) * forward):.4f} of those of {steps + 1} forward passes"
    )


def report(text: str) -> None:
    """Tells on standard error what is being done."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats rows as a Markdown table."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}" if value < 1e3 else f"{value:.4g}"
        return "" if value is None else str(value)

    lines = [COLUMNS, tuple("---" for _ in COLUMNS)]
    lines += [tuple(cell(row.get(column)) for column in COLUMNS) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    parser = command.parser("benchmark", __doc__)
    names = [*RULES, "all"]
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rules", nargs="+", choices=names, default=["slope", "lrp", "epsilon"])
    parser.add_argument("--seconds", action="store_true", help="time the compiled programs too")
    parser.add_argument("--flipping", action="store_true", help="what pixel flipping costs, alone")
    parser.add_argument("--output", type=Path, help="write the table to this file as well")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Measures, and prints the table."""
    if options.output:
        command.writable(options.output)
    if options.flipping:
        print(flipping())
        return
    rules = list(RULES) if "all" in options.rules else options.rules
    rows = [row for name in options.models for row in compare(name, rules, options.seconds)]
    text = f"jax {jax.__version__}, {jax.default_backend()}\n\n{table(rows)}"
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
