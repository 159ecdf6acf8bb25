"""Does relevance tell what patching does? `python -m experiments.patching`.

Patching puts the output of one component (attention or MLP of a layer) at one position of the clean
run into the corrupt run, and asks how much of the answer comes back: one forward pass for each of
120 patches. Relevance patching estimates all of them from two forward passes and one backward:
(a - a0) m, where a is the clean value, a0 the corrupt one, m the multiplier of a rule set at the
corrupt run (Jafari et al. 2025; with the gradient: attribution patching, Nanda 2023).

The network is all-MiniLM-L6-v2, the answer the similarity to "The animal runs outside."; clean is
"A dog is running on the grass.", corrupt "A wolf is running in the snow.". One case, float64; other
sentences may be given, the first two of as many tokens.

The table has Pearson correlations with the true effects over all patches, attention alone and MLP
alone, and the error (norm of the difference over that of the effects). First presets; then the
gradient with one rule exchanged at a time; then rules with the clean run as their second point; at
last the mean of the gradients along a patch (all positions of a component moved together), and the
gradient half-way of what attention reads alone: what acts within a position (the other layers, and
the mean of all positions, of which one moves) is computed, by some forward passes for a component.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import jaxrel
from experiments import command
from experiments.data import records
from experiments.networks.minilm import LAYERS, MiniLM, encode, load_tokenizer, load_variables
from jaxrel import rules as r

CLEAN, CORRUPT, THIRD = (
    "A dog is running on the grass.",
    "A wolf is running in the snow.",
    "The animal runs outside.",
)
LAST = f"layer_{LAYERS - 1}"
COMPONENTS = [f"layer_{k}/{kind}" for k in range(LAYERS) for kind in ("attention", "mlp")]
Values = Mapping[str, jax.Array]


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("patching", __doc__)
    command.add_folder(parser, "patching", "patching.csv and patching.json")
    for name, default in (("clean", CLEAN), ("corrupt", CORRUPT), ("third", THIRD)):
        parser.add_argument(
            f"--{name}", metavar="SENTENCE", default=default, help="default: %(default)s"
        )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Compare the estimates with the patches, and write the table."""
    output = records.folder(options.output)
    with jax.enable_x64(True):
        case = Case(options.clean, options.corrupt, options.third)
    rows = []
    with jax.enable_x64(True):
        effects = case.effects()
        for name, estimate in estimates(case):
            rows.append((name, *scores(estimate, effects)))
            print(f"{name:36s}" + "".join(f"{x:9.4f}" for x in rows[-1][1:]), flush=True)
    records.write_table(
        output / "patching.csv", ("multipliers", "all", "attention", "mlp", "error"), rows
    )
    records.write_origin(
        output / "patching.json",
        "python -m experiments.patching",
        clean=options.clean,
        corrupt=options.corrupt,
        third=options.third,
    )


class Case:
    """The three sentences, what components give in both runs, and the patches.

    Raises:
        ValueError: The first two have different numbers of tokens.

    Attributes:
        clean: (1, tokens) ids of the clean sentence.
        corrupt: (1, tokens) ids of the corrupt one.
        old: Corrupt output of each component and of the last layer, (1, tokens, 384).
        deltas: Clean minus corrupt output of each component.
    """

    def __init__(self, clean: str = CLEAN, corrupt: str = CORRUPT, third: str = THIRD):
        tokenizer, weights = load_tokenizer(), load_variables()
        self.variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), weights)
        self.clean, self.corrupt, other = (
            jnp.asarray(encode(tokenizer, sentence)[1]) for sentence in (clean, corrupt, third)
        )
        if self.clean.shape != self.corrupt.shape:
            raise ValueError(
                f"--clean has {self.clean.size} tokens, --corrupt {self.corrupt.size}; a patch is "
                "from one to the same place in the other"
            )
        self.third = jnp.asarray(MiniLM().apply(self.variables, other))[0]
        _, new = jaxrel.capture(self.answer, COMPONENTS)(self.clean)
        _, self.old = jaxrel.capture(self.answer, [*COMPONENTS, LAST])(self.corrupt)
        self.deltas = {place: new[place] - self.old[place] for place in COMPONENTS}

    def answer(self, ids: jax.Array) -> jax.Array:
        """Similarity to the third sentence, (1,)."""
        return jnp.asarray(MiniLM().apply(self.variables, ids)) @ self.third

    def moved(self, added: Values, held: Collection[str] = ()) -> jax.Array:
        """The answer of the corrupt run where something is added to components or layers, ().

        What is held gives what it gives in the corrupt run, and is not computed.
        """

        def add(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            place = "/".join(context.module.path)
            out = self.old[place] if place in held else call(*args, **kwargs)
            return out + added[place] if place in added else out

        with nn.intercept_methods(add):
            return self.answer(self.corrupt)[0]

    def effects(self) -> np.ndarray:
        """What each patch does to the answer, (12 components, tokens), by 120 forward passes."""
        shape = (len(COMPONENTS), self.corrupt.shape[1])

        def patched(mask: jax.Array) -> jax.Array:
            masks = dict(zip(COMPONENTS, mask[..., None], strict=True))
            return self.moved({place: masks[place] * self.deltas[place] for place in COMPONENTS})

        masks = jnp.eye(shape[0] * shape[1]).reshape(-1, *shape)
        found = jax.jit(lambda masks: jax.lax.map(patched, masks, batch_size=12))(masks)
        return np.asarray(found - self.moved({})).reshape(shape)

    def patch(self, m: Values) -> np.ndarray:
        """Estimate all effects by multipliers, (12, tokens)."""
        return np.stack([(m[p] * self.deltas[p])[0].sum(-1) for p in COMPONENTS])

    def multipliers(self, rules: jaxrel.RuleSet, compared: bool) -> Values:
        """Multipliers at the corrupt run; compared: between it and the clean run."""
        baseline = self.clean if compared else None
        fun = jaxrel.relevance(
            self.answer, rules, argnums=(), at=COMPONENTS, baseline=baseline
        ).multipliers
        return jax.jit(fun)(self.corrupt)

    def along(self, times: Any, weights: Any) -> Values:
        """Weighted gradients along the way of each component from corrupt to clean."""
        gradient = jax.jit(jax.grad(self.moved))
        none = {place: jnp.zeros_like(delta) for place, delta in self.deltas.items()}
        found = dict(none)
        for place in COMPONENTS:
            for time, weight in zip(times, weights, strict=True):
                here = gradient(none | {place: time * self.deltas[place]})[place]
                found[place] += weight * here
        return found

    def through_attention(self, place: str) -> np.ndarray:
        """Estimate the patches of a component, (tokens,): the gradient, but of attention alone.

        The component moves in a run whose later attention is held, so that a position changes
        by itself; what attention reads of these changes has the multiplier half-way.
        """
        layers = range(int(place.split("/")[0].removeprefix("layer_")), LAYERS)
        held = [f"layer_{k}/attention" for k in layers[1:]]
        read_as = {f"layer_{k}": f"layer_{k + 1}/attention:in" for k in layers[:-1]}
        delta = self.deltas[place]

        @jax.jit
        def within(added: jax.Array) -> Values:
            fun = lambda a: self.moved({place: a}, held)[None]  # noqa: E731
            return jaxrel.capture(fun, [*read_as, LAST])(added)[1]

        before, after = within(jnp.zeros_like(delta)), within(delta)
        change = {name: after[name] - before[name] for name in after}
        masks = jnp.eye(delta.shape[1])[:, None, :, None]
        at_last = jax.jit(lambda mask: self.moved({LAST: mask * change[LAST]}, {LAST}))
        found = jax.lax.map(at_last, masks) - self.moved({})
        if not read_as:
            return np.asarray(found)
        places = list(read_as.values())
        fun = jaxrel.relevance(lambda a: self.moved({place: a})[None], "gradient", at=places)
        _, m = jax.jit(fun.multipliers)(delta / 2)
        pairs = ((m[read], change[given]) for given, read in read_as.items())
        return np.asarray(found + sum((a * b)[0].sum(-1) for a, b in pairs))


def estimates(case: Case) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, estimated effects) for every row of the table."""
    gradient, slope = jaxrel.rulesets.gradient(), jaxrel.rulesets.slope()
    change = dataclasses.replace
    plain, secant = r.Gradient(), r.Midpoint()
    at_corrupt = {
        "gradient": gradient,
        "slope": slope,
        "cp_lrp": jaxrel.rulesets.cp_lrp(),
        "slope, norms by the gradient": change(slope, normalization=plain, quotient=plain),
        "gradient, softmax constant": change(gradient, softmax=r.Detach()),
        "gradient, norms constant": change(gradient, normalization=r.Detach(), quotient=r.Detach()),
        "gradient, gelu by its slope": change(gradient, nonlinearity=r.Slope()),
        "gradient, products halved": change(gradient, product=r.Half()),
    }
    against_clean = {
        "compare_to_baseline": jaxrel.rulesets.compare_to_baseline(),
        "gradient, softmax by LogMean": change(gradient, softmax=r.LogMean()),
        "gradient, norms at midpoints": change(gradient, normalization=secant, quotient=secant),
        "gradient, gelu by its secant": change(gradient, nonlinearity=r.Rescale()),
        "gradient, products at midpoints": change(gradient, product=secant),
    }
    for name, rules in at_corrupt.items():
        yield name, case.patch(case.multipliers(rules, compared=False))
    for name, rules in against_clean.items():
        yield f"{name} (clean)", case.patch(case.multipliers(rules, compared=True))
    yield "gradient half-way of each component", case.patch(case.along([0.5], [1.0]))
    nodes, weights = np.polynomial.legendre.leggauss(3)
    yield "gradient along it, 3 points", case.patch(case.along((nodes + 1) / 2, weights / 2))
    through = np.stack([case.through_attention(place) for place in COMPONENTS])
    yield "half-way, of attention alone", through


def scores(estimate: np.ndarray, effects: np.ndarray) -> tuple[float, float, float, float]:
    """Pearson's correlation over all, attention, MLP; and the relative error."""
    pairs = [
        (estimate[rows], effects[rows])
        for rows in (slice(None), slice(0, None, 2), slice(1, None, 2))
    ]
    found = [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs]
    error = float(np.linalg.norm(estimate - effects) / np.linalg.norm(effects))
    return found[0], found[1], found[2], error


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
