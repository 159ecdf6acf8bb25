"""What is not live and yet another at the baseline: masks, one-hots, counts, indices, branches.

Whatever operation they enter by, relevance adds up to f(x) - f(x0), and no example gets anything
for what another one does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrel import relevance, rulesets
from jaxrel._call.arguments import Arguments
from jaxrel._execute.explanation import trace
from jaxrel._plan.axes import independent_axes
from tests.checks import assert_close

KEYS = jax.random.split(jax.random.key(0), 5)
X, X0 = jax.random.normal(KEYS[0], (4, 6)), jax.random.normal(KEYS[1], (4, 6))
W, GATES = jax.random.normal(KEYS[2], (6, 6)), jax.random.normal(KEYS[3], (6, 3))
EXPERTS = jax.random.normal(KEYS[4], (3, 6, 6))


def mask(x):
    return (x > 0).astype(x.dtype)


def experts(x):
    """Each example goes to the expert with the largest gate."""
    gates = jax.nn.softmax(x @ GATES)
    chosen = jax.nn.one_hot(gates.argmax(-1), 3)
    sent = jnp.einsum("ne,nd->end", chosen, x)
    return jnp.einsum(
        "ne,enf->nf", chosen * gates, jnp.tanh(jnp.einsum("end,edf->enf", sent, EXPERTS))
    )


def by_rank(x):
    return jnp.take_along_axis(x, jnp.argsort(x, -1), -1) * jnp.arange(6.0)


@jax.vmap
def placed(x):
    """An update at a place that the input decides."""
    return jnp.zeros(6).at[x.argmax()].add(x[0]) * jnp.arange(6.0)


def convolved(x):
    """By kernels that are masked by the input's signs."""
    kernel = (W[:, :, None] * mask(x[:1, :1])).transpose(2, 1, 0)
    return lax.conv_general_dilated(x[:, None], kernel[:1, :1, :3], (1,), "SAME")[:, 0]


def straight_through(x):
    """A rounding that the gradient does not see."""
    return (x + lax.stop_gradient(jnp.round(x) - x)) @ W


def log_products(x):
    """Products of exponentials, with the largest taken out before."""
    largest = lax.stop_gradient(x.max(-1, keepdims=True))
    return jnp.log(jnp.exp(x - largest) @ jnp.exp(W)) + largest


def scanned(x):
    """A loop in which nothing has a rule, and something moves."""
    return lax.scan(lambda h, _: (h * mask(h) - 0.1 * h, None), x, length=3)[0]


BATCHED = {
    "matmul by a mask": lambda x: jnp.einsum("nd,nd->n", x, mask(x)),
    "masked weights": lambda x: jnp.einsum("nd,ndf->nf", x, W * mask(x)[:, :, None]),
    "experts": experts,
    "scale by a count": lambda x: x * mask(x).sum(-1, keepdims=True),
    "quotient by a count": lambda x: x / (1 + mask(x).sum(-1, keepdims=True)),
    "a count is added": lambda x: x @ W + mask(x).sum(-1, keepdims=True),
    "cast to int and back": lambda x: x + x.astype(int).astype(x.dtype),
    "rank": by_rank,
    "place": placed,
    "power of a count": lambda x: jnp.abs(x) ** (1 + mask(x)),
    "bounds": lambda x: jnp.clip(x, -mask(x), 2 * mask(x[:, ::-1])),
    "straight through": straight_through,
    "log of products": log_products,
    "scan": scanned,
    "checkpoint": jax.checkpoint(experts),
}
WHOLE = {
    "index": lambda x: x[x.sum(1).argmax()] * 2,
    "slice": lambda x: lax.dynamic_slice(x, (x[:, 0].argmax(), 0), (2, 6)) @ W,
    "update": lambda x: lax.dynamic_update_slice(x, x[:1, :2] * 2, (0, x[0].argmax())) @ W,
    "groups": lambda x: jax.ops.segment_sum(x, x.argmax(1) % 2, 2) * jnp.array([[1.0], [-2.0]]),
    "where one number decides": lambda x: jnp.where(x[0, 0] > 0, x, -2 * x),
    "branch": lambda x: lax.cond(x[0, 0] > 0, lambda x: jnp.tanh(x @ W), lambda x: 3 * x, x),
    "convolution": convolved,
}


def weighed(fun: Callable) -> Callable:
    """One number that tells the results apart."""

    def value(x):
        y = fun(x)
        return y * jnp.cos(
            jnp.arange(y.size).reshape(y.shape) if y.ndim < 2 else jnp.arange(y.shape[-1])
        )

    return value


def test_relevance_adds_up() -> None:
    """For every operation alike."""
    funs = {key: weighed(fun) for key, fun in (BATCHED | WHOLE).items()}

    @jax.jit
    def run(x, x0):
        return {
            key: (relevance(fun, baseline=x0)(x).sum(), fun(x).sum() - fun(x0).sum())
            for key, fun in funs.items()
        }

    for key, (found, change) in run(X, X0).items():
        np.testing.assert_allclose(found, change, rtol=1e-11, atol=1e-12, err_msg=key)


@pytest.mark.full
def test_examples_do_not_mix() -> None:
    """A batch is explained like its examples one by one."""

    @jax.jit
    def run(x, x0):
        return {key: relevance(fun, baseline=x0)(x) for key, fun in BATCHED.items()}

    whole = run(X, X0)
    for k in range(2):
        for key, found in run(X[k : k + 1], X0[k : k + 1]).items():
            np.testing.assert_allclose(whole[key][k], found[0], rtol=1e-9, atol=1e-12, err_msg=key)


def test_nothing_to_settle_where_nothing_moves() -> None:
    """With the same mask at both points it is the rule alone."""
    near = X + 1e-3
    held = mask(X)
    for key, fun in {
        "mul": lambda m: lambda x: jnp.tanh(x * m(x) @ W),
        "dot": lambda m: lambda x: jnp.einsum("nd,ndf->nf", x, W * m(x)[:, :, None]),
    }.items():
        expected = relevance(fun(lambda _: held), baseline=near)(X)
        assert_close(relevance(fun(mask), baseline=near)(X), expected, 1e-10), key


# ------------------------------------------------------------------------ what stop_gradient hides


def test_stop_gradient_is_looked_through() -> None:
    """Against a baseline the function is explained, not what the gradient sees of it."""
    seen, hidden = (
        lambda x, stop=stop: jnp.tanh(x @ W - stop(x.mean(-1, keepdims=True))) * stop(x)
        for stop in (lambda v: v, lax.stop_gradient)
    )
    assert_close(relevance(hidden, baseline=X0)(X), relevance(seen, baseline=X0)(X))
    inside = jax.checkpoint(hidden)
    assert_close(relevance(inside, baseline=X0)(X), relevance(seen, baseline=X0)(X))


def test_the_gradient_leaves_out_what_it_is_told_to() -> None:
    """Rules that are all the gradient are ``jax.grad``, with a baseline too."""
    fun = lambda x: (x * lax.stop_gradient(jnp.tanh(x))) @ W  # noqa: E731
    expected = (X - X0) * jax.grad(lambda x: fun(x).sum())(X)
    tangents = relevance(fun, "gradient", baseline=0 * X)(X) / X
    assert_close(tangents * (X - X0), expected)


def test_what_cannot_be_explained_stays_behind() -> None:
    """A loop of unknown length, or a call that refuses to be differentiated."""

    @jax.custom_jvp
    def refuses(x):
        return x + 1

    @refuses.defjvp
    def _(primals: Any, tangents: Any):
        raise RuntimeError("not to be differentiated")

    def newton(x):
        x = lax.stop_gradient(x)
        return lax.while_loop(lambda v: jnp.any(v > 1), lambda v: v / 2, x)

    for behind in (newton, lambda x: refuses(lax.stop_gradient(x))):
        fun = lambda x, behind=behind: x * behind(x)  # noqa: E731
        found = relevance(fun, baseline=X0)(X)
        np.testing.assert_allclose(found.sum(), (fun(X) - fun(X0)).sum(), rtol=1e-10)


def test_the_shift_of_a_softmax_gets_nothing() -> None:
    """Whether it is behind ``stop_gradient`` or not, and with no distance between two points."""
    logits = lambda x, stop: jax.nn.softmax(x @ W - stop((x @ W).max(-1, keepdims=True)))  # noqa: E731
    results = [
        relevance(lambda x, stop=stop: logits(x, stop) @ W, baseline=X0)(X)
        for stop in (lambda v: v, lax.stop_gradient, lambda v: 0 * v)
    ]
    for found in results[:2]:
        assert_close(found, results[2], 1e-10)


# --------------------------------------------------------------------------------- independent axes

B = jnp.ones((2, 3, 4))
STEPS = {
    "dot_general": (lambda x: jnp.einsum("bij,bkj->bik", x, jnp.cos(B)), (0, 1, None)),
    "from the right": (lambda x: jnp.einsum("bkj,bij->bki", jnp.cos(B), x), (0, 2, None)),
    "conv": (
        lambda x: lax.conv_general_dilated(x, jnp.ones((5, 3, 2)), (1,), "SAME"),
        (0, None, None),
    ),
    "kernel": (
        lambda x: lax.conv_general_dilated(jnp.ones((7, 3, 6)), x, (1,), "SAME"),
        (1, None, None),
    ),
    "broadcast": (lambda x: jnp.broadcast_to(x[:, None], (2, 5, 3, 4)), (0, 2, 3)),
    "reshape": (lambda x: x.reshape(2, 12), (0, None, None)),
    "reshape behind": (lambda x: x.reshape(6, 4), (None, None, 1)),
    "transpose": (lambda x: x.transpose(2, 0, 1), (1, 2, 0)),
    "slice": (lambda x: lax.slice(x, (0, 1, 0), (2, 2, 4)), (0, None, 2)),
    "sum": (lambda x: x.sum(1), (0, None, 1)),
    "running": (lambda x: jnp.cumsum(x, 1), (0, None, 2)),
    "pad": (lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0))), (0, None, 2)),
    "concatenate": (lambda x: jnp.concatenate([x, B], 1), (0, None, 2)),
    "rev": (lambda x: x[:, ::-1], (0, None, 2)),
    "gather": (lambda x: x[:, jnp.array([0, 2])], (0, None, 2)),
    "along": (lambda x: jnp.take_along_axis(x, jnp.zeros((2, 3, 4), int), 2), (0, 1, None)),
    "scatter": (lambda x: jnp.zeros((2, 9, 4)).at[:, jnp.array([1, 5, 2])].add(x), (0, None, 2)),
    "update": (lambda x: lax.dynamic_update_slice(x, B[:, :1], (0, 1, 0)), (0, None, 2)),
    "dynamic_slice": (lambda x: lax.dynamic_slice(x, (0, 1, 0), (2, 1, 4)), (0, None, 2)),
    "elementwise": (lambda x: jnp.where(B > 2, x, 3 * x), (0, 1, 2)),
}


@pytest.mark.parametrize("name", STEPS)
def test_axes_that_are_independent(name: str) -> None:
    """They are as told, and by the derivative nothing crosses them."""
    fun, expected = STEPS[name]
    x = jax.random.normal(KEYS[0], B.shape)
    plan, _ = trace(Arguments(fun, (x,), {}, 0))
    (value,) = plan.inputs
    goes: dict[int, Any] = {value: (0, 1, 2)}
    for step in plan.steps:
        for k in step.live:
            axes = independent_axes(step, k)
            before = goes[step.operands[k]]
            goes[step.results[0]] = tuple(None if a is None else axes[a] for a in before)
    found = goes[plan.outputs[0]]
    assert found == expected
    derivative = np.abs(np.asarray(jax.jacobian(fun)(x)))
    for a, b in enumerate(found):
        if b is not None:
            axis = derivative.ndim - x.ndim + a
            summed = derivative.sum(tuple(k for k in range(derivative.ndim) if k not in (b, axis)))
            assert not np.any(summed - np.diag(np.diag(summed))), (name, a, b)


# ------------------------------------------------------------------------------ nothing to explain

EMPTY = {
    "dense": lambda x: jnp.tanh(x @ jnp.ones((3, 2)) + 1),
    "maximum": lambda x: jnp.max(x, 0, initial=-1.0),
    "running maximum": lambda x: lax.cummax(x),
    "product": lambda x: jnp.prod(x.ravel()),
    "total": lambda x: jax.nn.logsumexp(x, 0),
    "loop": lambda x: lax.scan(lambda h, t: (jnp.tanh(h + t), h), jnp.ones(3), x)[0],
    "mask": lambda x: x * mask(x),
}


@pytest.mark.parametrize("name", EMPTY)
def test_arrays_without_elements(name: str) -> None:
    """Nothing gets nothing, by every rule."""
    x = jnp.zeros((0, 3))
    for rules, how in (
        ("slope", {}),
        ("epsilon_plus_flat", {"biases": True}),
        (None, {"baseline": 0.0}),
        (rulesets.deeplift_reveal_cancel(), {"baseline": 0.0}),
    ):
        found = relevance(EMPTY[name], rules, **how)(x)
        assert jax.tree.leaves(found)[0].shape == x.shape
