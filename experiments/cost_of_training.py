"""What a training step with relevance costs, over a plain one and over a gradient penalty's.

    python -m experiments.cost_of_training
    python -m experiments.cost_of_training --networks cnn --repeats 100

Every step is a forward pass, a gradient by the parameters, and an update by Adam. The penalty that
others are compared with is right for the right reasons (Ross et al. 2017), by double
backpropagation in plain JAX. FLOPs are XLA's own count for the compiled program. Seconds are
paired: the steps take turns, each time another one begins, and a ratio is the median over the
turns, so that what else the machine does falls on all alike.

    gradient penalty    squared gradients outside of the mask
    slope, lrp, epsilon_plus    absolute relevance outside
    recipe, as relevance    compared with the swapped background: the squared sum outside, and the
                        counterfactual task loss
    recipe              the same with `outside_only=True`
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from experiments import command
from experiments.backgrounds import animals
from experiments.backgrounds.network import CHANNELS, KERNELS, Network
from experiments.networks.efficientnet import EfficientNetLite0
from jaxrel import training

PLAIN, PENALTY = "plain", "gradient penalty"
_RULES = ("slope", "lrp", "epsilon_plus")
STEPS = (PLAIN, PENALTY, *_RULES, "recipe, as relevance", "recipe")


class Small(nn.Module):
    """`experiments.backgrounds.network.Network` with flax's own convolutions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (N, H, W, C) to (N, 2) logits."""
        for width, size in zip(CHANNELS, KERNELS, strict=True):
            x = nn.relu(nn.Conv(width, (size, size), 2)(x))
        return nn.Dense(2)(x.reshape(len(x), -1))


NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "cnn": (Small(), (64, 28, 28, 1), "a CNN of three convolutions, 64 x 28 x 28"),
    "patches": (Network(), (64, 28, 28, 1), "the same by patches and matrices"),
    "efficientnet": (
        EfficientNetLite0(classes=2),
        (8, 96, 96, 3),
        "EfficientNet-Lite0, 8 x 96 x 96",
    ),
}
"""A network, the shape of a batch, and what it is called."""


class Batch(NamedTuple):
    """What a step sees: half of each picture is object."""

    x: jax.Array
    reference: jax.Array
    labels: jax.Array
    masks: jax.Array


class Cost(NamedTuple):
    """Of one step.

    Attributes:
        seconds: Of each turn.
        flops: XLA's count.
    """

    seconds: list[float]
    flops: float


Apply = Callable[[Any, jax.Array], jax.Array]
Loss = Callable[[Any, Batch], jax.Array]


def losses(apply: Apply) -> dict[str, Loss]:
    """The loss of each step, by the names above."""

    def plain(params: Any, batch: Batch) -> jax.Array:
        return _task(apply(params, batch.x), batch.labels)

    def penalty(params: Any, batch: Batch) -> jax.Array:
        def value(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = apply(params, x)
            return training.margin(logits, batch.labels).sum(), logits

        slope, logits = jax.grad(value, has_aux=True)(batch.x)
        return _task(logits, batch.labels) + 0.1 * training.right_reasons(slope, batch.masks).mean()

    def relevance(rules: str, penalised: training.loss.Penalty, **options: Any) -> Loss:
        compared = rules == "compare_to_baseline"
        loss = training.relevance_loss(apply, rules, penalised, weight=0.1, **options)
        return lambda params, batch: loss(
            params,
            batch.x,
            batch.labels,
            batch.masks,
            baseline=batch.reference if compared else None,
        )[0]

    recipe = ("compare_to_baseline", training.outside_sum_squared)
    found: dict[str, Loss] = {PLAIN: plain, PENALTY: penalty}
    for rules in _RULES:
        found[rules] = relevance(rules, training.outside_absolute)
    found["recipe, as relevance"] = relevance(*recipe, counterfactual=1.0)
    found["recipe"] = relevance(*recipe, counterfactual=1.0, outside_only=True)
    return found


def _task(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def measure(
    network: nn.Module, shape: tuple[int, ...], repeats: int, steps: Sequence[str] = STEPS
) -> dict[str, Cost]:
    """Compile steps, then let them take turns.

    Args:
        network: From pictures to two logits.
        shape: Of a batch.
        repeats: How many turns; 0 counts FLOPs alone.
        steps: Which of `STEPS`; the plain one and the gradient penalty's are among them.
    """
    x = jax.random.uniform(jax.random.key(0), shape)
    masks = jnp.zeros((*shape[:3], 1)).at[:, :, : shape[2] // 2].set(1)
    reference = training.on_background(x, masks, x[::-1])
    batch = Batch(x, reference, jnp.arange(len(x)) % 2, masks)
    variables: Any = jax.jit(network.init)(jax.random.key(1), x)
    params, kept = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    optimizer = optax.adam(1e-3)
    state = optimizer.init(params)

    def apply(params: Any, x: jax.Array) -> Any:
        return network.apply({"params": params, **kept}, x)

    def compiled(loss: Loss) -> Any:
        def step(params: Any, state: Any, batch: Batch) -> Any:
            updates, changed = optimizer.update(jax.grad(loss)(params, batch), state)
            return optax.apply_updates(params, updates), changed

        return jax.jit(step).lower(params, state, batch).compile()

    programs: dict[str, Any] = {}
    known = losses(apply)
    for name in steps:
        print(f"compiling {name}", file=sys.stderr, flush=True)
        programs[name] = compiled(known[name])
    found = {name: Cost([], program.cost_analysis()["flops"]) for name, program in programs.items()}
    for turn in range(repeats + 1 if repeats else 0):
        names = list(programs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            jax.block_until_ready(programs[name](params, state, batch))
            if turn:  # the first warms up
                found[name].seconds.append(time.perf_counter() - start)
    return found


def table(costs: dict[str, Cost]) -> str:
    """As Markdown: each step over the plain one, and over the gradient penalty's."""
    head = ["step", "ms", "seconds / plain", "/ penalty", "FLOPs / plain", "/ penalty"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, cost in costs.items():
        cells = [name, f"{1000 * statistics.median(cost.seconds):.1f}" if cost.seconds else ""]
        for over in (PLAIN, PENALTY):
            turns = zip(cost.seconds, costs[over].seconds, strict=True)
            ratios = [mine / other for mine, other in turns]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        cells += [f"{cost.flops / costs[over].flops:.2f}" for over in (PLAIN, PENALTY)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("cost_of_training", __doc__)
    parser.add_argument("--networks", metavar="NAMES", default=",".join(NETWORKS))
    parser.add_argument(
        "--without", metavar="STEP", nargs="*", default=[], choices=STEPS[2:], help="leave out"
    )
    parser.add_argument("--repeats", type=int, default=20, help="turns (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the tables to this file as well")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    if options.repeats < 0:
        raise ValueError(f"--repeats: expected 0 or more, got {options.repeats}")
    if options.output:
        command.writable(options.output)
    text = f"jax {jax.__version__}, {jax.default_backend()}, {options.repeats} turns\n"
    for name in command.names("--networks", options.networks, NETWORKS):
        network, shape, called = NETWORKS[name]
        steps = [step for step in STEPS if step not in options.without]
        text += f"\n{called}\n\n{table(measure(network, shape, options.repeats, steps))}\n"
    print(text)
    if options.output:
        options.output.write_text(text)


main = command.main(_parser, _run)

if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", str(animals.default_cache() / "compiled"))
    sys.exit(main())
