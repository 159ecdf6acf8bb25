"""`relevance_loss(..., outside_only=True)`: the same numbers, no derivative of a derivative."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import rulesets, training

LABELS = jnp.arange(12) % 3


class Pictures(nn.Module):
    """Convolutions with a norm of the whole batch, dropout, and a maximum."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(6, (3, 3), param_dtype=jnp.float64)(x)
        x = nn.BatchNorm(use_running_average=False, param_dtype=jnp.float64)(x)
        x = nn.max_pool(nn.gelu(x), (2, 2), (2, 2))
        x = nn.Dropout(0.3, deterministic=False)(x.reshape(len(x), -1))
        return nn.Dense(3, param_dtype=jnp.float64)(x)


class Words(nn.Module):
    """Attention, and a norm of each word."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(param_dtype=jnp.float64)(x)
        x = x + nn.MultiHeadDotProductAttention(2, param_dtype=jnp.float64)(x)
        return nn.Dense(3, param_dtype=jnp.float64)(jnp.tanh(x).mean(1))


def pictures(rng):
    x = jnp.asarray(rng.uniform(size=(12, 6, 6, 1)))
    mask = jnp.zeros((12, 6, 6, 1)).at[:, 1:4, 1:5].set(1)
    return x, mask, training.swap_background(jax.random.key(0), x, mask, LABELS)


def words(rng):
    x, other = jnp.asarray(rng.normal(size=(2, 12, 5, 4)))
    mask = jnp.zeros((12, 5, 1)).at[:, 2:4].set(1)
    return x, mask, jnp.where(mask > 0, x, other)


def both(fun, penalty, params, batch, *rest, **options):
    """Value and gradient by parameters, pictures and reference, in two ways."""
    x, mask, reference = batch
    known = jnp.ones(12).at[3].set(0)

    def way(outside_only):
        loss = training.relevance_loss(
            fun, None, penalty, weight=0.3, outside_only=outside_only, **options
        )

        def total(params, x, reference):
            return loss(params, x, LABELS, mask, *rest, baseline=reference, known=known)

        return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(params, x, reference)

    return way(False), way(True)


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), one, other)


@pytest.mark.every_case
@pytest.mark.parametrize("penalty", [training.outside_sum_squared, training.outside_sum_absolute])
def test_pictures(penalty, rng):
    batch, model, key = pictures(rng), Pictures(), jax.random.key(2)
    variables = model.init({"params": key, "dropout": key}, batch[0])

    def fun(params, x, stats, key):
        at = {"params": params, "batch_stats": stats}
        return model.apply(at, x, mutable="batch_stats", rngs={"dropout": key})

    rest = (variables["batch_stats"], key)
    long, short = both(
        fun, penalty, variables["params"], batch, *rest, counterfactual=0.7, has_aux=True
    )
    # what a norm of the batch does to the pictures beside it is no one's relevance
    close(long[0][1].aux, short[0][1].aux)
    close(long[0][1].logits, short[0][1].logits)
    assert np.isfinite(short[0][0]) and short[0][1].metrics["penalty"] > 0


def test_words_whose_reference_is_learned_too(rng):
    batch, model = words(rng), Words()
    params = model.init(jax.random.key(1), batch[0])
    long, short = both(model.apply, training.outside_sum_squared, params, batch, counterfactual=1.0)
    close(long[0], short[0])
    close(long[1][0], short[1][0])
    outside = 1 - batch[1]  # within the mask x and reference move together, or the promise breaks
    close(long[1][1] * outside, short[1][1] * outside)
    close(long[1][2] * outside, short[1][2] * outside)
    close(long[1][1] + long[1][2], short[1][1] + short[1][2])


def test_it_costs_two_plain_steps(rng):
    x, mask, reference = pictures(rng)
    layers = [nn.Conv(8, (3, 3)), nn.relu, lambda x: x.reshape(len(x), -1), nn.Dense(3)]
    model = nn.Sequential(layers)
    params = model.init(jax.random.key(0), x)

    def flops(total):
        return jax.jit(jax.grad(total)).lower(params).compile().cost_analysis()["flops"]

    def recipe(outside_only):
        loss = training.relevance_loss(
            model.apply,
            "compare_to_baseline",
            training.outside_sum_squared,
            counterfactual=1.0,
            outside_only=outside_only,
        )
        return flops(lambda params: loss(params, x, LABELS, mask, baseline=reference)[0])

    def double(params):
        def value(x):
            logits = model.apply(params, x)
            return training.margin(logits, LABELS).sum(), logits

        slope, logits = jax.grad(value, has_aux=True)(x)
        return logits.sum() + training.right_reasons(slope, mask).mean()

    penalty = flops(double)
    assert recipe(True) <= 1.2 * penalty < recipe(False) <= 2.5 * penalty


@pytest.mark.every_case
@pytest.mark.parametrize(
    ("penalty", "rules", "options", "message"),
    [
        (training.outside_share, None, {}, "outside_only: for outside_sum_absolute and outside_"),
        (training.outside_sum_squared, "slope", {}, "rules 'compare_to_baseline', complete for al"),
        (training.outside_sum_squared, "deeplift_rescale", {}, "only then the sum is the change"),
        (training.outside_sum_squared, None, {"of": "multiplier"}, "needs of='relevance'"),
    ],
)
def test_what_the_sum_does_not_determine_is_refused(penalty, rules, options, message):
    with pytest.raises(ValueError, match=message):
        training.relevance_loss(jnp.sin, rules, penalty, outside_only=True, **options)


@pytest.mark.every_case
@pytest.mark.parametrize("baseline", [None, 0.0, jnp.zeros((3, 2, 2))])
def test_the_reference_is_one_for_each_example(baseline):
    loss = training.relevance_loss(
        lambda p, x: p * x, None, training.outside_sum_squared, outside_only=True
    )
    x = jnp.ones((4, 2))
    with pytest.raises(ValueError, match=r"expected a baseline in the shape of x, \(4, 2\), got"):
        loss(2.0, x, jnp.zeros(4, int), jnp.zeros((4, 2)), baseline=baseline)


def test_the_preset_as_a_value_is_taken_too(rng):
    x, mask, reference = words(rng)
    found = [
        training.relevance_loss(
            lambda p, x: p * x.sum(1), rules, training.outside_sum_squared, outside_only=True
        )(1.5, x, LABELS, mask, baseline=reference)
        for rules in (None, "compare_to_baseline", rulesets.compare_to_baseline())
    ]
    close(found[0], found[1])
    close(found[0], found[2])
    value = jaxrel.relevance(lambda x: training.margin(1.5 * x.sum(1), LABELS), baseline=reference)(
        x
    )
    close(found[0][1].relevance, value)
