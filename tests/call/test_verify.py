"""`verify` holds on what is true, and finds what is not: claims are made false here one by one."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

import jaxrel
from jaxrel._call.arguments import Arguments
from jaxrel._execute.explanation import trace
from jaxrel.verify import examine

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 4)))
W = jnp.asarray(RNG.normal(size=(4, 4)))


def attention(x):
    shares = jax.nn.softmax(jnp.where(np.tri(3, dtype=bool), x @ W @ x.T, -jnp.inf))
    return shares @ x


def over_shards(x):
    mesh = Mesh(np.array(jax.devices()[:2]), ("m",))
    specs = PartitionSpec(None, "m"), PartitionSpec("m", None)

    def layer(x, w):
        return lax.psum(jnp.tanh(x) @ w, "m")

    return jax.shard_map(layer, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())(x, W)


HOLDS: dict[str, Callable] = {
    "layer": lambda x: jax.nn.relu(x @ W + 1),
    "attention": attention,
    "complex scales": lambda x: jnp.real(x @ W / 3 * (2 - 1j) * 1j + jnp.fft.fft(x @ W * 2j)),
    "complex channels": lambda x: jnp.imag((x @ W) * jnp.arange(4) * (1 + 2j) / (1 - 1j)),
    "masked": lambda x: jax.nn.softmax(x, where=np.tri(3, 4, dtype=bool), axis=0) @ W,
    "shares": lambda x: jax.nn.logsumexp(x, 0) + jnp.exp(x).sum(0) / jnp.exp(x).sum(),
    "norms": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5),
    "maxima": lambda x: jnp.maximum(x @ W, x).max(0) * lax.cummax(x, 0)[-1],
    "sorted": lambda x: jnp.sort(x, 0) - lax.top_k(x, 1)[0],
    "solution": lambda x: jnp.linalg.solve(x @ x.T + jnp.eye(3), x[:, 0]),
    "constants": lambda x: jnp.round(x) * x + lax.stop_gradient(x * x) * jnp.argmax(x),
    "complex": lambda x: jnp.abs(jnp.fft.fft(x)),
    "loop": lambda x: lax.scan(lambda h, w: (jnp.sin(h @ w), h), x, jnp.stack([W] * 5)),
    "backwards": lambda x: lax.scan(lambda h, w: (h + w, h * w), x, x[0], reverse=True)[0],
    "branch": lambda x: lax.cond(x[0, 0] > 0, jax.nn.silu, lambda x: x @ W, x),
    "shards": over_shards,
}


@pytest.mark.parametrize("name", HOLDS)
def test_holds_on_what_is_true(name: str) -> None:
    found = jaxrel.verify(HOLDS[name])(X)
    assert found.ok and found, str(found)
    assert str(found) == f"{found.claims} claims of {found.steps} steps hold"
    assert found.claims > found.steps > 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounding_is_no_finding(dtype) -> None:
    def fun(x):
        x = jax.nn.gelu(x @ W.astype(dtype)) / 3 + x
        return jax.nn.softmax(x).sum(0)

    found = jaxrel.verify(fun)(X.astype(dtype))
    assert found.ok, str(found)


def changed(fun: Callable, operation: str, **fields):
    """The plan of a function with something else claimed of the steps of one operation."""
    plan, _ = trace(Arguments(fun, (X,), {}, 0))
    steps = tuple(
        dataclasses.replace(step, **fields) if step.operation == operation else step
        for step in plan.steps
    )
    assert steps != plan.steps
    return examine(dataclasses.replace(plan, steps=steps), {}, [[X]])


FALSE: list[tuple[str, Callable, str, dict]] = [
    ("x >= 0", lambda x: x @ W, "dot_general", {"nonneg": (True,)}),
    ("f(2x) = 2 f(x), f'(x) x = f(x)", jnp.tanh, "tanh", {"homogeneous": True}),
    ("f(x + y) + f(0) = f(x) + f(y)", jnp.tanh, "tanh", {"kind": "linear"}),
    ("f(x + y) + f(0) = f(x) + f(y)", lambda x: x * x[0], "mul", {"kind": "sum"}),
    ("elementwise", lambda x: jnp.cumsum(x, 0), "cumsum", {"kind": "nonlinearity"}),
    ("bilinear", lambda x: x / x[0], "div", {"kind": "product"}),
    ("y b = a", lambda x: x * x[0], "mul", {"kind": "quotient"}),
    ("a constant: nothing live is left out", jnp.tanh, "tanh", {"kind": "constant"}),
    ("the gradient through the plan is jax.grad", jnp.tanh, "tanh", {"kind": "constant"}),
]


@pytest.mark.parametrize(("claim", "fun", "operation", "fields"), FALSE)
def test_finds_what_is_false(claim: str, fun: Callable, operation: str, fields: dict) -> None:
    found = changed(fun, operation, **fields)
    assert not found.ok and not found
    wrong = {finding.claim: finding for finding in found.findings}
    assert claim in wrong
    assert wrong[claim].error > 1e-3
    assert claim in str(found) and "do not hold" in str(found)


def test_a_finding_says_where() -> None:
    def fun(x):
        with jax.named_scope("Block_0"):
            return jnp.tanh(x)

    (finding,) = changed(fun, "tanh", homogeneous=True).findings
    assert (finding.path, finding.kind, finding.operation) == ("Block_0", "nonlinearity", "tanh")
    assert "test_verify.py" in finding.source


@pytest.mark.parametrize("iteration", [0, 4])
def test_the_first_and_the_last_iteration_are_looked_at(iteration: int) -> None:
    """A claim that fails in one iteration only: a value that is negative there."""
    signs = jnp.ones(5).at[iteration].set(-1)

    def fun(x):
        return lax.scan(lambda h, s: (h, jnp.tanh(s * jnp.abs(x))), x, signs)[1]

    plan, _ = trace(Arguments(fun, (X,), {}, 0))
    (loop,) = (step for step in plan.steps if step.kind == "control")
    (body,) = loop.bodies
    inner = tuple(
        dataclasses.replace(step, nonneg=(True,)) if step.operation == "tanh" else step
        for step in body.steps
    )
    loop = dataclasses.replace(loop, bodies=(dataclasses.replace(body, steps=inner),))
    steps = tuple(loop if step.kind == "control" else step for step in plan.steps)
    found = examine(dataclasses.replace(plan, steps=steps), {}, [[X]])
    assert [finding.claim for finding in found.findings] == ["x >= 0"]


def test_against_a_baseline_claims_hold_there_too() -> None:
    plan, _ = trace(Arguments(jnp.tanh, (X,), {}, 0))
    (step,) = plan.steps
    plan = dataclasses.replace(plan, steps=(dataclasses.replace(step, nonneg=(True,)),))
    assert examine(plan, {}, [[jnp.abs(X)]])
    assert not examine(plan, {}, [[jnp.abs(X)], [X]])
    found = jaxrel.verify(HOLDS["norms"], baseline=1.0)(X)
    assert found.ok, str(found)


def test_traced_arguments_raise() -> None:
    with pytest.raises(TypeError, match="verify looks at numbers.*outside of jit"):
        jax.jit(lambda x: jaxrel.verify(jnp.tanh)(x).claims)(X)


def test_arguments_are_checked_as_those_of_relevance() -> None:
    with pytest.raises(TypeError, match="dtype int"):
        jaxrel.verify(jnp.sin)(jnp.arange(3))
    with pytest.raises(ValueError, match="out of range"):
        jaxrel.verify(jnp.sin, argnums=1)(X)
