"""The oracle itself: it conserves, it agrees with itself, and what is wrong fails.

Nothing here touches jaxrel. An oracle is only worth what its own tests are: conservation to
1e-12, each closed form against its definition, derivatives against differences; and the negative
tests, in which a plausible wrong rule must be caught by the same checks.
"""

from functools import partial

import numpy as np
import pytest

from tests import oracle
from tests.oracle import Affine, Attention, Elementwise, Linear, Maximum, Norm, Residual

CONSERVING = {
    "gradient": oracle.gradient,
    "normalized": oracle.normalized,
    "gamma": partial(oracle.gamma, gamma=0.25),
    "generalized_gamma": partial(oracle.generalized_gamma, gamma=0.25),
    "alpha2_beta1": partial(oracle.alpha_beta, alpha=2.0, beta=1.0),
    "z_plus": oracle.z_plus,
    "w_square": oracle.w_square,
    "flat": oracle.flat,
    "z_box": partial(oracle.z_box, low=-np.full(7, 3.0), high=np.full(7, 4.0)),
}
IGNORING_BIAS = [name for name in CONSERVING if name not in ("gradient", "flat", "z_box")]


def _layer(rng, outputs=5, inputs=7):
    x, W = rng.normal(size=inputs), rng.normal(size=(outputs, inputs))
    return x, W, rng.normal(size=outputs), rng.normal(size=outputs)


def _total(split):
    return split.inputs.sum() + split.bias.sum()


def _close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------- matmul


@pytest.mark.parametrize("name", CONSERVING)
def test_matmul_rule_conserves_with_its_bias(rng, name):
    x, W, b, R = _layer(rng)
    _close(_total(CONSERVING[name](x, W, b, R)), R.sum())


@pytest.mark.parametrize("name", CONSERVING)
def test_matmul_rule_without_bias_conserves_over_the_inputs(rng, name):
    x, W, b, R = _layer(rng)
    _close(CONSERVING[name](x, W, 0 * b, R).inputs.sum(), R.sum())


@pytest.mark.parametrize("name", IGNORING_BIAS)
def test_bias_left_out_gets_nothing(rng, name):
    x, W, b, R = _layer(rng)
    split = CONSERVING[name](x, W, b, R, bias=False)
    assert not split.bias.any()
    _close(split.inputs.sum(), R.sum())


def test_blip_loses_what_it_says_it_loses(rng):
    x, W, b, R = _layer(rng)
    z = W @ x + b
    for blip in (1e-6, 0.5):
        kept = abs(z) / (abs(z) + blip)
        _close(_total(oracle.epsilon(x, W, b, R, blip)), (R * kept).sum())


def test_normalized_without_blip_is_gradient(rng):
    x, W, b, R = _layer(rng)
    _close(oracle.normalized(x, W, b, R).inputs, oracle.gradient(x, W, b, R).inputs)


def test_gamma_meets_its_neighbours(rng):
    x, W, b, R = _layer(rng)
    _close(oracle.gamma(x, W, b, R, 0.0).inputs, oracle.gradient(x, W, b, R).inputs)
    _close(oracle.generalized_gamma(x, W, b, R, 0.0).inputs, oracle.gradient(x, W, b, R).inputs)
    positive, up = abs(x), W @ abs(x) + b > 0
    _close(
        oracle.generalized_gamma(positive, W, b, R * up, 0.5).inputs,
        oracle.gamma(positive, W, b, R * up, 0.5).inputs,
    )
    _close(
        oracle.gamma(positive, W, b, R, 1e14).inputs,
        oracle.z_plus(positive, W, b, R).inputs,
        tolerance=1e-10,
    )


def test_z_plus_is_alpha1_beta0(rng):
    x, W, b, R = _layer(rng)
    _close(
        oracle.z_plus(x, W, b, R).inputs,
        oracle.alpha_beta(x, W, b, R, alpha=1.0, beta=0.0).inputs,
    )


def test_alpha_beta_by_parts_of_inputs_and_weights(rng):
    """The contributions' signs give what the four products of x+, x-, W+, W- give."""
    x, W, b, R = _layer(rng)
    up, down = oracle.positive, oracle.negative
    za = up(W) @ up(x) + down(W) @ down(x) + up(b)
    zb = down(W) @ up(x) + up(W) @ down(x) + down(b)
    sa, sb = R / za, R / zb
    expected = np.where(
        x >= 0,
        x * (2 * up(W).T @ sa - down(W).T @ sb),
        x * (2 * down(W).T @ sa - up(W).T @ sb),
    )
    _close(oracle.alpha_beta(x, W, b, R, alpha=2.0, beta=1.0).inputs, expected)


def test_generalized_gamma_by_parts_of_inputs_and_weights(rng):
    x, W, b, R = _layer(rng)
    up, down, z = oracle.positive, oracle.negative, W @ x + b
    Wp, Wn = W + 0.3 * up(W), W + 0.3 * down(W)
    P = (z > 0) * R / (Wp @ up(x) + Wn @ down(x) + b + 0.3 * up(b))
    N = (z < 0) * R / (Wn @ up(x) + Wp @ down(x) + b + 0.3 * down(b))
    expected = np.where(x >= 0, x * (Wp.T @ P + Wn.T @ N), x * (Wn.T @ P + Wp.T @ N))
    _close(oracle.generalized_gamma(x, W, b, R, 0.3).inputs, expected)


def test_z_box_cancels_the_bias(rng):
    x, W, b, R = _layer(rng)
    low, high, up, down = np.full(7, -3.0), np.full(7, 4.0), oracle.positive, oracle.negative
    D = (W @ x + b) - (up(W) @ low + up(b)) - (down(W) @ high + down(b))
    s = R / D
    expected = x * (W.T @ s) - low * (up(W).T @ s) - high * (down(W).T @ s)
    _close(oracle.z_box(x, W, b, R, low, high).inputs, expected)


def test_flat_sees_only_where_a_weight_exists():
    W, mask = np.array([[0.0, 2.0, 0.0]]), np.array([[1.0, 1.0, 0.0]])
    split = oracle.flat(np.ones(3), W, np.zeros(1), np.ones(1), mask=mask)
    _close(split.inputs, [0.5, 0.5, 0.0])


def test_sign_of_zero_is_positive():
    assert (oracle.stabilise(np.array([0.0, -0.0, -1.0]), 0.5) == [0.5, 0.5, -1.5]).all()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda x, W, b, R: x * (W.T @ (R / (W @ x))), id="bias missing from z"),
        pytest.param(lambda x, W, b, R: x * (W.T @ R), id="not divided by z"),
        pytest.param(lambda x, W, b, R: W.T @ (R / (W @ x + b)), id="not multiplied by x"),
        pytest.param(
            lambda x, W, b, R: (abs(W * x) / abs(W * x).sum(1, keepdims=True)).T @ R,
            id="magnitudes",
        ),
        pytest.param(
            lambda x, W, b, R: x * (W.T @ (R / (W @ x + b + 0.1))), id="stabilizer without sign"
        ),
    ],
)
def test_naive_wrong_rule_is_caught(rng, wrong):
    x, W, b, R = _layer(rng)
    right = oracle.gradient(x, W, b, R)
    assert abs(wrong(x, W, b, R) - right.inputs).max() > 1e-3
    assert abs(wrong(x, W, b, R).sum() + right.bias.sum() - R.sum()) > 1e-3 or (
        abs(oracle.gradient(x, W, 0 * b, R).inputs - wrong(x, W, 0 * b, R)).max() > 1e-3
    )


# ------------------------------------------------------------------------------- nonlinearity

POINTS = np.concatenate([np.linspace(-4.9, 4.95, 41), [8.0, -8.0, 30.0, -30.0]])


@pytest.mark.parametrize("name", oracle.NONLINEARITIES)
def test_derivative_is_that_of_the_function(name):
    n = oracle.NONLINEARITIES[name]
    h = 1e-6
    _close(n.derivative(POINTS), (n.f(POINTS + h) - n.f(POINTS - h)) / (2 * h), 1e-8)


@pytest.mark.parametrize("name", oracle.NONLINEARITIES)
def test_increment_is_that_of_the_function(name):
    n = oracle.NONLINEARITIES[name]
    _close(n.f(np.zeros(1)), n.zero, 1e-16)
    _close(n.rise(POINTS), n.f(POINTS) - n.zero, 1e-15)
    tiny = np.array([1e-9, -1e-9, 1e-30, -1e-30])
    _close(n.rise(tiny) / tiny, n.derivative(tiny / 2), 1e-12)


@pytest.mark.parametrize("name", oracle.NONLINEARITIES)
def test_slope_conserves_with_its_bias_and_gradient_does_not(rng, name):
    n, x = oracle.NONLINEARITIES[name], POINTS[abs(POINTS) < 10]  # sigmoid(-30): bias >> R
    R = rng.normal(size=x.size)
    split = oracle.slope(n, x, R)
    _close(split.inputs + split.bias, R * (n.f(x) != 0))
    lost = oracle.nonlinearity_gradient(n, x, R).inputs - split.inputs
    piecewise = name in ("relu", "leaky_relu")
    assert (abs(lost).max() < 1e-12) == piecewise


def test_ignore_is_slope_where_nothing_comes_from_nothing(rng):
    R = rng.normal(size=POINTS.size)
    for n in oracle.NONLINEARITIES.values():
        if n.zero == 0:
            worth = n.f(POINTS) != 0
            _close(oracle.slope(n, POINTS, R).inputs, oracle.ignore(n, POINTS, R).inputs * worth)


# ------------------------------------------------------------------------------------ maximum

VALUES = {
    "positive": [1.0, 4.0, 2.5, 0.5],
    "mixed": [-1.0, 4.0, 2.5, -0.5],
    "one positive": [-1.0, -4.0, 2.5, -0.5],
    "negative": [-1.0, -4.0, -2.5, -0.5],
    "tied": [3.0, 3.0, -1.0, 2.0],
    "tied below": [1.0, 1.0, 4.0, 1.0],
    "tied, negative": [-1.0, -1.0, -3.0],
    "with a zero": [0.0, 2.0, -1.0],
    "two": [0.25, 1.0],
    "two, negative": [-0.25, -1.0],
    "one": [-2.0],
}
SHARES = {
    "winner": oracle.winner,
    "first_winner": oracle.first_winner,
    "radial": oracle.radial,
    "shapley": oracle.shapley,
    "softmax_limit": oracle.softmax_limit,
    "absolute_value": oracle.absolute_value,
}


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("name", SHARES)
def test_shares_sum_to_one(name, case):
    _close(SHARES[name](np.array(VALUES[case])).sum(), 1.0)


@pytest.mark.parametrize("case", VALUES)
def test_shapley_closed_form_is_the_definition(case):
    a = np.array(VALUES[case])
    _close(oracle.shapley_closed(a), oracle.shapley(a))


@pytest.mark.parametrize("shift", [-5.0, -0.5, 0.0, 0.5, 5.0])
def test_shapley_closed_form_is_the_definition_anywhere(rng, shift):
    for size in range(1, 7):
        a = rng.normal(size=size) + shift
        _close(oracle.shapley_closed(a), oracle.shapley(a))


@pytest.mark.parametrize("case", VALUES)
def test_soft_maximum_reaches_its_limit(case):
    """As fast as the soft maximum the maximum, which is by log(n) / beta."""
    a = np.array(VALUES[case])
    for beta in (64.0, 1024.0, 1e6):
        got = oracle.soft_maximum(a, beta)
        _close(got.sum(), np.log(np.exp(beta * (a - a.max())).mean()) / beta + a.max())
        gap = abs(got - a.max() * oracle.softmax_limit(a)).max()
        assert gap <= np.log(a.size) / beta + 1e-12
    _close(got / got.sum(), oracle.softmax_limit(a), 1e-5)


def test_soft_maximum_at_no_beta_is_the_mean():
    a = np.array(VALUES["mixed"])
    _close(oracle.soft_maximum(a, 1e-18), a / a.size)


def test_soft_maximum_has_no_pole_where_nothing_rises():
    """Shares would: values that rise and fall alike sum to 0, and their parts do not vanish."""
    _close(oracle.soft_maximum(np.log(np.array([1.5, 0.5])), 1.0), [0.25, -0.25])


@pytest.mark.parametrize("case", ["positive", "mixed", "one positive", "negative", "two"])
def test_absolute_value_is_the_winner(case):
    a = np.array(VALUES[case])
    _close(oracle.absolute_value(a), oracle.winner(a))


def test_radial_is_radial(rng):
    for shift in (-4.0, 0.0, 4.0):
        a = rng.normal(size=5) + shift
        _close(oracle.radial(7.0 * a), oracle.radial(a))
    a = np.array(VALUES["one positive"])
    _close(oracle.radial(a), oracle.winner(a))
    assert abs(oracle.radial(a) - abs(a) / abs(a).sum()).max() > 0.1


# ------------------------------------------------------------- product, quotient, normalization


def test_half_conserves_and_both_does_not(rng):
    A, B = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    R = rng.normal(size=(3, 2))
    for parts, factor in (
        (oracle.HALF, 1),
        (oracle.FIRST, 1),
        (oracle.SECOND, 1),
        (oracle.BOTH, 2),
    ):
        R_A, R_B = oracle.bilinear(A, B, R, parts)
        _close(R_A.sum() + R_B.sum(), factor * R.sum())
    _close(oracle.bilinear(A, B, R, oracle.BOTH)[0], A * ((R / (A @ B)) @ B.T))


def test_softmax_gradient_is_x_times_the_transposed_jacobian(rng):
    x, R = rng.normal(size=5), rng.normal(size=5)
    s = np.exp(x) / np.exp(x).sum()
    _close(oracle.softmax_gradient(x, R), x * ((np.diag(s) - np.outer(s, s)).T @ (R / s)))
    assert abs(oracle.softmax_gradient(x, R) - R).max() > 1e-3


@pytest.mark.parametrize("centered", [True, False])
def test_norm_matrix_is_the_jacobian(rng, centered):
    x, h = rng.normal(size=6), 1e-6
    norm = Norm(np.ones(6), np.zeros(6), centered)
    numeric = [(norm.forward(x + h * e) - norm.forward(x - h * e)) / (2 * h) for e in np.eye(6)]
    _close(oracle.norm_matrix(x, centered, norm.eps, live=True), np.array(numeric).T, 1e-8)
    _close(oracle.norm_matrix(x, centered, norm.eps, live=False) @ x, norm.forward(x))


def test_detached_norm_conserves_and_live_norm_annihilates(rng):
    x, R = rng.normal(size=12), rng.normal(size=12)
    norm = Norm(rng.normal(size=4), rng.normal(size=4))
    _close(_total(norm.backward(x, R, oracle.Rules())), R.sum())
    assert abs(norm.backward(x, R, oracle.Rules(live_statistics=True)).inputs.sum()) < 1e-4


# ----------------------------------------------------------------------------------- networks


def _dense(rng, outputs, inputs, bias=True):
    return Affine(rng.normal(size=(outputs, inputs)) / 2, bias * rng.normal(size=outputs) / 2)


def _mlp(rng, bias=True, name="relu"):
    return [
        _dense(rng, 8, 6, bias),
        Elementwise(name),
        _dense(rng, 8, 8, bias),
        Elementwise(name),
        _dense(rng, 3, 8, bias),
    ]


def _pooled(rng, bias=True):
    pool = oracle.windows((4, 4), (3, 3), (2, 2), [(1, 1), (1, 1)])
    mean = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    return [
        _dense(rng, 16, 6, bias),
        Maximum(pool),
        Elementwise("tanh"),
        Linear(mean, np.zeros(2)),
        _dense(rng, 3, 2, bias),
    ]


def _residual(rng, bias=True):
    branch = oracle.Sequential([_dense(rng, 6, 6, bias), Elementwise("relu")])
    return [_dense(rng, 6, 6, bias), Residual(branch), Residual(branch), _dense(rng, 3, 6, bias)]


def _transformer(rng, bias=True):
    weights = [rng.normal(size=(3, 3)) for _ in range(4)]
    norm = Norm(1 + rng.normal(size=3) / 4, bias * rng.normal(size=3))
    attention = oracle.Sequential([norm, Attention(*weights, causal=True)])
    mlp = oracle.Sequential([norm, _dense(rng, 6, 6, bias), Elementwise("gelu")])
    return [Residual(attention), Residual(mlp)]


NETWORKS = {
    "mlp": _mlp,
    "gelu mlp": partial(_mlp, name="gelu"),
    "sigmoid mlp": partial(_mlp, name="sigmoid"),
    "pooled": _pooled,
    "residual": _residual,
    "transformer": _transformer,
}


@pytest.mark.parametrize("maximum", [oracle.winner, oracle.radial, oracle.shapley])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_conserves(rng, name, maximum):
    """All relevance is at the inputs or with a constant; the attention adds what R sums over.

    The gradient of softmax conserves nothing by itself: its relevance is cut off here.
    """
    x, network = rng.normal(size=6), oracle.Sequential(NETWORKS[name](rng))
    rules = oracle.Rules(maximum=maximum, product=oracle.SECOND, softmax=oracle.softmax_detach)
    _close(_total(network.relevance(x, rules)), network.forward(x).sum())


@pytest.mark.parametrize("name", ["mlp", "gelu mlp", "pooled", "residual"])
def test_network_without_biases_conserves_over_its_inputs(rng, name):
    x, network = rng.normal(size=6), oracle.Sequential(NETWORKS[name](rng, bias=False))
    _close(network.relevance(x).inputs.sum(), network.forward(x).sum())


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_everywhere_is_input_times_gradient(rng, name):
    x, h = rng.normal(size=6), 1e-6
    network = oracle.Sequential(NETWORKS[name](rng))
    rules = oracle.Rules(
        nonlinearity=oracle.nonlinearity_gradient, product=oracle.BOTH, live_statistics=True
    )
    numeric = [
        (network.forward(x + h * e) - network.forward(x - h * e)).sum() / (2 * h) for e in np.eye(6)
    ]
    _close(network.relevance(x, rules).inputs, x * numeric, 1e-7)


def test_slope_is_gradient_on_relu_networks(rng):
    x, network = rng.normal(size=6), oracle.Sequential(_mlp(rng))
    gradient = oracle.Rules(nonlinearity=oracle.nonlinearity_gradient)
    _close(network.relevance(x).inputs, network.relevance(x, gradient).inputs)


def test_signal_of_the_chain_rule_is_the_gradient(rng):
    x, layers = rng.normal(size=6), _mlp(rng, name="tanh")
    gradient = oracle.Rules(nonlinearity=oracle.nonlinearity_gradient)
    _close(
        oracle.signal(layers, x, oracle.derivative),
        oracle.Sequential(layers).relevance(x, gradient).inputs,
    )


def test_duplicated_residual_is_caught(rng):
    """What a residual sum does when no rule maps it: both branches get everything."""
    x = rng.normal(size=6)
    branch, R = _dense(rng, 6, 6), rng.normal(size=6)
    right = Residual(branch).backward(x, R, oracle.Rules())
    wrong = R + branch.backward(x, R, oracle.Rules()).inputs
    _close(_total(right), R.sum())
    assert abs(wrong - right.inputs).max() > 0.1


def test_windows_leave_the_padding_out():
    pool = oracle.windows((3,), (2,), (2,), [(1, 0)])
    assert [w.tolist() for w in pool] == [[0], [1, 2]]
    shape, size = (1, 4, 5), (1, 3, 2)
    pool = oracle.windows(shape, size, (1, 1, 1), [(0, 0)] * 3)
    assert len(pool) == 2 * 4
    assert pool[0].tolist() == [0, 1, 5, 6, 10, 11]


def test_dense_reads_weights_and_bias(rng):
    _, W, b, _ = _layer(rng)
    read_W, read_b = oracle.dense(lambda x: W @ x + b, (7,))
    _close(read_W, W)
    _close(read_b, b)
