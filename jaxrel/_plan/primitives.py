"""What each primitive is to a plan: one flat table of names a class.

A name in no table that meets a live value becomes a step of kind ``other``: it gets the general
rule if jax can differentiate it, and raises if not. So forgetting a primitive here costs accuracy
or an error message, never a wrong number. A test compares the tables with jax's own.
"""

from __future__ import annotations

ZERO_DERIVATIVE = frozenset(
    "stop_gradient sign floor ceil round bitcast_convert_type random_bits random_seed random_wrap "
    "random_unwrap random_fold_in random_split".split()
)
"""Their results are constants to a relevance, whatever their dtype (but see ``sign``: of a complex
number it has a derivative)."""

STRUCTURAL = frozenset(
    "copy copy_p convert_element_type reduce_precision broadcast_in_dim reshape squeeze transpose "
    "expand_dims rev slice dynamic_slice pad concatenate split stack unstack tile gather "
    "device_put sharding_constraint layout_constraint reshard relayout stage name "
    "optimization_barrier with_memory_space_constraint tie".split()
)
"""They move values about and change none."""

LINEAR = STRUCTURAL | frozenset(
    "neg real imag complex conj select_n reduce_sum cumsum reduce_window_sum add_any "
    "dynamic_update_slice scatter scatter-add scatter-sub select_and_gather_add "
    "select_and_scatter_add fft to_edtype from_edtype all_gather all_gather_invariant "
    "all_gather_reduced all_to_all pbroadcast pbroadcast_dynamic ppermute preduced psum "
    "psum_invariant pvary ragged_all_to_all reduce_scatter reduced_vary_cast unreduced_psum "
    "unreduced_reduce_scatter vary_unreduced_cast pcast psum2 reduced_vary_cast_p "
    "vary_unreduced_cast_p xla_metadata_value bcoo_extract bcoo_fromdense bcoo_sort_indices "
    "bcoo_sum_duplicates bcoo_todense bcoo_transpose bcsr_extract bcsr_fromdense bcsr_todense "
    "coo_fromdense coo_todense csr_fromdense csr_todense todense".split()
)
"""Linear in all their floating point operands together: the plain VJP is their rule."""

SUM = frozenset({"add", "sub"})

MATMUL = {
    "dot_general": "dense",
    "conv_general_dilated": "conv",
    "ragged_dot_general": "dense",
    "ragged_dot": "dense",
}
"""Bilinear contractions and the variant of ``matmul`` they make with one live operand."""

SPARSE = frozenset(
    "bcoo_dot_general bcoo_dot_general_sampled bcoo_spdot_general bcsr_dot_general coo_matmat "
    "coo_matvec csr_matmat csr_matvec".split()
)
"""Bilinear in a sparse matrix's data and another operand."""

BILINEAR = frozenset(MATMUL) | {"mul"}

LINEAR_IN_ONE = {"triangular_solve": 1, "tridiagonal_solve": 3}
"""Linear in the operand of this position (the right-hand side) and in no other."""

SOLVES = frozenset(LINEAR_IN_ONE) | {"custom_linear_solve"}
"""y with A y = b: linear in b, a quotient in A."""

DECOMPOSITIONS = frozenset("cholesky eig eigh lu qr svd".split())
"""Functions of the last two dimensions of a matrix; examples come before."""

POLYNOMIAL = frozenset("reduce_prod cumprod scatter-mul".split())
"""Products of the elements of one value."""

GENERAL = frozenset("reduce reduce_window cumlogsumexp".split())
"""Nothing better than the general rule is known for them."""

UNARY = frozenset(
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt cos cosh digamma erf erf_inv "
    "erfc exp exp2 expm1 integer_pow lgamma log log1p log2 logistic one_minus_square rsqrt sin "
    "sinh sqrt square tan tanh".split()
)

ELEMENTWISE = frozenset(
    "pow max min clamp rem atan2 nextafter igamma igammac polygamma polynomial "
    "regularized_incomplete_beta random_gamma random_gamma_grad igamma_grad_a zeta".split()
)
"""Elementwise functions of several operands, none of them linear."""

WITHOUT_DERIVATIVE = {"polygamma": (0,), "regularized_incomplete_beta": (0, 1), "spsolve": (0,)}
"""Operands in which a primitive has no derivative, or none on a line from 0, while it has one in
others."""

ODD = frozenset(
    "abs asin asinh atan atanh cbrt erf erf_inv expm1 log1p sin sinh sqrt square tan tanh".split()
)
"""Functions of :data:`UNARY` that are 0 at 0."""

LOGICAL = frozenset(
    "eq ne ge gt le lt eq_to le_to lt_to and or not xor is_finite shift_left "
    "shift_right_arithmetic shift_right_logical population_count clz".split()
)

DISCRETE = LOGICAL | frozenset("argmax argmin mulhi reduce_or".split())
"""Their results are no floating point numbers, so relevance ends there."""

JOINABLE = (
    UNARY
    | ELEMENTWISE
    | LOGICAL
    | SUM
    | frozenset(
        "mul div neg select_n convert_element_type copy copy_p stop_gradient sign floor ceil "
        "round add_any reduce_precision name".split()
    )
)
"""What may stand between the split and the meeting point of an elementwise join."""

AFFINE = frozenset("add sub mul div neg".split())
"""Arithmetic with constants that a matmul takes into its own affine map."""

ACTIVATIONS = frozenset(
    "celu elu gelu glu_activation hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu "
    "log_sigmoid mish relu relu6 selu sigmoid silu soft_sign softplus sparse_plus sparse_sigmoid "
    "squareplus swish".split()
)
"""Functions of ``jax.nn`` that are one nonlinearity even where no paths split and meet."""

SINGULAR_AT_ZERO = frozenset({"log", "log2", "log1p", "rsqrt"})
"""With a chain of elementwise operations before them they are one function (softplus by hand)."""

REDUCE_MAX = frozenset("reduce_max reduce_min cummax cummin".split())
WINDOW_MAX = frozenset(["reduce_window_max", "reduce_window_min"])
SCATTER_MAX = frozenset(["scatter-max", "scatter-min"])
SELECTION = frozenset(["sort", "top_k", "approx_top_k"])
"""Each result is one of the operands' values: nothing is split, the plain VJP is exact."""

MAXIMUM = REDUCE_MAX | WINDOW_MAX | SCATTER_MAX | SELECTION

PARALLEL = frozenset({"optimization_barrier", "device_put", "copy_p", "psum", "psum_invariant"})
"""Several operands pass side by side: each result is made of the operand in its place."""

CALLS = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "closed_call": "call_jaxpr",
    "composite": "jaxpr",
    "jit": "jaxpr",
    "remat_opt": "fwd_jaxpr",
    "xla_metadata_call": "jaxpr",
}
"""Calls and the parameter that holds their jaxpr."""

CONTROL = frozenset(CALLS) | {"scan", "cond", "remat2", "shard_map"}

STATE = frozenset(
    "new_ref empty_ref free_ref freeze get swap addupdate accum_grad_in_ref get_global masked_load "
    "masked_swap run_state box_get box_set new_box log_extend log_read new_log".split()
)
"""They read or write something mutable, through which relevance cannot be followed."""

OPAQUE = STATE | frozenset(
    "while pure_callback io_callback ffi_call pallas_call mpmd_map tpu_custom_call custom_call "
    "custom_lin linear_call compute_on call core_call eval_jaxpr call_hi_primitive "
    "call_hi_primitive_linearized program_order".split()
)
"""Nothing of what happens inside can be seen, or turned round."""

SILENT = frozenset("debug_callback debug_print inspect_sharding check dce_sink".split())
"""They have an effect and no results."""
