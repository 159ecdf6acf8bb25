"""The one table of primitives: what is known to hold of each, one row for each name.

Every feature asks a row; none keeps a list of its own. A name without a row that meets a live value
becomes a step of kind ``other``: it gets the general rule if jax can differentiate it, and raises
if not. So forgetting a primitive here costs accuracy or an error message, never a wrong number.

A row is a claim, and a test takes each at its word, by numbers: f(0), the sign of f(-x), f(cx), the
sign of f, linearity and the signs of the coefficients, what moves values and what leaves them as
they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

ALL = -1
"""In :attr:`Primitive.linear`: all floating point operands together."""


@dataclasses.dataclass(frozen=True)
class Primitive:
    """What holds of a primitive, whatever its operands.

    Attributes:
      name: of the primitive.
      linear: positions of the operands in which it is jointly linear, the others being constants;
        ``(ALL,)``: all of its floats. Conditions, indices and the like are no floats.
      bilinear: linear in each of its first two operands alone.
      contraction: of a bilinear one the variant of ``matmul`` that it makes.
      negated: positions of linear operands that enter with a minus sign. Where ``signed`` all
        coefficients of the others are >= 0.
      signed: linear, and the signs of its coefficients are known: >= 0, but for those negated, and
        those of a bilinear one are the signs of its other operand.
      moves: what it gives are elements of what it reads, or of a constant operand or parameter.
      reshapes: one that moves values and leaves them in their order, some of them repeated perhaps.
      identity: it gives what it reads, value for value. Of a cast this holds between floats.
      labels: an identity that gives its value a name, for policies of ``jax.checkpoint``.
      observes: it has an effect and no result that anybody reads: no reader of its operands.
      parallel: several operands pass side by side, each to the result in its place.
      fills: parameters whose value it puts in between: additive constants.
      elementwise: each element of the result depends on that element of the operands alone.
      unary: an elementwise function of one operand.
      zero: f(0) of a unary one; None: a pole, or not known.
      parity: 1: f(-x) = f(x); -1: f(-x) = -f(x); 0: neither.
      degree: k with f(c x) = c^k f(x) for c > 0; None: there is none.
      exponential: the b of b^x.
      logarithm: the b of log_b x.
      pole: singular at 0, so that it makes no sense without what comes before.
      sign: ``">=0"``: the result is >= 0; ``"keeps"``: it is where all float operands are;
        ``"first"``: where the first is; ``"any"``: where one of them is.
      sums: it adds up elements of its operand along the axes in ``params["axes"]``.
      over_mesh: it adds up, or moves, values of several devices: along named axes of a mesh.
      picks: it gives the largest, or the smallest, of several; the variant of ``maximum``.
      solves: position of b in A y = b; ``ALL``: told by the equation.
      factors: a product of elements of one value, or of that and another: a polynomial.
      decomposes: a function of the last two dimensions.
      laid_out: whether XLA computes it on a CPU on ``"rows"`` or ``"columns"`` in memory alone.
      dead: its derivative is zero everywhere, although its result may be a float.
      discrete: its result is no float.
      underived: operands in which jax has no derivative of it.
      draws: it makes numbers at random.
      body: the parameter that holds the jaxpr of a call.
      control: a call, loop or branch, whose inside is planned.
      own_derivative: a call whose derivative is given by its author.
      opaque: nothing of what happens inside can be seen, or turned round.
      state: it reads or writes something mutable.
    """

    name: str
    linear: tuple[int, ...] = ()
    bilinear: bool = False
    contraction: str = ""
    negated: tuple[int, ...] = ()
    signed: bool = False
    moves: bool = False
    reshapes: bool = False
    identity: bool = False
    labels: bool = False
    observes: bool = False
    parallel: bool = False
    fills: tuple[str, ...] = ()
    elementwise: bool = False
    unary: bool = False
    zero: float | None = None
    parity: int = 0
    degree: float | None = None
    exponential: float | None = None
    logarithm: float | None = None
    pole: bool = False
    sign: str = ""
    sums: bool = False
    over_mesh: bool = False
    picks: str | None = None
    solves: int | None = None
    factors: bool = False
    decomposes: bool = False
    laid_out: str = ""
    dead: bool = False
    discrete: bool = False
    underived: tuple[int, ...] = ()
    draws: bool = False
    body: str = ""
    control: bool = False
    own_derivative: bool = False
    opaque: bool = False
    state: bool = False


TABLE: dict[str, Primitive] = {}
_UNKNOWN = Primitive("")


def of(name: str) -> Primitive:
    """The row of a primitive; one that claims nothing, if there is none."""
    return TABLE.get(name, _UNKNOWN)


def _rows(names: str, **facts: object) -> None:
    """Enters one row for each name, with the facts that they share."""
    for name in names.split():
        assert name not in TABLE, name
        TABLE[name] = Primitive(name, **facts)  # type: ignore[arg-type]


def _names(holds: Callable[[Primitive], object]) -> frozenset[str]:
    return frozenset(name for name, row in TABLE.items() if holds(row))


# ------------------------------------------------------------------------- what leaves values alone

_ONE: dict = {"linear": (ALL,), "signed": True, "moves": True, "sign": "keeps"}
_SAME: dict = {**_ONE, "identity": True}

_rows("copy convert_element_type reduce_precision", **_SAME, elementwise=True, degree=1, zero=0)
_rows("name", **_SAME, labels=True, elementwise=True, degree=1, zero=0)
_rows("copy_p optimization_barrier device_put", **_SAME, parallel=True)
_rows(
    "sharding_constraint layout_constraint reshard relayout stage with_memory_space_constraint tie "
    "xla_metadata_value pvary pcast reduced_vary_cast vary_unreduced_cast reduced_vary_cast_p "
    "vary_unreduced_cast_p preduced",
    **_SAME,
)
_rows("to_edtype from_edtype", linear=(ALL,))

# ---------------------------------------------------------------------------- what moves them about

_rows("broadcast_in_dim reshape squeeze expand_dims", **_ONE, reshapes=True)
_rows("transpose rev slice split stack unstack tile concatenate", **_ONE)
_rows("pad", **_ONE)
_rows("dynamic_slice", **_ONE)
_rows("gather", **_ONE, fills=("fill_value",))
_rows("dynamic_update_slice scatter", linear=(ALL,), signed=True, sign="keeps")
_rows(
    "all_gather all_gather_invariant all_gather_reduced all_to_all pbroadcast",
    **_ONE,
    over_mesh=True,
)
_rows("ppermute ragged_all_to_all pbroadcast_dynamic", linear=(ALL,), signed=True)
_rows("select_n", linear=(ALL,), signed=True, elementwise=True, sign="keeps")

# ------------------------------------------------------------------------------------ sums, linear

_rows("add add_any", linear=(ALL,), signed=True, elementwise=True, sign="keeps")
_rows("sub", linear=(ALL,), signed=True, negated=(1,), elementwise=True)
_rows(
    "neg", linear=(ALL,), signed=True, negated=(0,), elementwise=True, parity=-1, degree=1, zero=0
)
_rows("reduce_sum", linear=(ALL,), signed=True, sums=True, sign="keeps")
_rows("cumsum reduce_window_sum", linear=(ALL,), signed=True, sign="keeps")
_rows(
    "psum psum_invariant",
    linear=(ALL,),
    signed=True,
    sums=True,
    over_mesh=True,
    parallel=True,
    sign="keeps",
)
_rows("psum2 unreduced_psum", linear=(ALL,), signed=True, sums=True, over_mesh=True, sign="keeps")
_rows("reduce_scatter unreduced_reduce_scatter", linear=(ALL,), signed=True, over_mesh=True)
_rows("scatter-add", linear=(ALL,), signed=True, sign="keeps")
_rows("scatter-sub", linear=(ALL,), signed=True, negated=(2,))
_rows("fft", linear=(ALL,), laid_out="rows")
_rows(
    "real imag complex conj bcoo_extract "
    "bcoo_fromdense bcoo_sort_indices bcoo_sum_duplicates bcoo_todense bcoo_transpose bcsr_extract "
    "bcsr_fromdense bcsr_todense coo_fromdense coo_todense csr_fromdense csr_todense todense",
    linear=(ALL,),
)

# ----------------------------------------------------------------------------------- linear in each

_rows("mul", bilinear=True, signed=True, elementwise=True, sign="keeps")
_rows("div", linear=(0,), signed=True, elementwise=True, sign="keeps")
_rows("dot_general", bilinear=True, contraction="dense", signed=True, sign="keeps")
_rows("ragged_dot_general ragged_dot", bilinear=True, contraction="dense", signed=True)
_rows("conv_general_dilated", bilinear=True, contraction="conv", signed=True, sign="keeps")
_rows(
    "bcoo_dot_general bcoo_dot_general_sampled bcoo_spdot_general bcsr_dot_general coo_matmat "
    "coo_matvec csr_matmat csr_matvec",
    bilinear=True,
)
_rows("select_and_gather_add select_and_scatter_add", linear=(0,))
_rows("spsolve", linear=(3,), underived=(0,))
_rows("triangular_solve", linear=(1,), solves=1, laid_out="columns")
_rows("tridiagonal_solve", linear=(3,), solves=3)
_rows("custom_linear_solve", control=False, solves=ALL)

# -------------------------------------------------------------------- functions of one value, f(x)


def _function(name: str, zero: float | None, parity: int = 0, **facts: object) -> None:
    _rows(name, elementwise=True, unary=True, zero=zero, parity=parity, **facts)


_function("abs", 0, 1, degree=1, sign=">=0")
_function("square", 0, 1, degree=2, sign=">=0")
_function("sqrt", 0, degree=0.5, sign=">=0")
_function("rsqrt", None, degree=-0.5, sign=">=0", pole=True)
_function("cbrt", 0, -1, degree=1 / 3, sign="keeps")
_function("integer_pow", None, sign="keeps")
_function("exp", 1, exponential=math.e, sign=">=0")
_function("exp2", 1, exponential=2, sign=">=0")
_function("expm1", 0, sign="keeps")
_function("log", None, logarithm=math.e, pole=True)
_function("log2", None, logarithm=2, pole=True)
_function("log1p", 0, pole=True, sign="keeps")
_function("logistic", 0.5, sign=">=0")
_function("tanh", 0, -1, sign="keeps")
_function("erf", 0, -1, sign="keeps")
_function("erfc", 1, sign=">=0")
_function("erf_inv", 0, -1)
_function("sin", 0, -1)
_function("cos", 1, 1)
_function("tan", 0, -1)
_function("asin", 0, -1)
_function("acos", 1.5707963267948966)
_function("atan", 0, -1, sign="keeps")
_function("sinh", 0, -1, sign="keeps")
_function("cosh", 1, 1, sign=">=0")
_function("asinh", 0, -1, sign="keeps")
_function("acosh", None)
_function("atanh", 0, -1)
_function("lgamma digamma", None)
_function("bessel_i0e", 1, 1)
_function("bessel_i1e", 0, -1)
_function("one_minus_square", 1, 1)
_function("sign", 0, -1, degree=0, dead=True, sign="keeps")
_function("floor ceil round", 0, dead=True)

# ------------------------------------------------------------------ of several, element by element

_rows("max", elementwise=True, sign="any")
_rows("min", elementwise=True, sign="keeps")
_rows("pow", elementwise=True, sign="keeps")
_rows("clamp", elementwise=True, sign="first")
_rows(
    "rem atan2 nextafter igamma igammac random_gamma random_gamma_grad igamma_grad_a zeta",
    elementwise=True,
)
_rows("polynomial", elementwise=True)
_rows("polygamma", elementwise=True, underived=(0,))
_rows("regularized_incomplete_beta", elementwise=True, underived=(0, 1))
_rows(
    "eq ne ge gt le lt eq_to le_to lt_to and or not xor is_finite shift_left "
    "shift_right_arithmetic shift_right_logical population_count clz",
    elementwise=True,
    discrete=True,
)

# ----------------------------------------------------------------- the largest, products, matrices

_rows("reduce_max reduce_min cummax cummin", picks="", sign="keeps")
_rows("reduce_window_max", picks="", sign="keeps")
_rows("reduce_window_min", picks="")
_rows("scatter-max scatter-min", picks="scatter")
_rows("sort", picks="selection", sign="keeps")
_rows("top_k approx_top_k", picks="selection")
_rows("reduce_prod cumprod scatter-mul", factors=True)
_rows("cholesky eig eigh lu qr svd", decomposes=True, laid_out="columns")
_rows("reduce reduce_window cumlogsumexp")

# ------------------------------------------------------------------------------------- nothing live

_rows("stop_gradient", identity=True, elementwise=True, dead=True, sign="keeps")
_rows("bitcast_convert_type", dead=True)
_rows("random_bits random_seed random_wrap random_unwrap random_fold_in random_split", dead=True,
      draws=True)  # fmt: skip
_rows("threefry2x32 rng_bit_generator rng_uniform", draws=True)
_rows("argmax argmin mulhi reduce_or reduce_and reduce_xor", discrete=True)
_rows("debug_callback debug_print inspect_sharding check dce_sink", observes=True)

# ------------------------------------------------------------------------ calls, loops and the rest

_rows("jit", control=True, body="jaxpr")
_rows("closed_call", control=True, body="call_jaxpr")
_rows("custom_jvp_call custom_vjp_call", control=True, body="call_jaxpr", own_derivative=True)
_rows("custom_vmap_call", control=True, body="call")
_rows("composite xla_metadata_call", control=True, body="jaxpr")
_rows("remat_opt", control=True, body="fwd_jaxpr")
_rows("remat2 shard_map", control=True, body="jaxpr")
_rows("scan cond", control=True)
_rows(
    "new_ref empty_ref free_ref freeze get swap addupdate accum_grad_in_ref get_global masked_load "
    "masked_swap run_state box_get box_set new_box log_extend log_read new_log",
    opaque=True,
    state=True,
)
_rows(
    "while pure_callback io_callback ffi_call pallas_call mpmd_map tpu_custom_call custom_call "
    "custom_lin linear_call compute_on call core_call eval_jaxpr call_hi_primitive "
    "call_hi_primitive_linearized program_order",
    opaque=True,
)

# ------------------------------------------------------------------------------------ whole columns

ZERO_DERIVATIVE = _names(lambda row: row.dead)
STRUCTURAL = _names(lambda row: row.moves)
LINEAR = _names(lambda row: row.linear == (ALL,)) - {"add", "sub"}
SUM = frozenset({"add", "sub"})
MATMUL = {name: row.contraction for name, row in TABLE.items() if row.contraction}
DISCRETE = _names(lambda row: row.discrete)
ELEMENTWISE = _names(
    lambda r: r.elementwise and not (r.unary or r.linear or r.bilinear or r.discrete)
)
CONTROL = _names(lambda row: row.control)
STATE = _names(lambda row: row.state)
OPAQUE = _names(lambda row: row.opaque)
SILENT = _names(lambda row: row.observes)
WITHOUT_DERIVATIVE = {name: row.underived for name, row in TABLE.items() if row.underived}

ACTIVATIONS = frozenset(
    "celu elu gelu glu_activation hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu "
    "log_sigmoid mish relu relu6 selu sigmoid silu soft_sign softplus sparse_plus sparse_sigmoid "
    "squareplus swish".split()
)
"""No primitives, but functions of ``jax.nn`` that carry their name into a jaxpr."""
AFFINE = frozenset("add sub mul div neg".split())
SCATTER_MAX = _names(lambda row: row.picks == "scatter")
