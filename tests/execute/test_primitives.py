"""Every differentiable primitive of JAX: one line each.

Each line is a function that uses the primitive on a value that depends on its input, the kind of
step this must be, and what the function tends to at 0. Checked are: the value, bit for bit; the
sum of relevance, f(x) - f(0) without a baseline and f(x) - f(x0) with one, and f(0) for biases;
that relevance is finite; and for what is linear that relevance is x * jax.grad.

The last part walks JAX's own registries: a primitive with a derivative that is neither in a line
here, nor known to be unfolded, discrete or refused, fails.
"""

import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import layout, sparse
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import ad
from jax.sharding import PartitionSpec as Spec

from jaxrel import relevance, value_and_relevance
from jaxrel._call.arguments import Arguments
from jaxrel._execute.explanation import trace
from jaxrel._plan import primitives as tables
from jaxrel._plan.graph import Node
from jaxrel._plan.kinds import kind_of
from jaxrel.rulesets.ruleset import RuleSet
from tests.checks import is_finite

rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(2, 3)))
X0 = jnp.asarray(rng.normal(size=(2, 3)))
POSITIVE, POSITIVE0 = jnp.abs(X) + 0.2, jnp.abs(X0) + 0.2
SHARE, SHARE0 = jax.nn.sigmoid(X), jax.nn.sigmoid(X0)
PAIR, PAIR0 = jnp.stack([POSITIVE, POSITIVE[::-1] + 0.5]), jnp.stack([POSITIVE0, POSITIVE0 + 0.3])
TRIPLE, TRIPLE0 = (jnp.asarray(rng.normal(size=(3, 2, 3))) for _ in range(2))
SQUARE = jnp.asarray(rng.normal(size=(2, 3, 3)))
SQUARE0 = SQUARE + 0.3 * jnp.asarray(rng.normal(size=(2, 3, 3)))
DEFINITE, DEFINITE0 = (a @ jnp.matrix_transpose(a) + 3 * jnp.eye(3) for a in (SQUARE, SQUARE0))
SYSTEM, SYSTEM0 = jnp.stack([DEFINITE, SQUARE]), jnp.stack([DEFINITE0, SQUARE0])
W = jnp.asarray(rng.normal(size=(3, 4)))
C = jnp.asarray(rng.normal(size=(2, 3)))
KEY = jax.random.key(0)
INDEX = jnp.array([0, 2, 2])


def _registered() -> dict[str, Any]:
    """Every primitive that JAX has a derivative of, by name; those of tested modules only."""
    found: dict[Any, None] = {}
    for module in (ad, _private("jax._src.interpreters.ad")):
        for table in ("primitive_jvps", "primitive_transposes", "fancy_transposes"):
            found.update(dict.fromkeys(getattr(module, table, {})))
        found.update(dict.fromkeys(getattr(module, "primitive_linearizations", {})))
    return {primitive.name: primitive for primitive in found}


def _private(name: str) -> Any:
    """A module of JAX that may move: what is only there is looked up if it is there."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        return None


PRIMITIVES = _registered()


def bind(name: str, *operands: Any, **params: Any) -> Any:
    return PRIMITIVES[name].bind(*operands, **params)


class Case(NamedTuple):
    """One line.

    Attributes:
      fun: uses the primitive.
      kind: of the step that has it.
      x, x0: its argument, and a baseline.
      at0: what the sum of its value tends to as x goes to 0; None: nothing is conserved.
      tolerance: of the sum with a baseline, relative to the value.
    """

    fun: Callable[[Any], Any]
    kind: str
    x: Any = X
    x0: Any = X0
    at0: float | None = 0.0
    tolerance: float = 1e-10


ROWS = Spec("i")


def sharded(fun: Callable, out: Any = ROWS, check: bool = True) -> Callable:
    """``fun`` on two devices, each with one of two rows."""

    def run(x: jax.Array) -> jax.Array:
        mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        mapped = jax.shard_map(fun, mesh=mesh, in_specs=ROWS, out_specs=out, check_vma=check)
        return mapped(x)

    return run


def _window(name: str, identity: float) -> Callable:
    operation = getattr(lax, name)
    return lambda x: lax.reduce_window(x, identity, operation, (1, 2), (1, 1), "VALID")


def _pool_derivative(x: jax.Array) -> jax.Array:
    """A derivative of a maximum pool, in the direction x."""
    return jax.jvp(_window("max", -jnp.inf), (C,), (x,))[1]


def _constrained(x: jax.Array) -> jax.Array:
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    return lax.with_sharding_constraint(x, jax.sharding.NamedSharding(mesh, ROWS))


def _resharded(x: jax.Array) -> jax.Array:
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    return jax.sharding.reshard(x, jax.sharding.NamedSharding(mesh, Spec()))


def _sparse(data: jax.Array) -> sparse.BCOO:
    return sparse.BCOO((data, jnp.array([[0, 1], [2, 0], [1, 1]])), shape=(3, 3))


def _scatter(name: str, x: jax.Array) -> jax.Array:
    operation = getattr(lax, name)
    numbers = lax.ScatterDimensionNumbers((), (0,), (0,))
    return operation(x[0], jnp.array([[0], [2]]), x[1, :2], numbers, unique_indices=True)


CASES: dict[str, Case] = {
    # 1 linear, structural
    "neg": Case(lambda x: -x, "linear"),
    "complex": Case(lambda x: lax.real(lax.complex(x, 2 * x) * (1 + 1j)), "linear"),
    "real": Case(lambda x: lax.real(x * (1 + 2j)), "linear"),
    "imag": Case(lambda x: lax.imag(x * (1 + 2j)), "linear"),
    "conj": Case(lambda x: lax.imag(lax.conj(x * (1 + 2j))), "linear"),
    "copy": Case(lambda x: bind("copy", x), "linear"),
    "convert_element_type": Case(lambda x: x.astype("float32").astype("float64"), "linear",
                                 X.astype("float32"), X0.astype("float32"), tolerance=1e-6),
    "reduce_precision": Case(lambda x: lax.reduce_precision(x, 11, 52), "linear"),
    "broadcast_in_dim": Case(lambda x: jnp.broadcast_to(x, (4, 2, 3)), "linear"),
    "reshape": Case(lambda x: x.reshape(3, 2), "linear"),
    "squeeze": Case(lambda x: lax.squeeze(x[None], (0,)), "linear"),
    "transpose": Case(lambda x: x.T, "linear"),
    "rev": Case(lambda x: lax.rev(x, (0,)), "linear"),
    "slice": Case(lambda x: lax.slice(x, (0, 1), (2, 3)), "linear"),
    "dynamic_slice": Case(lambda x: lax.dynamic_slice(x, (0, INDEX[0]), (2, 2)), "linear"),
    "dynamic_update_slice": Case(
        lambda x: lax.dynamic_update_slice(x, 2 * x[:1], (0, INDEX[0])), "linear"),
    "pad": Case(lambda x: lax.pad(x, x[0, 0], [(1, 0, 0), (0, 2, 1)]), "linear"),
    "concatenate": Case(lambda x: jnp.concatenate([x, 2 * x]), "linear"),
    "split": Case(lambda x: lax.split(x, (1, 2), 1)[1], "linear"),
    "stack": Case(lambda x: lax.stack([x, -x]), "linear"),
    "unstack": Case(lambda x: lax.unstack(x, 0)[1], "linear"),
    "tile": Case(lambda x: bind("tile", x, reps=(2, 1)), "linear"),
    "select_n": Case(lambda x: lax.select_n(C > 0, x, x[::-1]), "linear"),
    "reduce_sum": Case(lambda x: x.sum(1), "linear"),
    "cumsum": Case(lambda x: jnp.cumsum(x, 1), "linear"),
    "device_put": Case(lambda x: jax.device_put(x, jax.devices()[0]), "linear"),
    "sharding_constraint": Case(_constrained, "linear"),
    "optimization_barrier": Case(lambda x: lax.optimization_barrier((x, 2 * x))[1], "linear"),
    "reshard": Case(_resharded, "linear"),
    "layout_constraint": Case(
        lambda x: layout.with_layout_constraint(x, layout.Layout((1, 0))), "linear"),
    "xla_metadata_value": Case(lambda x: set_xla_metadata(x, a="b"), "linear"),
    "name": Case(lambda x: checkpoint_name(x, "x"), "linear"),
    "tie": Case(lambda x: bind("tie", C, x), "linear"),
    # 2 sums
    "add": Case(lambda x: x + x[::-1], "sum"),
    "sub": Case(lambda x: 2 * x - x[::-1], "sum"),
    "add_any": Case(lambda x: bind("add_any", x, 2 * x), "sum"),
    # 3 bilinear
    "dot_general": Case(lambda x: x @ W, "matmul:dense"),
    "conv_general_dilated": Case(
        lambda x: lax.conv(x[None, None], W[None, None, :2, :2], (1, 1), "SAME"), "matmul:conv"),
    "mul": Case(lambda x: x * x[::-1], "product"),
    "ragged_dot_general": Case(
        lambda x: lax.ragged_dot(x, jnp.stack([W, 2 * W]), jnp.array([1, 1])), "matmul:dense"),
    "div": Case(lambda x: x / (2 + jnp.abs(x[::-1])), "quotient"),
    "triangular_solve": Case(lambda a: jax.scipy.linalg.solve_triangular(a[0], a[1]),
                             "other:solve", SYSTEM, SYSTEM0),
    "tridiagonal_solve": Case(
        lambda a: lax.linalg.tridiagonal_solve(a[1, 0], 4 + a[0, 0], a[1, 1], a[0, 2:].mT),
        "other:solve", SQUARE, SQUARE0),
    "custom_linear_solve": Case(lambda a: jnp.linalg.solve(a[0], a[1]),
                                "other:solve", SYSTEM, SYSTEM0),
    # 4 elementwise, of one value; those not of the shape fun(x), f(0) = 0
    **{
        name: Case(getattr(lax, name), "nonlinearity")
        for name in "abs asinh atan bessel_i1e cbrt erf expm1 sin sinh square tan tanh".split()
    },
    **{
        name: Case(getattr(lax, name), "nonlinearity", at0=6.0)
        for name in "bessel_i0e cos cosh erfc exp exp2".split()
    },
    **{
        name: Case(getattr(lax, name), "nonlinearity", SHARE, SHARE0)
        for name in "asin atanh erf_inv log1p sqrt".split()
    },
    # poles at 0: f(0) counts as 0
    **{
        name: Case(getattr(lax, name), "nonlinearity", POSITIVE, POSITIVE0)
        for name in "digamma lgamma log rsqrt".split()
    },
    "log2": Case(lambda x: bind("log2", x, accuracy=None), "nonlinearity", POSITIVE, POSITIVE0),
    "acos": Case(lax.acos, "nonlinearity", SHARE, SHARE0, at0=3 * np.pi),
    "acosh": Case(lax.acosh, "nonlinearity", POSITIVE + 1, POSITIVE0 + 1),
    "integer_pow": Case(lambda x: lax.integer_pow(x, 3), "nonlinearity"),
    "logistic": Case(lax.logistic, "nonlinearity", at0=3.0),
    "one_minus_square": Case(lambda x: bind("one_minus_square", x), "nonlinearity", at0=6.0),
    # 5 elementwise, of several values
    "atan2": Case(lambda x: lax.atan2(x[0], x[1]), "other:elementwise", TRIPLE, TRIPLE0),
    "pow": Case(lambda x: x[0] ** x[1], "other:elementwise", PAIR, PAIR0, at0=6.0),
    "max": Case(lambda x: lax.max(x[0], x[1]), "maximum", PAIR, PAIR0),
    "min": Case(lambda x: lax.min(x[0], x[1]), "maximum", PAIR, PAIR0),
    "clamp": Case(lambda x: lax.clamp(x[0, 0, 0], x[1], x[2]), "other:elementwise",
                  TRIPLE, TRIPLE0),
    "rem": Case(lambda x: lax.rem(x[1], x[0]), "other:elementwise", PAIR, PAIR0),
    "nextafter": Case(lambda x: lax.nextafter(x[0], x[1]), "other:elementwise", PAIR, PAIR0),
    "igamma": Case(lambda x: lax.igamma(x[0], x[1]), "other:elementwise", PAIR, PAIR0),
    "igammac": Case(lambda x: lax.igammac(x[0], x[1]), "other:elementwise", PAIR, PAIR0),
    "polygamma": Case(lambda x: lax.polygamma(1.0, x), "nonlinearity", POSITIVE, POSITIVE0),
    "polynomial": Case(lambda x: lax.polynomial(x[0], [x[1], x[1, :1], 1.0]),
                       "other:elementwise", PAIR, PAIR0),
    "regularized_incomplete_beta": Case(
        lambda x: lax.betainc(2.0, 3.0, x), "nonlinearity", SHARE, SHARE0),
    "random_gamma": Case(lambda x: jax.random.gamma(KEY, x),
                         "nonlinearity", POSITIVE, POSITIVE0),
    # 6 reductions, order statistics, cumulative
    "reduce": Case(lambda x: lax.reduce(x, np.zeros((), x.dtype), lambda a, b: a + b + a * b, (1,)),
                   "other"),
    "reduce_max": Case(lambda x: x.max(1), "maximum"),
    "reduce_min": Case(lambda x: x.min(1), "maximum"),
    "reduce_prod": Case(lambda x: jnp.prod(x, 1), "other:polynomial"),
    "cumprod": Case(lambda x: jnp.cumprod(x, 1), "other:polynomial"),
    "cummax": Case(lambda x: lax.cummax(x, 1), "maximum"),
    "cummin": Case(lambda x: lax.cummin(x, 1), "maximum"),
    "cumlogsumexp": Case(lambda x: lax.cumlogsumexp(x, 1), "other", at0=2 * np.log(6)),
    "sort": Case(lambda x: jnp.sort(x, 1)[:, :2], "maximum:selection"),
    "top_k": Case(lambda x: lax.top_k(x, 2)[0], "maximum:selection"),
    "approx_top_k": Case(lambda x: lax.approx_max_k(x, 2)[0], "maximum:selection"),
    # 7 windowed
    "reduce_window": Case(_window("mul", 1.0), "other"),
    "reduce_window_sum": Case(_window("add", 0.0), "linear"),
    "reduce_window_max": Case(_window("max", -jnp.inf), "maximum"),
    "reduce_window_min": Case(_window("min", jnp.inf), "maximum"),
    "select_and_gather_add": Case(_pool_derivative, "linear"),
    "select_and_scatter_add": Case(
        lambda x: jax.vjp(_window("max", -jnp.inf), C)[1](x[:, :2])[0], "linear"),
    # 8 gather, scatter
    "gather": Case(lambda x: x[:, INDEX], "linear"),
    "scatter": Case(lambda x: _scatter("scatter", x), "linear"),
    "scatter-add": Case(lambda x: x[0].at[INDEX].add(x[1]), "linear"),
    "scatter-sub": Case(lambda x: x[0].at[INDEX].subtract(x[1]), "linear"),
    "scatter-mul": Case(lambda x: _scatter("scatter_mul", x), "other:polynomial"),
    "scatter-max": Case(lambda x: x[0].at[INDEX].max(x[1]), "maximum:scatter"),
    "scatter-min": Case(lambda x: x[0].at[INDEX].min(x[1]), "maximum:scatter"),
    # 10 decompositions
    "cholesky": Case(lambda a: lax.linalg.cholesky(a, symmetrize_input=True),
                     "other:decomposition", DEFINITE, DEFINITE0),
    "eig": Case(lambda a: jnp.abs(jnp.linalg.eigvals(a)), "other:decomposition",
                SQUARE, SQUARE0),
    "eigh": Case(lambda a: jnp.linalg.eigh(a)[0] ** 2, "other:decomposition",
                 DEFINITE, DEFINITE0),
    "lu": Case(lambda a: jnp.triu(lax.linalg.lu(a)[0]), "other:decomposition",
               DEFINITE, DEFINITE0),
    "qr": Case(lambda a: jnp.linalg.qr(a)[1], "other:decomposition", SQUARE, SQUARE0),
    "svd": Case(lambda a: jnp.linalg.svd(a, compute_uv=False), "other:decomposition",
                SQUARE, SQUARE0),
    # 11
    "fft": Case(lambda x: jnp.real(jnp.fft.fft(x)), "linear"),
    # 13 collectives
    "all_gather": Case(sharded(lambda x: lax.all_gather(x, "i") @ W), "linear"),
    "all_gather_invariant": Case(
        sharded(lambda x: lax.all_gather(x, "i", to="invarying") @ W, Spec()), "linear"),
    "all_to_all": Case(sharded(lambda x: lax.all_to_all(jnp.tile(x, (2, 1)), "i", 0, 0)), "linear"),
    "ppermute": Case(sharded(lambda x: lax.ppermute(x, "i", [(0, 1), (1, 0)])), "linear"),
    "psum": Case(sharded(lambda x: lax.psum(x, "i"), Spec(), check=False), "linear"),
    "psum_invariant": Case(sharded(lambda x: lax.psum(x, "i"), Spec()), "linear"),
    "pvary": Case(sharded(lambda x: lax.pcast(lax.psum(x, "i"), "i", to="varying")), "linear"),
    "reduce_scatter": Case(
        sharded(lambda x: lax.psum_scatter(jnp.tile(x, (2, 1)), "i", tiled=True)), "linear"),
    # sparse matrices
    "bcoo_dot_general": Case(lambda x: _sparse(x[0]) @ x[1], "product"),
    "bcoo_todense": Case(lambda x: _sparse(x[0]).todense(), "linear"),
    "bcoo_fromdense": Case(lambda x: sparse.BCOO.fromdense(x, nse=6).data, "linear"),
}  # fmt: skip

HERE = sorted(name for name in CASES if name in PRIMITIVES)
"""Those that this version of JAX can differentiate."""


def step_kind(name: str, case: Case) -> str:
    plan, _ = trace(Arguments(case.fun, (case.x,), {}, 0), RuleSet())
    steps = [step for step in plan.walk() for node in step.nodes if node.name == name]
    assert steps, f"{name} is in none of {[n.name for s in plan.walk() for n in s.nodes]}"
    return ":".join(filter(None, (steps[-1].kind, steps[-1].variant)))


@pytest.mark.parametrize("name", HERE)
def test_primitive(name: str) -> None:
    case = CASES[name]
    assert step_kind(name, case) == case.kind

    @jax.jit
    def explained(x, x0):
        grad = jax.grad(lambda x: case.fun(x).sum())(x) if case.kind == "linear" else x
        against = relevance(case.fun, "compare_to_baseline", baseline=x0)(x)
        value, (alone, bias) = value_and_relevance(case.fun, "slope", biases="total")(x)
        return value, case.fun(x0), alone, bias, against, grad

    value, value0, alone, bias, against, grad = explained(case.x, case.x0)
    if name == "random_gamma":  # its numbers depend on what they are compiled with
        np.testing.assert_allclose(value, jax.jit(case.fun)(case.x), rtol=1e-12)
    else:
        np.testing.assert_array_equal(value, jax.jit(case.fun)(case.x))
    assert is_finite((alone, against))
    scale = float(jnp.abs(value).sum() + jnp.abs(value0).sum())
    assert abs(against.sum() - (value.sum() - value0.sum())) <= case.tolerance * scale
    if case.at0 is not None:
        assert abs(alone.sum() - (value.sum() - case.at0)) <= case.tolerance * scale
        assert abs(bias - case.at0) <= case.tolerance * scale
    if case.kind == "linear":
        np.testing.assert_allclose(alone, case.x * grad, rtol=1e-12)
        np.testing.assert_allclose(against, (case.x - case.x0) * grad, rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------- what JAX has, and we know of

OUT_OF_REACH = frozenset(
    # extended types; what only a GPU, a TPU or an explicit mesh has; what tracing leaves out
    "to_edtype from_edtype relayout with_memory_space_constraint stage pbroadcast "
    "pbroadcast_dynamic ragged_all_to_all all_gather_reduced preduced unreduced_psum "
    "unreduced_reduce_scatter reduced_vary_cast reduced_vary_cast_p vary_unreduced_cast "
    "vary_unreduced_cast_p "
    # other formats of sparse matrices, and other things to do to them
    "bcoo_extract bcoo_sort_indices bcoo_sum_duplicates bcoo_transpose bcsr_extract bcsr_fromdense "
    "bcsr_todense coo_fromdense coo_todense csr_fromdense csr_todense todense "
    "bcoo_dot_general_sampled bcoo_spdot_general bcsr_dot_general coo_matmat coo_matvec csr_matmat "
    "csr_matvec".split()
)
"""Linear, and no line: their kind is all that is checked."""

WITHOUT_LINES = {
    "unfolded or nested": tables.CONTROL,
    "no floating point results": tables.DISCRETE,
    "zero derivative": tables.ZERO_DERIVATIVE,
    "refused": tables.OPAQUE | {"spsolve"},
    "no results": tables.SILENT,
    "kind only": OUT_OF_REACH,
}


@pytest.mark.parametrize("name", sorted(OUT_OF_REACH))
def test_kinds_out_of_reach(name: str) -> None:
    node = Node(eqn=None, name=name, operands=(0, 1), results=(2,), path=(), layer=(), calls=())
    assert kind_of(node, [0]) == ("linear", "")


def test_every_differentiable_primitive_is_known() -> None:
    """In a fresh process: other libraries register primitives of their own."""
    known = set(CASES).union(*WITHOUT_LINES.values())
    code = f"from {__name__} import _registered; print(*_registered())"
    root = pathlib.Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    unknown = sorted(set(run.stdout.split()) - known)
    assert not unknown, (
        f"JAX can differentiate {', '.join(unknown)}: enter each in a table of "
        "jaxrel/plan/primitives.py and give it a line in CASES above."
    )


def test_no_primitive_is_in_two_places() -> None:
    places = [set(CASES), *map(set, WITHOUT_LINES.values())]
    for k, one in enumerate(places):
        for other in places[k + 1 :]:
            assert not one & other - {"sign"}


def test_registries_are_found() -> None:
    """If JAX moves them, this test says so, and not the silence of the one above."""
    assert len(_registered()) > 200
    assert {"exp", "gather", "slice", "custom_jvp_call", "get"} <= set(_registered())
