"""The task loss and a penalty on relevance, in one function with one shared forward pass.

    loss = relevance_loss(fun, "slope", outside_share, weight=0.1)
    (total, outcome), grads = jax.value_and_grad(loss, has_aux=True)(params, x, labels, masks)

    total = mean task(logits, labels) + weight * mean penalty(R, masks)     R = relevance of
            [+ counterfactual * mean task of (value - R outside)]           value = margin(logits)

The forward pass that makes the logits is the one that relevance is computed from. Everything is a
mean over examples of something of each example, so microbatches of equal size and shards of a batch
give the same numbers as the whole batch (but for layers that mix examples, such as BatchNorm in
training mode). Under ``jit`` with a batch that is sharded over a mesh nothing else is needed.

``fun`` is a function of parameters, inputs and whatever else: a flax TrainState's ``apply_fn``, an
``nnx`` model taken apart by ``nnx.split``, or plain JAX. Dropout keys and statistics go in as
further arguments, new statistics come out as auxiliary output:

    def fun(params, x, stats, key):
        return model.apply({"params": params, "batch_stats": stats}, x, train=True,
                           mutable="batch_stats", rngs={"dropout": key})
    loss = relevance_loss(fun, "slope", outside_share, has_aux=True)
    (total, outcome), grads = jax.value_and_grad(loss, has_aux=True)(
        params, x, labels, masks, stats, key)
    stats = outcome.aux["batch_stats"]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from .. import _compat
from .._call.arguments import check_function
from .._call.checked import checked
from ..api import Rules, rewrite, value_and_relevance
from ..rulesets.presets import preset
from .penalties import in_mask_share, outside_sum, outside_sum_absolute, outside_sum_squared

Penalty = Callable[[jax.Array, Any], jax.Array]

_OF_SUMS = (outside_sum_absolute, outside_sum_squared)


class Outcome(NamedTuple):
    """What a relevance loss found.

    Attributes:
      metrics: scalars, means over the examples: ``loss`` (the total), ``task``, ``penalty`` (not
        weighted), ``counterfactual`` (not weighted, if asked for), ``in_mask``: the share of the
        absolute relevance (or multiplier) inside the mask.
      logits: ``fun``'s output.
      value: (N,) what was explained.
      relevance: in the shape of the input, or the multiplier.
      aux: ``fun``'s auxiliary output; None without ``has_aux``.
    """

    metrics: dict[str, jax.Array]
    logits: jax.Array
    value: jax.Array
    relevance: jax.Array
    aux: Any


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The logit of the label, less the log-sum-exp of the others: for two classes, the difference.

    The logit of the label's probability, so that softplus(-margin) is the cross-entropy.

    Args:
      logits: (N, classes).
      labels: (N,) integers.
    """
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    if logits.shape[-1] == 2:  # linear, so that no rule is needed for a maximum of one
        sign = jnp.where(own, 1, -1).astype(logits.dtype)
        return (logits * sign).sum(-1)
    others = jnp.where(own, -jnp.inf, logits)
    return jnp.where(own, logits, 0).sum(-1) - jax.nn.logsumexp(others, axis=-1)


def label_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The logit of the label, (N,).

    Args:
      logits, labels: as for :func:`margin`.
    """
    return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


def relevance_loss(
    fun: Callable[..., Any],
    rules: Rules,
    penalty: Penalty,
    *,
    weight: float | jax.Array = 1.0,
    counterfactual: float | jax.Array = 0.0,
    of: Literal["relevance", "multiplier"] = "relevance",
    explained: Callable[[jax.Array, Any], jax.Array] = margin,
    task: Callable[[jax.Array, Any], jax.Array] = optax.softmax_cross_entropy_with_integer_labels,
    has_aux: bool = False,
    outside_only: bool = False,
) -> Callable[..., tuple[jax.Array, Outcome]]:
    """Returns a loss: the task's, and a penalty on the relevance of the inputs.

    Args:
      fun: ``fun(params, x, *rest) -> logits``, or ``(logits, aux)`` with ``has_aux``. The leading
        axis of x and logits is that of the examples.
      rules: a rule set, the name of a preset, or None as for :func:`~jaxrel.relevance`.
      penalty: from (relevance, mask) to (N,); see :mod:`jaxrel.training.penalties`.
      weight: of the penalty, the lambda of the literature; may be traced.
      counterfactual: weight of one more task loss, softplus(-(value - sum of R outside)): of the
        value that is left when the relevance of the background is taken away. Against a reference
        that differs by the background alone, the value at the reference. Needs ``explained`` to be
        a margin, positive where the answer is right.
      of: ``"multiplier"`` gives the penalty (and ``in_mask``) the multiplier m instead of R: with
        rules "gradient" the plain gradient of the value.
      explained: from (logits, labels) to (N,), the value that is explained.
      task: from (logits, labels) to (N,).
      has_aux: ``fun`` has auxiliary output.
      outside_only: a promise: x and baseline differ where the mask is 0 and nowhere else, as
        composites by masks of 0 and 1 do. The relevance outside then adds up to f(x) - f(x0), and a
        penalty of this sum has the same value and derivatives by two forward passes, without the
        derivative of a derivative. Relevance is left for metrics, a constant to derivatives, and
        under ``jit`` it is not computed where these are not used. For ``outside_sum_squared`` and
        ``outside_sum_absolute``, and the rules that are complete, "compare_to_baseline".

    Returns:
      ``loss(params, x, labels, mask, *rest, baseline=None, known=None) -> (total, Outcome)``, for
      ``jax.value_and_grad(loss, has_aux=True)``. ``baseline`` is as for
      :func:`~jaxrel.relevance`. ``known``: (N,), how much each example's penalty counts: 0 where
      there is no mask. The mean stays one over all N.

    Raises:
      ValueError: by the returned function: shapes that do not fit; by this one: ``of`` is unknown,
        ``outside_only`` with another penalty or other rules.
      TypeError, UnsupportedPrimitive, RuleError: as :func:`~jaxrel.relevance`.
    """
    functions = {"": fun, ": penalty": penalty, ": explained": explained, ": task": task}
    for name, function in functions.items():
        check_function(f"relevance_loss{name}", function)
    preset("slope" if rules is None else rules)  # a wrong one raises here
    if of not in ("relevance", "multiplier"):
        raise ValueError(f"of: expected 'relevance' or 'multiplier', got {of!r}.")
    corrects = not isinstance(counterfactual, int | float) or counterfactual != 0
    if of == "multiplier" and corrects:
        raise ValueError("counterfactual: needs of='relevance': multipliers do not add up.")
    if outside_only:
        _check_sums(rules, penalty, of)

    def loss(
        params: Any,
        x: jax.Array,
        labels: Any,
        mask: Any,
        *rest: Any,
        baseline: Any = None,
        known: jax.Array | None = None,
    ) -> tuple[jax.Array, Outcome]:
        def forward(params: Any, x: jax.Array, labels: Any, *rest: Any) -> Any:
            out = fun(params, x, *rest)
            logits, aux = out if has_aux else (out, None)
            value = explained(logits, labels)
            _check_examples("explained", value, x)
            return value, (logits, aux)

        operands = (params, x, labels, *rest)
        if of == "relevance":
            told, x0 = operands, baseline
            if outside_only:
                told, x0 = jax.lax.stop_gradient((operands, _paired(baseline, x)))
            both = value_and_relevance(forward, rules, 1, baseline=x0, has_aux=True)
            (value, (logits, aux)), found = both(*told)
        else:
            if baseline is not None:
                raise ValueError("baseline: there is none for of='multiplier'.")
            rewritten = rewrite(forward, rules, 1)
            value, pullback, (logits, aux) = jax.vjp(
                lambda x: rewritten(params, x, labels, *rest), x, has_aux=True
            )
            (found,) = pullback(jnp.ones_like(value))

        known = jnp.ones(len(x)) if known is None else known
        found = _without_unknown(found, known)
        summed, inside = found, mask
        if outside_only:  # all that changes the value lies outside: one number for each example
            value, (logits, aux) = forward(*operands)
            change = value - forward(params, _paired(baseline, x), labels, *rest)[0]
            summed, inside = _without_unknown(change, known)[:, None], jnp.zeros((1, 1))
        penalties = penalty(summed, inside)
        _check_examples("penalty", penalties, x)
        tasks = task(logits, labels)
        _check_examples("task", tasks, x)
        metrics = {"task": tasks.mean(), "penalty": _mean_of_known(penalties, known)}
        total = metrics["task"] + weight * metrics["penalty"]
        if corrects:
            left = _without_unknown(value, known) - outside_sum(summed, inside)
            metrics["counterfactual"] = _mean_of_known(jax.nn.softplus(-left), known)
            total += counterfactual * metrics["counterfactual"]
        metrics["in_mask"] = in_mask_share(jax.lax.stop_gradient(found), mask).mean()
        metrics["loss"] = total
        return total, Outcome(metrics, logits, value, found, aux)

    return loss


def _check_sums(rules: Rules, penalty: Penalty, of: str) -> None:
    """Refuses what the sum of the relevance outside does not determine."""
    if penalty not in _OF_SUMS:
        names = " and ".join(f.__name__ for f in _OF_SUMS)
        raise ValueError(f"outside_only: for {names}, penalties of a sum; got {penalty!r}.")
    complete = preset("compare_to_baseline")
    if of != "relevance" or (rules is not None and preset(rules) != complete):
        raise ValueError(
            "outside_only: needs of='relevance' and rules 'compare_to_baseline', complete for all "
            "programs: only then the sum is the change of the value."
        )


def _paired(baseline: Any, x: jax.Array) -> Any:
    """The baseline, one for each example."""
    if baseline is None or jnp.shape(baseline) != jnp.shape(x):
        raise ValueError(
            f"outside_only: expected a baseline in the shape of x, {jnp.shape(x)}, "
            f"got {None if baseline is None else jnp.shape(baseline)}."
        )
    return baseline


def _mean_of_known(of_examples: jax.Array, known: jax.Array) -> jax.Array:
    """The mean over all examples of what counts this much; what does not count may be anything."""
    return jnp.where(known == 0, 0, known * of_examples).mean()


def _without_unknown(values: jax.Array, known: jax.Array) -> jax.Array:
    """Values (N, ...), where what does not count and is not finite is 0.

    So it does not get into derivatives either, where 0 * nan is nan.
    """
    counts = (known != 0).reshape(-1, *(1 for _ in values.shape[1:]))
    return jnp.where(counts | jnp.isfinite(values), values, 0)


def _check_examples(name: str, value: jax.Array, x: jax.Array) -> None:
    said = (
        f"{name}: expected one number for each of the {len(x)} examples, shape ({len(x)},), "
        f"got {jnp.shape(value)}."
    )
    checked(said, chex.assert_shape, value, (len(x),))


def accumulate(
    value_and_grad: Callable[..., tuple[Any, Any]], steps: int
) -> Callable[..., tuple[Any, Any]]:
    """Returns a ``value_and_grad`` that goes through the batch in microbatches, one at a time.

    Memory is that of one microbatch. Values and gradients are means over the microbatches: those
    of the whole batch, if the loss is a mean over examples.

    Args:
      value_and_grad: ``(params, *batch, **batch) -> (value, grads)``, such as
        ``jax.value_and_grad(loss, has_aux=True)``. All arrays in ``value`` are averaged; with a
        loss of :func:`relevance_loss` wrap it so that it returns only ``outcome.metrics``.
      steps: how many microbatches; it divides the leading axis of everything in ``batch``.

    Raises:
      ValueError: by the returned function, if it does not, or there is nothing to divide.
    """

    def accumulated(params: Any, *batch: Any, **named: Any) -> tuple[Any, Any]:
        def divide(path: Any, leaf: Any) -> Any:
            shape = jnp.shape(leaf)
            if not shape or shape[0] % steps:
                raise ValueError(
                    f"batch{jax.tree_util.keystr(path)}: a leading axis of {steps} microbatches "
                    f"does not divide shape {shape}."
                )
            return _compat.microbatches(jnp.asarray(leaf), steps)

        parts = jax.tree_util.tree_map_with_path(divide, (batch, named))
        first = jax.tree.map(lambda leaf: jax.lax.index_in_dim(leaf, 0, keepdims=False), parts)
        shapes = jax.eval_shape(lambda part: value_and_grad(params, *part[0], **part[1]), first)
        zeros = jax.tree.map(_compat.zeros, shapes)

        def step(total: Any, part: Any) -> tuple[Any, None]:
            found = value_and_grad(params, *part[0], **part[1])
            return jax.tree.map(jnp.add, total, found), None

        total, _ = jax.lax.scan(step, zeros, parts)
        return jax.tree.map(lambda leaf: leaf / steps, total)

    return accumulated
