"""Derivatives of relevance are true: reverse mode, forward mode and finite differences agree.

A loss of the relevance, the sum of its squares under random weights, is differentiated by what is
explained, by the parameters and by the hyper-parameter of the rules, in a random direction of each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrel
from jaxrel import First, RuleSet, rules, rulesets
from tests.checks import assert_close
from tests.covering import case, every
from tests.models import NAMES, build

RULES: dict[str, Callable[[jax.Array], RuleSet]] = {
    "slope": lambda h: rulesets.slope(),
    "lrp": rulesets.lrp,
    "epsilon": rulesets.epsilon,
    "no_bias": lambda h: RuleSet(matmul=rules.Epsilon(h, bias=False)),
    "gamma": lambda h: RuleSet(matmul=rules.Gamma(h, 0.1)),
    "generalized_gamma": lambda h: RuleSet(matmul=rules.GeneralizedGamma(h, 0.1)),
    "alpha_beta": lambda h: RuleSet(matmul=rules.AlphaBeta(1 + h, h, 0.1)),
    "z_plus": lambda h: RuleSet(matmul=rules.ZPlus(h)),
    "positive_weights": lambda h: RuleSet(matmul=rules.PositiveWeights(h)),
    "relative": lambda h: RuleSet(matmul=rules.Absolute(h)),
    "relative_unscaled": lambda h: RuleSet(matmul=rules.Absolute(h, normalize=False)),
    "gim": lambda h: rulesets.gim(1 + h),
    "w_square": lambda h: rulesets.slope() | {First(): rules.WSquare(h)},
    "flat": lambda h: rulesets.slope() | {First(): rules.Flat(h)},
    "z_box": lambda h: rulesets.slope() | {First(): rules.ZBox(-4.0, 4 + h, 0.1)},
    "stable_sums": lambda h: RuleSet(sum=rules.Norm(h), linear=rules.Epsilon(h)),
    "deconvnet": lambda h: rulesets.deconvnet(),
    "guided_backprop": lambda h: rulesets.guided_backprop(),
    "ignore": lambda h: RuleSet(nonlinearity=rules.Ignore()),
    "repeat": lambda h: RuleSet(nonlinearity=rules.Repeat()),
    "pass": lambda h: RuleSet(nonlinearity=rules.Pass()),
    "beta_smooth": lambda h: RuleSet(nonlinearity=rules.BetaSmooth(h)),
    "radial": lambda h: RuleSet(maximum=rules.Radial()),
    "shapley": lambda h: RuleSet(maximum=rules.Shapley()),
    "winner": lambda h: RuleSet(maximum=rules.SoftmaxLimit()),
    "soft": lambda h: RuleSet(maximum=rules.SoftmaxLimit(h)),
    "absolute": lambda h: RuleSet(maximum=rules.AbsoluteValue()),
    "first": lambda h: RuleSet(product=rules.First()),
    "second": lambda h: RuleSet(product=rules.Second(), softmax=rules.Detach()),
    "true_parts": lambda h: RuleSet(
        product=rules.Gradient(), quotient=rules.Gradient(), normalization=rules.Gradient()
    ),
}
"""Rule sets by a hyper-parameter h, where they have one."""

# Each rule meets models that have steps of its kind; slope and lrp meet them all.
PAIRS = {
    "epsilon": "mlp decoder_scan",
    "no_bias": "cnn",
    "gamma": "densenet",
    "generalized_gamma": "mlp_gelu",
    "alpha_beta": "lax_plain resnet_basic",
    "z_plus": "mixer",
    "positive_weights": "shared_weights",
    "relative": "mlp",
    "relative_unscaled": "cnn",
    "gim": "vit lax_attention",
    "w_square": "nnx_cnn",
    "flat": "cnn",
    "z_box": "resnet_bottleneck",
    "stable_sums": "maxima siamese graph",
    "deconvnet": "mlp_mixed densenet state_space",
    "guided_backprop": "shared_weights resnet_basic control_flow",
    "ignore": "haiku_net lstm",
    "repeat": "siamese gated",
    "pass": "mlp_mixed",
    "beta_smooth": "mlp",
    "radial": "maxima cnn",
    "shapley": "maxima pytree_input",
    "winner": "maxima nnx_cnn",
    "soft": "maxima equinox_cnn",
    "absolute": "maxima lax_plain",
    "first": "gated lstm",
    "second": "gated vit",
    "true_parts": "quotients mixer lax_attention",
}

# jax.nn.dot_product_attention makes its softmax in float32, whatever the dtype.
SINGLE = ("dot_product_attention", "nnx_transformer")
DOUBLE = tuple(name for name in NAMES if name not in SINGLE)


def maxima(params: Any, x: jax.Array) -> jax.Array:
    """Every form of maximum and minimum, side by side."""
    x = x @ params["in"]
    left, right = jnp.split(x, 2, axis=1)
    window = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3), (1, 2), "SAME")
    parts = [jnp.maximum(left, right), jnp.minimum(left, -right), window]
    parts += [lax.cummax(left, axis=1), lax.cummin(right, axis=1, reverse=True)]
    parts += [x.max(axis=1, keepdims=True), x.min(axis=1, keepdims=True)]
    return jnp.tanh(jnp.concatenate(parts, axis=1)) @ params["out"]


def quotients(params: Any, x: jax.Array) -> jax.Array:
    """Quotients by live values, and softmax and its logarithm as outputs."""
    x = x @ params["in"]
    left, right = jnp.split(x, 2, axis=1)
    parts = [
        left / (2 + right**2),
        1 / (3 + left * right),
        jax.nn.softmax(x),
        jax.nn.log_softmax(x),
    ]
    return jnp.concatenate([*parts, left[:, :2] * right[:, 2:]], axis=1) @ params["out"]


def _model(name: str) -> tuple[Callable, Any, Any]:
    """A function, its parameters and its input, in float64; by the name of a model or function."""
    if name in NAMES:
        model = build(name, dtype=jnp.float64)
        return model.fun, model.params, model.x
    rng = np.random.default_rng(5)
    fun, width = {"maxima": (maxima, 22), "quotients": (quotients, 26)}[name]
    params = {"in": rng.normal(size=(6, 8)), "out": rng.normal(size=(width, 3))}
    return fun, jax.tree.map(jnp.asarray, params), jnp.asarray(rng.normal(size=(3, 6)))


def _like(tree: Any, rng: np.random.Generator) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree)


def _dot(a: Any, b: Any) -> jax.Array:
    products = jax.tree.map(lambda a, b: jnp.vdot(a, b), a, b)
    return jax.tree.reduce(jnp.add, products)


def _finite_difference(phi: Callable[[float], float], steps: Sequence[float], tolerance: float):
    """phi'(0) by central differences, extrapolated once.

    The step shrinks until two of them agree. Across a kink or a jump they do not: relu networks
    are full of those, also in their relevance.
    """
    for step in steps:
        wide, narrow = ((phi(h) - phi(-h)) / (2 * h) for h in (step, step / 2))
        if abs(wide - narrow) <= tolerance * abs(narrow):
            return (4 * narrow - wide) / 3
    raise AssertionError(f"not smooth within {steps[-1]} of 0: {wide}, {narrow}")


def _check(
    name: str,
    rules_of: Callable[[jax.Array], RuleSet],
    *,
    forward: bool = False,
    steps: Sequence[float] = (1e-4, 1e-5, 1e-6),
    tolerance: float = 1e-6,
    exact: float = 1e-11,
) -> None:
    """Compares the derivatives of a loss of relevance.

    Args:
        name: A model or function.
        rules_of: From the hyper-parameter to the rules.
        forward: Whether forward mode is compared as well.
        steps: Steps of the finite differences.
        tolerance: What these may be wrong by, relatively.
        exact: What forward and reverse mode may differ by, relatively.
    """
    fun, params, x = _model(name)
    rng = np.random.default_rng(1)
    weights = _like(x, rng)
    point = (jnp.array(0.3), params, x)
    directions = _like(point, rng)

    def loss(hyperparameter, params, x):
        result = jaxrel.relevance(fun, rules_of(hyperparameter), argnums=1)(params, x)
        return _dot(weights, jax.tree.map(jnp.square, result))

    @jax.jit
    def measured(distances):
        along = zip(point, directions, distances, strict=True)
        at = tuple(jax.tree.map(lambda p, d: p + t * d, p, d) for p, d, t in along)  # noqa: B023
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1, 2))(*at)
        reverse = [_dot(g, d) for g, d in zip(gradients, directions, strict=True)]
        together = jax.jvp(loss, at, directions)[1] if forward else sum(reverse)
        return value, reverse, together

    _, reverse, together = measured(jnp.zeros(3))
    for unit, got, by in zip(np.eye(3), reverse, ("hyper-parameter", "params", "x"), strict=True):
        phi = lambda t: float(measured(t * unit)[0])  # noqa: B023, E731
        expected = _finite_difference(phi, steps, tolerance)
        np.testing.assert_allclose(got, expected, rtol=tolerance, err_msg=by)
    np.testing.assert_allclose(together, sum(reverse), rtol=exact)
    assert reverse[2] != 0


# Slope has no steps that lrp does not have, so a few models of different kinds speak for it.
SLOPE = ("mlp_gelu", "cnn", "nnx_cnn", "pytree_input", "vit", "lstm", "decoder_scan")


@pytest.mark.parametrize("name", [case(name, full=name not in SLOPE) for name in DOUBLE])
def test_slope(name: str) -> None:
    _check(name, RULES["slope"], forward=name != "control_flow")


@pytest.mark.parametrize("name", every(3, DOUBLE))
def test_lrp(name: str) -> None:
    # control_flow has a jax.custom_vjp function, of which jax has no forward mode, explained or not
    _check(name, RULES["lrp"], forward=name != "control_flow")


@pytest.mark.parametrize(
    ("rules_name", "name"),
    [
        case(key, name, full=k > 0)
        for key, names in PAIRS.items()
        for k, name in enumerate(names.split())
    ],
)
def test_rules(rules_name: str, name: str) -> None:
    _check(name, RULES[rules_name])


@pytest.mark.parametrize("rules_name", ["slope", "lrp"])
@pytest.mark.parametrize("name", SINGLE)
def test_single_precision_within(rules_name: str, name: str) -> None:
    """Steps and tolerances are those of float32."""
    steps = (1e-3, 3e-4)
    _check(name, RULES[rules_name], forward=True, steps=steps, tolerance=1e-2, exact=1e-4)


@pytest.mark.parametrize(
    ("rules_name", "name"),
    [("lrp", "gated"), ("radial", "pytree_input"), ("second", "lax_attention")],
)
def test_jacobians_of_both_modes_are_equal(rules_name: str, name: str) -> None:
    fun, params, x = _model(name)
    explain = jaxrel.relevance(fun, RULES[rules_name](jnp.array(0.3)), argnums=1)
    forward = jax.jit(jax.jacfwd(explain, argnums=1))(params, x)
    reverse = jax.jit(jax.jacrev(explain, argnums=1))(params, x)
    assert_close(forward, reverse, 1e-11)
