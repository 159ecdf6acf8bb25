"""A small figure of each rule, for the reference: what it does to one step.

    python -m experiments.rule_figures --output pictures

Bars are relevance of the inputs of one step; dashed, gradient x input. Curves are the multiplier
that an input gets; dashed, the gradient. `EXAMPLES` says of which step, at which numbers.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrel
from experiments import command
from experiments.data import records
from jaxrel import RuleSet, rules

RED, BLUE, GREY = "#b2182b", "#2166ac", "#555555"
_SIZE, _DPI = (1.5, 0.9), 100

Curves = dict[str, tuple[np.ndarray, np.ndarray]]


class Bars(NamedTuple):
    """Relevance of the inputs of a step.

    Attributes:
        fun: From a vector to a number.
        x: Where it is explained.
        x0: What it is compared with; None: with nothing.
    """

    fun: Callable[[jax.Array], jax.Array]
    x: tuple[float, ...]
    x0: tuple[float, ...] | None = None

    def of(self, chosen: RuleSet) -> np.ndarray:
        """The relevance of each input."""
        base = None if self.x0 is None else jnp.array(self.x0)
        return np.asarray(jaxrel.relevance(self.fun, chosen, baseline=base)(jnp.array(self.x)))


class Slopes(NamedTuple):
    """The multiplier of an elementwise step, as a function of its input.

    Attributes:
        fun: Elementwise.
        x0: What it is compared with; None: with nothing.
    """

    fun: Callable[[jax.Array], jax.Array]
    x0: float | None = None

    def of(self, chosen: RuleSet) -> np.ndarray:
        """The multipliers on `GRID`."""
        explain = jaxrel.relevance(lambda x: self.fun(x).sum(), chosen, baseline=self.x0)
        return np.asarray(explain.multipliers(jnp.asarray(GRID)))


class Signals(NamedTuple):
    """The multiplier of an elementwise step, as a function of the one that arrives.

    Attributes:
        fun: Elementwise.
        x: Where it is explained.
    """

    fun: Callable[[jax.Array], jax.Array]
    x: float

    def of(self, chosen: RuleSet) -> np.ndarray:
        """The multipliers for what arrives on `GRID`."""
        x = jnp.full(GRID.shape, self.x)
        _, pullback = jaxrel.relevance_vjp(self.fun, x, rules=chosen)
        return np.asarray(pullback(jnp.asarray(GRID))[0]) / self.x


Shown = Bars | Slopes | Signals

GRID = np.linspace(-3, 3, 61) + 0.01  # the rules of a kink are not shown on it

_WEIGHTS = jnp.array([1.5, 1.0, -1.0, 0.5, -0.5])
_UNIT = Bars(lambda x: (x @ _WEIGHTS[:, None])[0], (1.0, 2.0, 1.0, -1.0, -1.0))
_POSITIVE = _UNIT._replace(x=(1.0, 2.0, 1.5, 0.5, 1.0))
_PLACES = Bars(lambda x: (x @ (2 * jnp.eye(4))).sum(), (2.0, 1.0, -1.0, 0.5))
_LARGEST = Bars(jnp.max, (3.0, 2.0, 1.0, -1.0))
_PRODUCT = Bars(lambda x: x[0] ** 2 * x[1], (2.0, 1.0))
_ATTENTION = Bars(
    lambda x: jax.nn.softmax(x) @ jnp.array([1.0, -1.0, 0.0]), (2.0, 1.0, -1.0), (0.0, 0.0, 0.0)
)
_NORM = Bars(lambda x: x[0] / jnp.sqrt((x**2).mean()), (2.0, 1.0, -1.0))
_SUM_OF_TWO = Bars(lambda x: jax.nn.relu(x.sum()), (3.0, -2.0), (0.0, 0.0))

EXAMPLES: dict[str, tuple[str, Any, Shown]] = {
    **{
        type(rule).__name__: ("matmul", rule, _UNIT)
        for rule in (
            rules.Gradient(),
            rules.Epsilon(1.0),
            rules.Normalized(1.0),
            rules.GeneralizedGamma(1.0),
            rules.AlphaBeta(),
            rules.ZPlus(),
            rules.Absolute(),
            rules.WSquare(),
            rules.Flat(),
            rules.ZBox(-2.0, 2.0),
        )
    },
    "Gamma": ("matmul", rules.Gamma(1.0), _POSITIVE),
    "PositiveWeights": ("matmul", rules.PositiveWeights(), _POSITIVE),
    "Norm": ("linear", rules.Norm(1.0), Bars(jnp.sum, _UNIT.x)),
    "Pass": ("matmul", rules.Pass(), _PLACES),
    "Slope": ("nonlinearity", rules.Slope(), Slopes(jax.nn.softplus)),
    "Rescale": ("nonlinearity", rules.Rescale(), Slopes(jax.nn.softplus, -1.0)),
    "RevealCancel": ("nonlinearity", rules.RevealCancel(), _SUM_OF_TWO),
    "Ignore": ("nonlinearity", rules.Ignore(), Slopes(jax.nn.softplus)),
    "Repeat": ("nonlinearity", rules.Repeat(), Signals(jax.nn.relu, 1.0)),
    "GuidedRelu": ("nonlinearity", rules.GuidedRelu(), Signals(jax.nn.relu, 1.0)),
    "BetaSmooth": ("nonlinearity", rules.BetaSmooth(2.0), Slopes(jax.nn.relu)),
    "Radial": ("maximum", rules.Radial(), _LARGEST),
    "Shapley": ("maximum", rules.Shapley(), _LARGEST),
    "SoftmaxLimit": ("maximum", rules.SoftmaxLimit(1.0), _LARGEST),
    "AbsoluteValue": ("maximum", rules.AbsoluteValue(), _LARGEST),
    "CrossMax": ("maximum", rules.CrossMax(), _LARGEST._replace(x0=(0.0, 2.5, 0.0, 0.0))),
    "ByDegree": ("product", rules.ByDegree(), _PRODUCT),
    "Half": ("product", rules.Half(), _PRODUCT),
    "First": ("product", rules.First(), _PRODUCT),
    "Second": ("product", rules.Second(), _PRODUCT),
    "Midpoint": ("product", rules.Midpoint(), _PRODUCT._replace(x0=(1.0, 0.5))),
    "Detach": ("normalization", rules.Detach(), _NORM),
    "LogMean": ("softmax", rules.LogMean(), _ATTENTION),
    "Tempered": ("softmax", rules.Tempered(2.0), _ATTENTION._replace(x0=None)),
    "PathIntegral": ("other", rules.PathIntegral(), Bars(jnp.prod, (2.0, 1.0, 0.5))),
}
"""Of each rule the kind of step, its hyper-parameters and the step."""


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = command.parser("rule_figures", __doc__)
    command.add_folder(parser, "rule_figures", "the figures")
    return parser


def _run(options: argparse.Namespace) -> None:
    """Do what the command line asks; an error if it asks the impossible."""
    output = records.folder(options.output)
    for name in EXAMPLES:
        draw(output / f"{name}.png", name)
    print(f"wrote {len(EXAMPLES)} figures to {output}")


def numbers(name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a rule makes of its example, and what the gradient does."""
    kind, rule, shown = EXAMPLES[name]
    plain = shown if isinstance(shown, Signals) else shown._replace(x0=None)
    return shown.of(RuleSet(**{kind: rule})), plain.of(jaxrel.rulesets.gradient())


def draw(path: Path, name: str) -> None:
    """Draw the figure of a rule."""
    from matplotlib.figure import Figure

    found, gradient = numbers(name)
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    dashed: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1}
    if isinstance(EXAMPLES[name][2], Bars):
        places = np.arange(len(found))
        axes.bar(places, found, 0.7, color=[RED if r > 0 else BLUE for r in found])
        box = {"color": "none", "edgecolor": GREY, "linestyle": ":", "linewidth": 1}
        axes.bar(places, gradient, 0.9, **box)
    else:
        axes.plot(GRID, gradient, **dashed)
        axes.plot(GRID, found, color=RED, linewidth=1.5)
        axes.axvline(0, color=GREY, linewidth=0.5)
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.set_axis_off()
    figure.savefig(path)


main = command.main(_parser, _run)

if __name__ == "__main__":
    sys.exit(main())
