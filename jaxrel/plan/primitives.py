"""What each primitive is to a plan: one flat table of names a class.

A name in no table that meets a live value becomes a step of kind ``other``, which raises unless a
rule set names it. So forgetting a primitive here costs an error message, never a wrong number.
"""

from __future__ import annotations

ZERO_DERIVATIVE = frozenset(
    "stop_gradient sign floor ceil round bitcast_convert_type random_bits random_seed random_wrap "
    "random_unwrap random_fold_in random_split".split()
)
"""Their results are constants to a relevance, whatever their dtype."""

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
    "unreduced_reduce_scatter vary_unreduced_cast pcast psum2".split()
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

BILINEAR = frozenset(MATMUL) | {"mul"}

LINEAR_IN_ONE = {"triangular_solve": 1, "tridiagonal_solve": 3}
"""Linear in the operand of this position (the right-hand side) and in no other."""

UNARY = frozenset(
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt cos cosh digamma erf erf_inv "
    "erfc exp exp2 expm1 integer_pow lgamma log log1p log2 logistic one_minus_square rsqrt sin "
    "sinh sqrt square tan tanh".split()
)

ELEMENTWISE = frozenset(
    "pow max min clamp rem atan2 nextafter igamma igammac polygamma polynomial "
    "regularized_incomplete_beta random_gamma_grad igamma_grad_a zeta".split()
)
"""Elementwise functions of several operands, none of them linear."""

ODD = frozenset(
    "abs asin asinh atan atanh cbrt erf erf_inv expm1 log1p sin sinh sqrt square tan tanh".split()
)
"""Functions of :data:`UNARY` that are 0 at 0."""

LOGICAL = frozenset(
    "eq ne ge gt le lt eq_to le_to lt_to and or not xor is_finite shift_left "
    "shift_right_arithmetic shift_right_logical population_count clz".split()
)

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
SELECTION = frozenset(["sort", "top_k", "approx_top_k"])
"""Each result is one of the operands' values: nothing is split, the plain VJP is exact."""

MAXIMUM = REDUCE_MAX | WINDOW_MAX | SELECTION

PARALLEL = frozenset({"optimization_barrier", "device_put", "copy_p", "psum", "psum_invariant"})
"""Several operands pass side by side: each result is made of the operand in its place."""

CALLS = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "closed_call": "call_jaxpr",
    "composite": "jaxpr",
    "jit": "jaxpr",
}
"""Calls and the parameter that holds their jaxpr."""

CONTROL = frozenset(CALLS) | {"scan", "cond", "remat2", "shard_map"}

OPAQUE = frozenset(
    "while pure_callback io_callback ffi_call pallas_call tpu_custom_call custom_call linear_call "
    "run_state".split()
)
"""Nothing of what happens inside can be seen, or turned round."""
