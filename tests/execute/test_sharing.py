"""Equal steps share one trace; unequal ones do not, and nothing outlives its explanation."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import Kind, RuleSet, rules, rulesets
from tests.checks import assert_same_bits


def layers(act, count: int):
    """A chain of equal layers."""

    def fun(x, w):
        for _ in range(count):
            x = act(x @ w)
        return x

    return fun


def unshared(rule: type) -> type:
    """The same rule, of a class made within a function: its steps are traced one by one."""

    class Local(rule):
        pass

    return Local


ACTIVATIONS = [jnp.tanh, jax.nn.softplus, jax.nn.elu, jax.nn.gelu, jax.nn.mish, jax.nn.relu]


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("baseline", [None, 0.0])
def test_equations_do_not_grow_with_the_rule(act, baseline) -> None:
    x, w = jnp.ones((2, 5)), jnp.eye(5)

    def lines(count: int, explain) -> int:
        return len(jax.jit(explain(layers(act, count))).lower(x, w).as_text().splitlines())

    def grown(explain) -> float:
        return (lines(12, explain) - lines(4, explain)) / 8

    own = grown(lambda fun: jaxrel.relevance(fun, baseline=baseline))
    theirs = grown(lambda fun: jax.grad(lambda x, w: fun(x, w).sum()))
    assert own <= theirs + 40  # of a secant alone there are more than 80


def test_a_rule_is_traced_once_for_equal_steps(monkeypatch) -> None:
    traced = []
    original = rules.Slope.__call__
    monkeypatch.setattr(
        rules.Slope, "__call__", lambda self, view, m: traced.append(1) or original(self, view, m)
    )
    x, w = jnp.ones((3, 17)), jnp.eye(17)
    jax.make_jaxpr(jaxrel.relevance(layers(jnp.tanh, 20), "slope"))(x, w)
    assert len(traced) == 1
    jax.make_jaxpr(jaxrel.relevance(layers(jnp.tanh, 5), "slope"))(x, w)
    assert len(traced) == 1
    jax.make_jaxpr(jaxrel.relevance(layers(jnp.sinh, 5), "slope"))(x, w)
    assert len(traced) == 2


@pytest.mark.parametrize("act", [jax.nn.relu, jax.nn.softplus, jax.nn.relu6, jax.nn.log_sigmoid])
def test_derivatives_that_jax_declares_are_shared(monkeypatch, act) -> None:
    traced = []
    original = rules.Slope.__call__
    monkeypatch.setattr(
        rules.Slope, "__call__", lambda self, view, m: traced.append(1) or original(self, view, m)
    )
    x, w = jnp.ones((3, 19)), jnp.eye(19)
    jax.make_jaxpr(jaxrel.relevance(layers(act, 10), baseline=0.5))(x, w)
    assert len(traced) <= 2  # log_sigmoid is two functions


def test_derivatives_that_others_declare_are_told_apart() -> None:
    def scaled(factor: float):
        @jax.custom_jvp
        def act(x):
            return jnp.tanh(x)

        act.defjvp(lambda p, t: (act(*p), factor * t[0] * (1 - jnp.tanh(p[0]) ** 2)))
        return act

    x = jnp.linspace(-1, 1, 5)
    one, three = scaled(1.0), scaled(3.0)
    found = jax.jit(jaxrel.relevance(lambda x: one(x) + one(x) + three(x), "gradient"))(x)
    np.testing.assert_allclose(found, 5 * x * (1 - jnp.tanh(x) ** 2), rtol=1e-6)


@pytest.mark.parametrize("name", ["h @ h.T", "einsum", "batched"])
def test_rules_tell_two_reads_of_one_value_apart(name: str) -> None:
    products = {
        "h @ h.T": lambda a, b: jax.lax.dot_general(a, b, (((1,), (1,)), ((), ()))),
        "einsum": lambda a, b: jnp.einsum("td,sd->ts", a, b),
        "batched": lambda a, b: jnp.einsum("td,te->tde", a, b),
    }
    x, product = jnp.linspace(-1, 2, 12).reshape(3, 4), products[name]
    weights = jnp.arange(float(product(x, x).size)).reshape(product(x, x).shape)
    for rule, position in ((rules.First(), 0), (rules.Second(), 1)):
        rule_set = rulesets.slope() | {Kind("product"): rule}
        found = jaxrel.relevance(lambda x: (product(x, x) * weights).sum(), rule_set)(x)
        expected = x * jax.grad(lambda *ab: (product(*ab) * weights).sum(), position)(x, x)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


PAIRS = {
    "parameter": lambda x: jnp.tanh(x) ** 2 + jnp.tanh(2 * x) ** 3,
    "operand order": lambda x: (2.0 / x + jnp.tanh(x / 2.0)) * (2.0 - jnp.exp(x)),
    "one constant, two places": lambda x: jnp.tanh(x * 3.0) + jnp.tanh(3.0 - x),
    "type": lambda x: jnp.tanh(x) + jnp.tanh(x.astype(jnp.bfloat16)).astype(x.dtype),
    "wiring": lambda x: jax.nn.silu(x) + (x - 1) * jax.nn.sigmoid(x),
    "body": lambda x: jax.nn.softplus(x) + jax.nn.relu(x) + jnp.logaddexp(x, 1.0),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("baseline", [None, 0.25])
def test_unequal_steps_share_nothing(name: str, baseline) -> None:
    x = jnp.linspace(0.5, 2, 4)
    rule = rules.Slope if baseline is None else rules.Rescale
    start = rulesets.slope() if baseline is None else rulesets.compare_to_baseline()
    alone = start | {Kind("nonlinearity"): unshared(rule)()}
    whole = start | {Kind("nonlinearity"): rule()}
    expected = jax.jit(jaxrel.relevance(PAIRS[name], alone, baseline=baseline))(x)
    found = jax.jit(jaxrel.relevance(PAIRS[name], whole, baseline=baseline))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_hyper_parameters_are_told_apart_and_may_be_tracers() -> None:
    x, w = jnp.linspace(-1, 2, 6).reshape(2, 3), jnp.arange(9.0).reshape(3, 3) / 9 - 0.4

    def explain(eps):
        return jaxrel.relevance(layers(jnp.tanh, 3), RuleSet(matmul=rules.Epsilon(eps)))(x, w)

    swept = jax.vmap(explain)(jnp.array([0.1, 0.2]))
    for row, eps in zip(swept, (0.1, 0.2), strict=True):
        np.testing.assert_allclose(row, jax.jit(explain, static_argnums=0)(eps), rtol=1e-5)
    slope = jax.grad(lambda eps: explain(eps).sum())(0.1)
    expected = (explain(0.101).sum() - explain(0.099).sum()) / 0.002
    np.testing.assert_allclose(slope, expected, rtol=2e-2)


def test_derivatives_of_a_shared_rule_are_true() -> None:
    x, w = jnp.linspace(-1, 1, 6).reshape(2, 3), jnp.arange(9.0).reshape(3, 3) / 9 - 0.4

    def jacobians(rule: type):
        rule_set = rulesets.slope() | {Kind("nonlinearity"): rule()}
        explain = jaxrel.relevance(layers(jnp.tanh, 3), rule_set)
        return jax.jit(jax.jacrev(jax.jacrev(explain, (0, 1)), (0, 1)))(x, w)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        jacobians(rules.Slope),
        jacobians(unshared(rules.Slope)),
    )


def test_what_a_trace_depends_on_is_not_shared_across() -> None:
    def fun(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    def text() -> str:
        x, w = jnp.ones((2, 11), jnp.float32), jnp.eye(11, dtype=jnp.float32)
        return str(jax.make_jaxpr(jaxrel.relevance(fun, "epsilon"))(x, w))

    first = text()
    with jax.default_matmul_precision("highest"):
        highest = text()
    assert "HIGHEST" in highest and "HIGHEST" not in first
    with jax.enable_x64(False):
        narrow = text()
    assert "f64" in first and "f64" not in narrow
    assert text() == first


def test_values_are_those_of_the_function_where_nothing_is_compiled() -> None:
    x, w = jnp.linspace(-3, 3, 30).reshape(5, 6), jnp.arange(36.0).reshape(6, 6) / 36 - 0.4
    for act in (jax.nn.gelu, jax.nn.elu, jnp.tanh):
        value, _ = jaxrel.value_and_relevance(layers(act, 2), "lrp")(x, w)
        assert_same_bits(value, layers(act, 2)(x, w))


def _explain_with(weights) -> None:
    @jax.custom_jvp
    def act(x):
        return jnp.tanh(x * weights[0])

    act.defjvp(lambda p, t: (act(*p), t[0] * weights[1] * (1 - act(*p) ** 2)))
    x = jnp.ones((2, 4))
    for baseline in (None, 0.0):
        explain = jaxrel.relevance(lambda x: layers(act, 3)(x, weights), baseline=baseline)
        jax.jit(explain)(x)
        explain(x)


@pytest.mark.usefixtures("little_garbage")
def test_nothing_outlives_its_explanation() -> None:
    weights = jnp.full((4, 4), 0.3)
    _explain_with(weights)
    alive = weakref.ref(weights)
    del weights
    for _ in range(3):  # jax drops what it keeps of a function when that is gone
        gc.collect()
    assert alive() is None


@pytest.mark.full
def test_no_tracer_leaks_from_what_is_shared() -> None:
    x, w = jnp.linspace(-1, 1, 6).reshape(2, 3), jnp.eye(3)

    def explain(scale, x):
        rule_set = RuleSet(matmul=rules.Epsilon(scale))
        by_rule = jaxrel.relevance(layers(jax.nn.softplus, 3), rule_set)(x, w)
        return (by_rule + jaxrel.relevance(layers(jax.nn.elu, 3), baseline=scale)(x, w)).sum()

    with jax.checking_leaks():
        for _ in range(2):
            found = jax.jit(jax.grad(explain, (0, 1)))(0.5, x)
    np.testing.assert_allclose(found[1], jax.grad(explain, 1)(0.5, x), rtol=1e-4, atol=1e-5)


def test_threads_may_share() -> None:
    w = jnp.eye(3)
    sizes = [2, 3, 4, 5] * 3
    found: dict[int, list] = {}

    def work(k: int) -> None:
        x = jnp.full((sizes[k], 3), 0.5)
        explain = jaxrel.relevance(layers(jnp.arctan, 3), "epsilon")
        found[k] = [jax.jit(explain)(x, w), explain(x, w)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(len(sizes)))
    for k, (jitted, direct) in found.items():
        np.testing.assert_allclose(jitted, found[0][0][:1].repeat(sizes[k], 0), rtol=1e-5)
        np.testing.assert_allclose(direct, jitted, rtol=1e-5)
