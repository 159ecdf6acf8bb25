"""The rules in relevance form, on dense matrices: an oracle that owes nothing to jaxrel.

jaxrel carries *multipliers* m = R / x through a jaxpr. Here the same rules are written down once
more, the way the papers do: a unit j owns relevance R_j, and hands each of its inputs i the share
that the contribution z_ij = x_i w_ij has in z_j,

    R_i = sum_j  z_ij / z_j  R_j

Everything is naive on purpose: one example at a time, flat float64 vectors, a layer is the dense
matrix W of shape (outputs, inputs), Shapley values go over every coalition. No rule uses JAX;
`dense` alone does, to read W and b off a layer.

    >>> x, W = np.array([1.0, 2.0]), np.array([[3.0, 1.0]])
    >>> gradient(x, W, np.array([5.0]), np.array([10.0]))
    Split(inputs=array([3., 2.]), bias=array([5.]))

Conventions: the sign of 0 is +1. 0 / 0 is 0: a unit worth nothing has nothing to hand on. That is
the price of the relevance form: the multiplier of such a unit is forgotten. Rules that need it
(`straight_through`, `repeat`, `guided_relu`) are stated on multipliers, and `signal` runs them.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]


class Split(NamedTuple):
    """Where a layer's relevance went.

    Attributes:
        inputs: What each input got.
        bias: What each output left with its own additive constant.
    """

    inputs: Array
    bias: Array


def ratio(a: Array, b: Array) -> Array:
    """A / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def stabilise(z: Array, eps: float) -> Array:
    """Z moved away from 0 by eps; 0 itself moves up."""
    return z + eps * np.where(z >= 0, 1.0, -1.0)


def positive(v: Array) -> Array:
    """The positive part v+."""
    return np.maximum(v, 0.0)


def negative(v: Array) -> Array:
    """The negative part v-, itself negative."""
    return np.minimum(v, 0.0)


# ------------------------------------------------------------------------------------- matmul
#
# z = W x + b, one affine map. `z[j, i]` is what input i contributes to output j; `bias=False`
# leaves the bias out of the denominators, so that the inputs share all of R among them.


def contributions(x: Array, W: Array) -> Array:
    """z_ij = x_i w_ij, as an array of shape (outputs, inputs)."""
    return W * x


def distribute(z: Array, b: Array, R: Array, eps: float = 0.0) -> Split:
    """Hand out R in proportion to the contributions `z` of the inputs and `b` of the bias."""
    per_unit = ratio(R, stabilise(z.sum(axis=1) + b, eps))
    return Split(z.T @ per_unit, b * per_unit)


def gradient(x: Array, W: Array, b: Array, R: Array) -> Split:
    """LRP-0: R_in = x * W^T (R / z)."""
    multiplier = ratio(R, W @ x + b)
    return Split(x * (W.T @ multiplier), b * multiplier)


def normalized(
    x: Array, W: Array, b: Array, R: Array, blip: float = 0.0, bias: bool = True
) -> Split:
    """The normalized rule: contributions over their sum, kept from 0 by a blip."""
    return distribute(contributions(x, W), b * bias, R, blip)


epsilon = normalized  # the same rule under the name that the field gave it


def gamma(
    x: Array, W: Array, b: Array, R: Array, gamma: float, eps: float = 0.0, bias: bool = True
) -> Split:
    """LRP-gamma: positive weights count (1 + gamma) times. Meant for x >= 0."""
    b = b * bias
    return distribute(contributions(x, W + gamma * positive(W)), b + gamma * positive(b), R, eps)


def generalized_gamma(
    x: Array, W: Array, b: Array, R: Array, gamma: float, eps: float = 0.0, bias: bool = True
) -> Split:
    """LRP-gamma for inputs of any sign.

    A positive output favours its positive contributions, a negative one its negative ones. The
    output's sign is that of the true output, bias included; an output of 0 hands on nothing.
    """
    z, out, b = contributions(x, W), W @ x + b, b * bias
    up = distribute(z + gamma * positive(z), b + gamma * positive(b), R * (out > 0), eps)
    down = distribute(z + gamma * negative(z), b + gamma * negative(b), R * (out < 0), eps)
    return Split(up.inputs + down.inputs, up.bias + down.bias)


def alpha_beta(
    x: Array,
    W: Array,
    b: Array,
    R: Array,
    alpha: float,
    beta: float,
    eps: float = 0.0,
    bias: bool = True,
) -> Split:
    """Alpha times R over the positive contributions, minus beta times R over the negative ones."""
    z, b = contributions(x, W), b * bias
    up = distribute(positive(z), positive(b), alpha * R, eps)
    down = distribute(negative(z), negative(b), beta * R, eps)
    return Split(up.inputs - down.inputs, up.bias - down.bias)


def z_plus(x: Array, W: Array, b: Array, R: Array, eps: float = 0.0, bias: bool = True) -> Split:
    """Only positive contributions count."""
    return distribute(positive(contributions(x, W)), positive(b * bias), R, eps)


def w_square(x: Array, W: Array, b: Array, R: Array, eps: float = 0.0, bias: bool = True) -> Split:
    """In proportion to the squared weights, whatever the input is."""
    del x
    return distribute(W**2, (b * bias) ** 2, R, eps)


def flat(
    x: Array, W: Array, b: Array, R: Array, eps: float = 0.0, mask: Array | None = None
) -> Split:
    """The same to every input that the output can see, and nothing to the bias.

    `mask` is what it sees: 1 where a weight exists, be it 0. Everything, by default.
    """
    del x
    seen = np.ones_like(W) if mask is None else mask
    return distribute(seen, np.zeros_like(b), R, eps)


def z_box(
    x: Array, W: Array, b: Array, R: Array, low: Array, high: Array, eps: float = 0.0
) -> Split:
    """Contributions counted from the end of the box low <= x <= high that lowers z the most."""
    z = np.where(W > 0, W * (x - low), W * (x - high))
    return distribute(z, np.zeros_like(b), R, eps)


def without(rule: Callable[..., Split]) -> Callable[..., Split]:
    """A matmul rule for layers of which only the inputs matter: its bias gets nothing."""
    return lambda x, W, b, R, **options: rule(x, W, b, R, bias=False, **options)


# ------------------------------------------------------------------------------- nonlinearity


@dataclass(frozen=True)
class Nonlinearity:
    """An elementwise function, with what the rules ask of it in a form that does not cancel.

    Attributes:
        f: The function.
        derivative: Its derivative.
        zero: f(0).
        increment: f(x) - f(0), exact also where x is tiny; f itself where f(0) is 0.
    """

    f: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    zero: float = 0.0
    increment: Callable[[Array], Array] | None = None

    def rise(self, x: Array) -> Array:
        """f(x) - f(0)."""
        return (self.increment or self.f)(x)


def slope(n: Nonlinearity, x: Array, R: Array) -> Split:
    """The part of R that f(x) - f(0) has in f(x) passes; f(0), a bias, keeps the rest."""
    multiplier = ratio(R, n.f(x))
    return Split(multiplier * n.rise(x), multiplier * n.zero)


def ignore(n: Nonlinearity, x: Array, R: Array) -> Split:
    """The relevance passes as if there were no nonlinearity."""
    del n, x
    return Split(R, np.zeros_like(R))


def nonlinearity_gradient(n: Nonlinearity, x: Array, R: Array) -> Split:
    """R_in = x f'(x) R / f(x). What does not pass went to nobody: the tangent's intercept."""
    multiplier = ratio(R, n.f(x))
    passed = x * n.derivative(x) * multiplier
    return Split(passed, multiplier * n.f(x) - passed)


def straight_through(n: Nonlinearity, x: Array, m: Array) -> Array:
    """On multipliers: m passes unchanged."""
    del n, x
    return m


def repeat(n: Nonlinearity, x: Array, m: Array) -> Array:
    """On multipliers, the deconvnet's: the nonlinearity is applied to what comes back."""
    del x
    return n.f(m)


def guided_relu(n: Nonlinearity, x: Array, m: Array) -> Array:
    """On multipliers: of what the chain rule gives, only what is positive passes."""
    return np.maximum(n.derivative(x) * m, 0.0)


def derivative(n: Nonlinearity, x: Array, m: Array) -> Array:
    """On multipliers: the chain rule."""
    return n.derivative(x) * m


_GELU = math.sqrt(2 / math.pi)


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(_GELU * (x + 0.044715 * x**3)))


def _gelu_tanh_derivative(x: Array) -> Array:
    gate = _gelu_tanh(x)
    return gate + x * 2 * gate * (1 - gate) * _GELU * (1 + 3 * 0.044715 * x**2)


def _mish_gate(x: Array) -> Array:
    return np.tanh(np.logaddexp(0.0, x))


NONLINEARITIES = {
    "relu": Nonlinearity(positive, lambda x: np.where(x > 0, 1.0, 0.0)),
    "leaky_relu": Nonlinearity(
        lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1.0, 0.01)
    ),
    "relu6": Nonlinearity(
        lambda x: np.clip(x, 0.0, 6.0), lambda x: np.where((x > 0) & (x < 6), 1.0, 0.0)
    ),
    "elu": Nonlinearity(
        lambda x: np.where(x > 0, x, np.expm1(negative(x))), lambda x: np.exp(negative(x))
    ),
    "tanh": Nonlinearity(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": Nonlinearity(
        special.expit,
        lambda x: special.expit(x) * special.expit(-x),
        zero=0.5,
        increment=lambda x: 0.5 * np.tanh(x / 2),
    ),
    "softplus": Nonlinearity(
        lambda x: np.logaddexp(0.0, x),
        special.expit,
        zero=math.log(2),
        # softplus(x) - log 2 = x/2 + log cosh(x/2), and log cosh(u) = log1p(2 sinh(u/2)^2); far
        # out, where sinh overflows, nothing cancels.
        increment=lambda x: np.where(
            abs(x) < 1,
            x / 2 + np.log1p(2 * np.sinh(np.clip(x, -1, 1) / 4) ** 2),
            np.logaddexp(0.0, x) - math.log(2),
        ),
    ),
    "silu": Nonlinearity(
        lambda x: x * special.expit(x),
        lambda x: special.expit(x) * (1 + x * special.expit(-x)),
    ),
    "gelu": Nonlinearity(
        lambda x: x * special.ndtr(x),
        lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
    ),
    "gelu_tanh": Nonlinearity(lambda x: x * _gelu_tanh(x), _gelu_tanh_derivative),
    "mish": Nonlinearity(
        lambda x: x * _mish_gate(x),
        lambda x: _mish_gate(x) + x * (1 - _mish_gate(x) ** 2) * special.expit(x),
    ),
    "hard_swish": Nonlinearity(
        lambda x: x * np.clip(x + 3, 0.0, 6.0) / 6,
        lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6)),
    ),
    "soft_sign": Nonlinearity(lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "square": Nonlinearity(lambda x: x**2, lambda x: 2 * x),
    "sin": Nonlinearity(np.sin, np.cos),
}
"""Every nonlinearity by its name in `jax.nn`."""


# ------------------------------------------------------------------------------------ maximum
#
# The shares, summing to 1, in which the values a share the relevance of their maximum. A minimum
# is min(a) = -max(-a): its shares are those of -a.


def winner(a: Array) -> Array:
    """All to the largest; ties share equally."""
    best = a == a.max()
    return best / best.sum()


def first_winner(a: Array) -> Array:
    """All to the first of the largest."""
    return np.where(np.arange(a.size) == a.argmax(), 1.0, 0.0)


def radial(a: Array) -> Array:
    """Positive values in proportion; if all are negative, in inverse proportion."""
    if a.max() > 0:
        return positive(a) / positive(a).sum()
    if a.max() == 0:
        return winner(a)
    return (1 / abs(a)) / (1 / abs(a)).sum()


def shapley(a: Array) -> Array:
    """The Shapley values of the game "max, absent players are 0", by its definition.

    phi_i = sum over the coalitions S without i of |S|! (n - |S| - 1)! / n! times what i adds to S.
    """
    n = a.size
    coalitions = np.array(list(itertools.product([False, True], repeat=n)))
    worth = np.where(coalitions, a, 0.0).max(axis=1)
    weights = np.array([math.factorial(s) * math.factorial(n - s - 1) for s in range(n)])
    values = np.zeros(n)
    for i in range(n):
        joined = coalitions[:, i]  # in this order, coalitions[joined] are ~joined and i
        size = coalitions[~joined].sum(axis=1)
        values[i] = (weights[size] / math.factorial(n)) @ (worth[joined] - worth[~joined])
    return values / a.max() if a.max() else winner(a)


def shapley_closed(a: Array) -> Array:
    """The same without coalitions: all who reach a level of the sorted values share its step.

    The players of an airport game pay for a runway so: its first stretch is for all of them, its
    last for the largest alone. Negative values reach nothing.
    """
    if a.max() < 0:
        return np.full(a.size, 1 / a.size)
    if a.max() == 0:
        return winner(a)
    levels = np.sort(a[a > 0])
    below = np.concatenate([[0.0], levels[:-1]])
    steps = (levels - below) / np.arange(levels.size, 0, -1)
    return np.array([steps[levels <= value].sum() for value in a]) / levels[-1]


def soft_maximum(a: Array, beta: float, digits: int = 60) -> Array:
    """What each value gets through (1/beta) log mean exp(beta a), by the slopes from a = 0.

    exp rises from 1 by expm1(beta a_i), the mean adds these up, log passes all of it on. The sum
    is the soft maximum itself. In decimal arithmetic: beta may be as large as a limit needs.
    """
    with localcontext() as context:
        context.prec = digits
        context.Emin, context.Emax = -(10**12), 10**12
        sharpness = Decimal(float(beta))
        exps = [(Decimal(float(value)) * sharpness).exp() for value in a]
        mean = sum(exps, Decimal(0)) / len(exps)
        log_slope = mean.ln() / (mean - 1) if mean != 1 else Decimal(1)
        return np.array([float(log_slope * (e - 1) / len(exps) / sharpness) for e in exps])


def softmax_limit(a: Array) -> Array:
    """The shares in `soft_maximum` at beta = inf: the winner; all alike if all are negative."""
    return np.full(a.size, 1 / a.size) if a.max() < 0 else winner(a)


def absolute_value(a: Array) -> Array:
    """Pairwise max(a, b) = (a + b) / 2 + |a - b| / 2, each sum by contribution, |.| ignored."""
    shares, best = np.ones(1), a[:1]
    for value in a[1:]:
        pair = np.array([best[0], value])
        total, gap = pair.sum(), pair[0] - pair[1]
        top = np.array([max(pair)])
        to_sum, to_gap = ratio(total / 2, top), ratio(np.asarray(abs(gap) / 2), top)
        split = to_sum * ratio(pair, np.asarray(total))
        split = split + to_gap * ratio(pair * [1, -1], np.asarray(gap))
        shares, best = np.append(shares * split[0], split[1]), top
    return shares


# ------------------------------------------------- product, quotient, normalization, softmax

HALF, FIRST, SECOND, BOTH = (0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)
"""What part of a product's relevance each factor gets; `BOTH` is the gradient's, and doubles."""
BY_DEGREE = None
"""Each factor's part is that of its factors: attention weights are made of two, values of one."""


def product(R: Array, parts: tuple[float, float]) -> tuple[Array, Array]:
    """Elementwise z = a b."""
    return parts[0] * R, parts[1] * R


def bilinear(A: Array, B: Array, R: Array, parts: tuple[float, float]) -> tuple[Array, Array]:
    """Z = A B, matrices: term by term a product, the terms by their share in the sum."""
    terms = A[:, :, None] * B[None, :, :]
    terms = terms * ratio(R, A @ B)[:, None, :]
    return parts[0] * terms.sum(axis=2), parts[1] * terms.sum(axis=0)


def quotient_detach(R: Array) -> tuple[Array, Array]:
    """Of z = a / b the numerator takes all."""
    return R, np.zeros_like(R)


def quotient_gradient(R: Array) -> tuple[Array, Array]:
    """Of z = a / b the numerator takes all, and the denominator takes it back."""
    return R, -R


def norm_matrix(x: Array, centered: bool, eps: float, live: bool) -> Array:
    """The Jacobian of x -> (x - mean) / std, or x / rms; `live`: of its statistics too."""
    n = x.size
    center = np.eye(n) - centered / n
    centred = center @ x
    std = math.sqrt((centred**2).mean() + eps)
    jacobian = center / std
    if live:
        jacobian = jacobian - np.outer(centred, centred) / (n * std**3)
    return jacobian


def softmax_gradient(x: Array, R: Array) -> Array:
    """R_in_i = x_i (R_i - s_i sum R), over the last axis; x = -inf got nothing, gives nothing."""
    s = special.softmax(x, axis=-1)
    return np.where(s > 0, x, 0.0) * (R - s * R.sum(axis=-1, keepdims=True))


def softmax_slope(x: Array, R: Array) -> Array:
    """Of softmax(x) from uniform shares on, over the last axis: by logarithmic means.

    log p - log p0 is x - x0 and a number for all, the one with which the shares add up to 1; each
    share changes by its logarithmic mean times that.
    """
    p = special.softmax(x, axis=-1)
    kept = np.isfinite(x)
    p0 = kept / kept.sum(-1, keepdims=True)
    logs = np.log(np.where(kept, p, 1)) - np.log(np.where(kept, p0, 1))
    mean = np.where(logs == 0, p, ratio(p - p0, logs))
    m = ratio(R, p)
    weights = mean / mean.sum(-1, keepdims=True)
    return np.where(kept, x, 0) * (mean * m - weights * (mean * m).sum(-1, keepdims=True))


def softmax_detach(x: Array, R: Array) -> Array:
    """The weights are constants: their relevance stops here."""
    del x
    return np.zeros_like(R)


# ----------------------------------------------------------------------------------- networks


@dataclass(frozen=True)
class Rules:
    """A rule for each kind of layer. The defaults are jaxrel's."""

    matmul: Callable[[Array, Array, Array, Array], Split] = gradient
    nonlinearity: Callable[[Nonlinearity, Array, Array], Split] = slope
    maximum: Callable[[Array], Array] = winner
    product: tuple[float, float] | None = BY_DEGREE
    softmax: Callable[[Array, Array], Array] = softmax_slope
    live_statistics: bool = False


class Layer(Protocol):
    """A function of one flat vector, and where the relevance of its output goes."""

    def forward(self, x: Array) -> Array:
        """The output."""
        ...

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """The relevance of the input, and what was left with constants."""
        ...


@dataclass(frozen=True)
class Affine:
    """z = W x + b: dense, convolution, convolution with BatchNorm. By the rule for matmul."""

    W: Array
    b: Array

    def forward(self, x: Array) -> Array:
        """The output."""
        return self.W @ x + self.b

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """By `rules.matmul`."""
        return rules.matmul(x, self.W, self.b, R)


class Linear(Affine):
    """The same by no rule, in proportion: average pooling, means, scales."""

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """By contribution."""
        del rules
        return gradient(x, self.W, self.b, R)


@dataclass(frozen=True)
class Elementwise:
    """A nonlinearity, by its name."""

    name: str

    def forward(self, x: Array) -> Array:
        """The output."""
        return NONLINEARITIES[self.name].f(x)

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """By `rules.nonlinearity`."""
        return rules.nonlinearity(NONLINEARITIES[self.name], x, R)


@dataclass(frozen=True)
class Maximum:
    """The maximum of each window, a window being the indices of what it covers."""

    windows: Sequence[NDArray[np.intp]]

    def forward(self, x: Array) -> Array:
        """The output."""
        return np.array([x[window].max() for window in self.windows])

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """By the shares that `rules.maximum` gives."""
        inputs = np.zeros_like(x)
        for window, relevance in zip(self.windows, R, strict=True):
            inputs[window] += relevance * rules.maximum(x[window])
        return Split(inputs, np.zeros_like(R))


@dataclass(frozen=True)
class Norm:
    """LayerNorm (`centered`) or RMSNorm of each token of x, with a scale and a shift."""

    scale: Array
    shift: Array
    centered: bool = True
    eps: float = 1e-6

    def forward(self, x: Array) -> Array:
        """The output."""
        tokens = x.reshape(-1, self.scale.size)
        matrices = [norm_matrix(t, self.centered, self.eps, live=False) for t in tokens]
        return np.concatenate(
            [self.scale * (J @ t) + self.shift for J, t in zip(matrices, tokens, strict=True)]
        )

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """In proportion through the Jacobian, of which the statistics may be a part."""
        multiplier = ratio(R, self.forward(x)).reshape(-1, self.scale.size)
        tokens = x.reshape(multiplier.shape)
        matrices = [norm_matrix(t, self.centered, self.eps, rules.live_statistics) for t in tokens]
        inputs = [
            t * (J.T @ (self.scale * m))
            for t, J, m in zip(tokens, matrices, multiplier, strict=True)
        ]
        return Split(np.concatenate(inputs), (multiplier * self.shift).ravel())


@dataclass(frozen=True)
class Attention:
    """Single-head self-attention of tokens (T, D), without biases; the weights are (in, out)."""

    query: Array
    key: Array
    value: Array
    output: Array
    causal: bool = False

    def _parts(self, x: Array) -> tuple[Array, ...]:
        tokens = x.reshape(-1, self.query.shape[0])
        q, k, v = tokens @ self.query, tokens @ self.key, tokens @ self.value
        logits = q @ k.T / math.sqrt(q.shape[1])
        if self.causal:
            logits = np.where(np.tri(len(tokens)) > 0, logits, -np.inf)
        weights = special.softmax(logits, axis=-1)
        return tokens, q, k, v, logits, weights, weights @ v

    def forward(self, x: Array) -> Array:
        """The output."""
        return (self._parts(x)[-1] @ self.output).ravel()

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """By the rules for matmul (4 times), product (2 times) and softmax."""
        tokens, q, k, v, logits, weights, mixed = self._parts(x)
        kept: list[Array] = []

        def project(inputs: Array, W: Array, relevance: Array) -> Array:
            rows = [
                rules.matmul(i, W.T, np.zeros(len(W.T)), r)
                for i, r in zip(inputs, relevance, strict=True)
            ]
            kept.extend(row.bias for row in rows)
            return np.array([row.inputs for row in rows])

        R_mixed = project(mixed, self.output, R.reshape(len(tokens), -1))
        R_weights, R_v = bilinear(weights, v, R_mixed, rules.product or (2 / 3, 1 / 3))
        R_logits = rules.softmax(logits, R_weights)
        R_q, R_kT = bilinear(q, k.T, R_logits, rules.product or HALF)
        inputs = (
            project(tokens, self.query, R_q)
            + project(tokens, self.key, R_kT.T)
            + project(tokens, self.value, R_v)
        )
        return Split(inputs.ravel(), np.concatenate(kept))


@dataclass(frozen=True)
class Sequential:
    """Layers one after the other; itself a layer."""

    layers: Sequence[Layer]

    def trace(self, x: Array) -> list[Array]:
        """The input and the output of every layer."""
        return list(itertools.accumulate(self.layers, lambda v, layer: layer.forward(v), initial=x))

    def forward(self, x: Array) -> Array:
        """The output."""
        return self.trace(x)[-1]

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """Layer by layer, from the last to the first."""
        kept: list[Array] = []
        for layer, value in zip(self.layers[::-1], self.trace(x)[-2::-1], strict=True):
            R, bias = layer.backward(value, R, rules)
            kept.append(bias)
        return Split(R, np.concatenate(kept))

    def relevance(self, x: Array, rules: Rules | None = None) -> Split:
        """The relevance of the inputs to the sum of the outputs: each output starts with itself."""
        return self.backward(x, self.forward(x), rules or Rules())


@dataclass(frozen=True)
class Residual:
    """x + g(x), the sum by contribution."""

    branch: Layer

    def forward(self, x: Array) -> Array:
        """The output."""
        return x + self.branch.forward(x)

    def backward(self, x: Array, R: Array, rules: Rules) -> Split:
        """Each of the two gets its share of the sum; the branch hands its own on."""
        multiplier = ratio(R, self.forward(x))
        inner = self.branch.backward(x, self.branch.forward(x) * multiplier, rules)
        return Split(x * multiplier + inner.inputs, inner.bias)


def signal(
    layers: Sequence[Affine | Elementwise],
    x: Array,
    rule: Callable[[Nonlinearity, Array, Array], Array],
) -> Array:
    """Relevance x * m of a method that acts on multipliers, m being 1 at every output.

    A matrix is passed by its transpose, a nonlinearity by `rule`.
    """
    values = Sequential(layers).trace(x)
    m = np.ones_like(values[-1])
    for layer, value in zip(layers[::-1], values[-2::-1], strict=True):
        if isinstance(layer, Affine):
            m = layer.W.T @ m
        else:
            m = rule(NONLINEARITIES[layer.name], value, m)
    return x * m


# ------------------------------------------------------------------------ from layers to arrays


def dense(fun: Callable[..., Any], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The matrix W (outputs, inputs) and the bias b of an affine JAX function."""
    import jax

    zero = np.zeros(shape)
    b = np.asarray(fun(zero), np.float64).ravel()
    W = np.asarray(jax.jacobian(fun)(zero), np.float64).reshape(b.size, zero.size)
    return W, b


def windows(
    shape: tuple[int, ...],
    size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Sequence[tuple[int, int]],
) -> list[NDArray[np.intp]]:
    """The indices that each window of a pooling covers; padding belongs to no window."""
    index = np.arange(math.prod(shape)).reshape(shape)
    starts = [
        range(-low, n + high - k + 1, stride)
        for n, k, stride, (low, high) in zip(shape, size, strides, padding, strict=True)
    ]
    return [
        index[tuple(slice(max(c, 0), c + k) for c, k in zip(corner, size, strict=True))].ravel()
        for corner in itertools.product(*starts)
    ]
