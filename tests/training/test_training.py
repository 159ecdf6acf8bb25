"""`jaxrel.training`: penalties against numpy, references, and the loss wherever it has to work."""

import functools
import os
import socket
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxrel
from jaxrel import training


def network(params, x):
    hidden = jax.nn.relu(x.reshape(len(x), -1) @ params["first"] + params["bias"])
    return jax.nn.softplus(hidden @ params["second"]) @ params["last"]


@pytest.fixture
def params(rng):
    shapes = {"first": (36, 8), "bias": (8,), "second": (8, 6), "last": (6, 3)}
    return {name: jnp.asarray(rng.normal(0, 0.5, shape)) for name, shape in shapes.items()}


@pytest.fixture
def batch(rng):
    x = jnp.asarray(rng.uniform(0, 1, (16, 6, 6, 1)))
    mask = jnp.asarray(rng.uniform(size=(16, 6, 6, 1)) < 0.4, x.dtype)
    return x, jnp.asarray(rng.integers(0, 3, 16)), mask


def leaves_close(a, b, rtol=1e-9):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol, 1e-12), a, b)


# Penalties


def test_penalties_are_their_formulas(rng):
    relevance, mask = rng.normal(size=(5, 4, 4, 2)), rng.integers(0, 2, (5, 4, 4, 1))
    outside, inside = relevance * (1 - mask), relevance * mask
    total = functools.partial(np.sum, axis=(1, 2, 3))
    expected = {
        "outside_share": total(abs(outside)) / total(abs(relevance)),
        "in_mask_share": total(abs(inside)) / total(abs(relevance)),
        "energy": total(outside**2) / total(relevance**2),
        "outside_absolute": total(abs(outside)),
        "outside_absolute_squared": total(abs(outside)) ** 2,
        "outside_sum_absolute": abs(total(outside)),
        "outside_sum_squared": total(outside) ** 2,
        "right_reasons": total(outside**2),
    }
    for name, value in expected.items():
        found = getattr(training, name)(jnp.asarray(relevance), mask)
        np.testing.assert_allclose(found, value, rtol=1e-9, err_msg=name)


def test_ranked_background_pools_the_strongest():
    relevance = jnp.asarray([[2.0, 2.0, -6.0, 3.0, 0.0]])
    mask = jnp.asarray([[1.0, 1.0, 0.0, 0.0, 0.0]])
    weights = 0.5 ** np.arange(5)
    pooled = (3.0 + 0.5 * 1.5) / weights.sum()  # in units of the foreground's mean, 2
    expected = -np.log(1 - pooled / (pooled + 1.5))
    found = training.ranked_background(relevance, mask, decay=0.5, scale=1.5)
    np.testing.assert_allclose(found, [expected], rtol=1e-9)


def test_in_range_foreground_is_zero_inside_the_range():
    relevance = jnp.asarray([[0.5, 9.0], [-2.0, 9.0], [30.0, 9.0]])
    found = training.in_range_foreground(relevance, jnp.asarray([[1.0, 0.0]]))
    np.testing.assert_allclose(found, [0.25, 0.0, 0.04])


@pytest.mark.parametrize("name", ["outside_share", "energy", "ranked_background"])
def test_penalties_with_a_denominator_ignore_the_scale(name, rng):
    relevance, mask = jnp.asarray(rng.normal(size=(4, 9))), jnp.asarray(rng.integers(0, 2, (4, 9)))
    penalty = getattr(training, name)
    leaves_close(penalty(relevance, mask), penalty(7 * relevance, mask), 1e-6)


@pytest.mark.parametrize(
    "name", ["outside_share", "energy", "isnet", "outside_sum_squared", "in_mask_share"]
)
def test_no_relevance_and_empty_masks_are_finite(name):
    for relevance in (jnp.zeros((1, 4)), jnp.ones((1, 4))):
        for mask in (jnp.zeros((1, 4)), jnp.ones((1, 4))):
            value, slope = jax.value_and_grad(
                lambda r, mask=mask: getattr(training, name)(r, mask).sum()
            )(relevance)
            assert np.isfinite(value) and np.isfinite(slope).all()


@pytest.mark.parametrize("shape", [(4, 6, 6), (6, 6, 1), (3, 6, 6, 1), (4, 6, 6, 2)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"mask: .* does not broadcast to the relevance, \(4, 6"):
        training.outside_share(jnp.ones((4, 6, 6, 1)), jnp.ones(shape))


# References


def test_references(rng):
    x, key = jnp.asarray(rng.uniform(size=(3, 9, 9, 2))), jax.random.key(0)
    assert (training.blank(x, 0.5) == 0.5).all() and training.blank(x).shape == x.shape
    np.testing.assert_allclose(training.mean(x)[1], x.mean(0))
    constant = jnp.full_like(x, 0.25)
    np.testing.assert_allclose(training.blur(constant), constant, rtol=1e-9)
    assert training.blur(x, 1.0).var() < x.var()
    assert abs(np.std(training.noise(key, x, 0.1) - x) - 0.1) < 0.02


def test_blur_is_a_gaussian():
    spot = jnp.zeros((1, 21, 21, 1)).at[0, 10, 10, 0].set(1)
    distance = np.arange(21) - 10
    row = np.exp(-(distance**2) / 8) / np.exp(-(np.arange(-40, 41) ** 2) / 8).sum()
    np.testing.assert_allclose(training.blur(spot, 2.0)[0, :, :, 0], np.outer(row, row), atol=1e-4)


def test_another_is_of_another_group():
    groups = jnp.asarray([0, 1, 1, 2, 0, 1])
    chosen = [training.another(jax.random.key(seed), groups) for seed in range(20)]
    assert all((groups[found] != groups).all() for found in chosen)
    assert len({int(found[0]) for found in chosen}) > 2
    alone = training.another(jax.random.key(0), jnp.zeros(4, int))
    assert ((alone >= 0) & (alone < 4)).all()
    assert (training.another(jax.random.key(0), groups, jnp.asarray([2, 2, 1]))[3] == 2).all()


@pytest.mark.parametrize("how", ["mean", "mirror"])
def test_filling_keeps_the_background_and_removes_the_object(how, rng):
    mask = jnp.zeros((1, 6, 6, 1)).at[0, 2:4, :2].set(1)
    x = jnp.where(mask > 0, 9.0, jnp.asarray(rng.uniform(size=(1, 6, 6, 1))))
    filled = training.fill_background(x, mask, how)
    assert (filled[mask == 0] == x[mask == 0]).all() and filled.max() < 1
    if how == "mirror":
        np.testing.assert_allclose(filled[0, 2:4, :2], x[0, 2:4, ::-1][:, :2])


def test_swapping_keeps_the_object_and_takes_a_background_of_another_group(rng):
    masks = jnp.zeros((4, 6, 6, 1)).at[:, 1:4, 1:4].set(1)
    labels = jnp.asarray([0, 1, 0, 1])
    x = masks * jnp.asarray(rng.uniform(size=(4, 6, 6, 1))) + (1 - masks) * labels.reshape(
        4, 1, 1, 1
    )
    swapped = training.swap_background(jax.random.key(0), x, masks, labels)
    assert (swapped * masks == x * masks).all()
    expected = (1 - masks) * (1 - labels.reshape(4, 1, 1, 1))
    np.testing.assert_allclose(swapped * (1 - masks), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: training.blur(x, 0), "sigma: expected a positive number"),
        (lambda x: training.blur(x[0]), r"x: expected a batch of pictures \(N, H, W, C\)"),
        (lambda x: training.fill_background(x, x[:2]), r"mask: \(2, 6, 6, 1\) does not fit"),
        (lambda x: training.fill_background(x, x, "paint"), "expected one of 'mean', 'mirror'"),
        (lambda x: training.on_background(x, x[..., 0], x), "mask: expected a batch of pictures"),
    ],
)
def test_references_refuse_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((3, 6, 6, 1)))


# The loss


def test_the_loss_is_task_and_penalty(params, batch):
    x, labels, mask = batch
    loss = training.relevance_loss(network, "slope", training.outside_absolute, weight=0.3)
    total, outcome = loss(params, x, labels, mask)

    def value(x):
        return training.margin(network(params, x), labels)

    relevance = jaxrel.relevance(value, "slope")(x)
    logits = network(params, x)
    task = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(jax.nn.softplus(-value(x)).mean(), task, rtol=1e-9)
    penalty = training.outside_absolute(relevance, mask).mean()
    leaves_close(outcome.relevance, relevance)
    leaves_close((outcome.logits, outcome.value), (logits, value(x)))
    metrics = {"task": task, "penalty": penalty, "loss": task + 0.3 * penalty}
    metrics["in_mask"] = training.in_mask_share(relevance, mask).mean()
    leaves_close(outcome.metrics, metrics)
    assert total == outcome.metrics["loss"] and outcome.aux is None


def test_the_gradient_is_that_of_finite_differences(params, batch):
    x, labels, mask = batch
    loss = training.relevance_loss(
        network, None, training.outside_sum_squared, weight=0.5, counterfactual=0.7
    )
    total = functools.partial(loss, baseline=x[::-1])
    direction = jax.tree.map(
        lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )

    def along(t):
        moved = jax.tree.map(lambda leaf, d: leaf + t * d, params, direction)
        return total(moved, x, labels, mask)[0]

    step = 1e-5
    expected = (along(step) - along(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(along)(0.0), expected, rtol=1e-5)


def test_right_reasons_is_the_double_backprop_penalty(params, batch):
    x, labels, mask = batch
    loss = training.relevance_loss(
        network, "gradient", training.right_reasons, of="multiplier", explained=training.margin
    )

    def by_hand(params):
        logits = network(params, x)
        slope = jax.grad(lambda x: training.margin(network(params, x), labels).sum())(x)
        task = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return task + ((slope * (1 - mask)) ** 2).sum((1, 2, 3)).mean()

    leaves_close(
        jax.grad(by_hand)(params), jax.grad(lambda p: loss(p, x, labels, mask)[0])(params), 1e-7
    )


def test_against_the_same_object_the_sum_is_the_change_of_the_output(params, batch):
    x, labels, mask = batch
    reference = training.swap_background(jax.random.key(0), x, mask)
    loss = training.relevance_loss(network, None, training.outside_sum_squared, counterfactual=1.0)
    _, outcome = loss(params, x, labels, mask, baseline=reference)
    there = training.margin(network(params, reference), labels)
    change = ((outcome.value - there) ** 2).mean()
    np.testing.assert_allclose(outcome.metrics["penalty"], change, rtol=1e-9)
    found = outcome.metrics["counterfactual"]
    np.testing.assert_allclose(found, jax.nn.softplus(-there).mean(), rtol=1e-9)


def test_examples_without_a_mask_are_left_out(params, batch):
    x, labels, mask = batch
    known = jnp.arange(16) < 4
    loss = training.relevance_loss(network, "slope", training.outside_share)
    _, some = loss(params, x, labels, mask, known=known.astype(x.dtype))
    _, four = loss(params, x[:4], labels[:4], mask[:4])
    leaves_close(some.metrics["penalty"], four.metrics["penalty"] / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "heat"}, "of: expected 'relevance' or 'multiplier', got 'heat'"),
        ({"of": "multiplier", "counterfactual": 1.0}, "counterfactual: needs of='relevance'"),
        ({"explained": lambda logits, labels: logits.sum()}, "explained: expected one number"),
        ({"explained": lambda logits, labels: logits}, r"each of the 16 .* got \(16, 3\)"),
        ({"penalty": lambda r, m: r.sum()}, "penalty: expected one number"),
        ({"task": lambda logits, labels: jnp.mean(logits)}, "task: expected one number"),
    ],
)
def test_a_loss_refuses_what_does_not_fit(options, message, params, batch):
    options = {"penalty": training.outside_share} | options
    with pytest.raises(ValueError, match=message):
        training.relevance_loss(network, "slope", **options)(params, *batch)


def test_a_multiplier_has_no_baseline(params, batch):
    loss = training.relevance_loss(network, "gradient", training.right_reasons, of="multiplier")
    with pytest.raises(ValueError, match="baseline: there is none for of='multiplier'"):
        loss(params, *batch, baseline=0.0)


class Convolutions(nn.Module):
    """A small network, with BatchNorm and dropout where asked for."""

    norm: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        if self.norm:
            x = nn.Dropout(0.3, deterministic=not train)(x)
        return nn.Dense(3)(x.reshape(len(x), -1))


def test_a_step_costs_no_more_than_double_backprop(batch):
    x, labels, mask = batch
    model = Convolutions()
    params = model.init(jax.random.key(0), x)
    slope = training.relevance_loss(model.apply, "slope", training.outside_share)

    def double(params):
        def value(x):
            logits = model.apply(params, x)
            return training.margin(logits, labels).sum(), logits

        gradient, logits = jax.grad(value, has_aux=True)(x)
        task = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return task + ((gradient * (1 - mask)) ** 2).sum((1, 2, 3)).mean()

    def flops(fun):
        return jax.jit(jax.grad(fun)).lower(params).compile().cost_analysis()["flops"]

    assert flops(lambda p: slope(p, x, labels, mask)[0]) <= 1.1 * flops(double)


def test_batch_statistics_and_dropout(batch):
    x, labels, mask = batch
    model = Convolutions(norm=True)
    variables = model.init(jax.random.key(0), x)

    def fun(params, x, stats, key):
        return model.apply(
            {"params": params, "batch_stats": stats},
            x,
            train=True,
            mutable="batch_stats",
            rngs={"dropout": key},
        )

    loss = training.relevance_loss(fun, "slope", training.outside_share, has_aux=True)
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=optax.adam(1e-2))
    stats, key = variables["batch_stats"], jax.random.key(1)

    @jax.jit
    def step(state, stats, key):
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (_, outcome), grads = value_and_grad(state.params, x, labels, mask, stats, key)
        return state.apply_gradients(grads=grads), outcome

    _, outcome = step(state, stats, key)
    logits, aux = fun(variables["params"], x, stats, key)
    leaves_close((outcome.logits, outcome.aux), (logits, aux))
    losses = []
    for number in range(8):
        state, outcome = step(state, stats, jax.random.fold_in(key, number))
        stats = outcome.aux["batch_stats"]
        losses.append(float(outcome.metrics["loss"]))
    assert losses[-1] < losses[0]


def test_nnx(batch):
    x, labels, mask = batch

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = nnx.Linear(36, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.second(nnx.relu(self.first(x.reshape(len(x), -1))))

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    graph = nnx.graphdef(model)
    loss = training.relevance_loss(
        lambda params, x: nnx.merge(graph, params)(x), "slope", training.outside_share
    )
    losses = []
    for _ in range(5):
        params = nnx.state(model, nnx.Param)
        (total, _), grads = jax.value_and_grad(loss, has_aux=True)(params, x, labels, mask)
        optimizer.update(model, grads)
        losses.append(float(total))
    assert losses[-1] < losses[0]


# Parts of a batch


def sweep(params, x, labels, mask, reference):
    """Value and gradient of the loss that the tests below compare."""
    loss = training.relevance_loss(
        network, None, training.outside_sum_squared, weight=0.1, counterfactual=1.0
    )

    def metrics(params, x, labels, mask, reference):
        total, outcome = loss(params, x, labels, mask, baseline=reference)
        return total, outcome.metrics

    return jax.value_and_grad(metrics, has_aux=True)(params, x, labels, mask, reference)


def test_microbatches_add_up(params, batch):
    batch = (*batch, batch[0][::-1])
    leaves_close(
        sweep(params, *batch), jax.jit(training.accumulate(sweep, 4))(params, *batch), 1e-7
    )


def test_microbatches_must_divide_the_batch(params, batch):
    with pytest.raises(ValueError, match=r"batch\[0\]\[0\]: .* 5 microbatches .* \(16, 6, 6, 1\)"):
        training.accumulate(sweep, 5)(params, *batch, batch[0])


def test_a_sharded_batch_gives_the_single_device_step(params, batch):
    assert jax.device_count() >= 8
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    batch = (*batch, batch[0][::-1])
    step = jax.jit(sweep, in_shardings=(whole, split, split, split, split), out_shardings=whole)
    found = step(params, *batch)
    assert len(jax.tree.leaves(found)[0].sharding.device_set) == 8
    leaves_close(found, jax.jit(sweep)(params, *batch), 1e-7)


def test_two_processes_give_the_single_device_step(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("training_process.py")
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(port), str(number)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
        assert "4 devices, same step" in output
