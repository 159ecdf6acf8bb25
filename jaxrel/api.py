"""The public transformations: ``relevance`` is to a rule set what ``jax.grad`` is to the gradient.

    fun --make_jaxpr--> jaxpr --plan--> steps --assign--> rules --execute--> fun'
    relevance(fun)(x) = x * vjp(fun', x)(1)

fun' has fun's values and the rules' VJP. What is carried backwards is the multiplier m = R / x, in
which matrices, sums and everything else that is linear need no rule at all.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import Arguments, SplitOutput, check_output
from .assign import Assignment, assign
from .execute import evaluate
from .multipliers import with_multipliers
from .naming import leaf_paths, named_modules, reachable
from .plan import Plan, build_plan
from .plan.steps import INPUT, Step
from .plan.table import Table
from .ruleset import RuleSet, describe
from .rulesets import preset
from .taps import NO_TAPS, Tapped
from .units import companioned

Rules = RuleSet | str


def relevance(
    fun: Callable[..., Any],
    rules: Rules = "slope",
    argnums: int | Sequence[int] = 0,
    *,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Returns a function that explains the value of ``fun`` by its arguments.

    Like ``jax.grad``, but R = x * m, where m is the multiplier that the rules send back instead of
    the gradient. With rules that conserve and no biases, the relevances add up to the value.

    Args:
      fun: any function of arrays that JAX can trace. It returns an array of floats; its sum is
        explained, so that examples of a batch are explained independently.
      rules: a :class:`~jaxrel.RuleSet`, or the name of a preset with its defaults.
      argnums: which positional arguments to explain: pytrees of real floating point arrays.
      has_aux: ``fun`` returns ``(array, auxiliary)``.

    Returns:
      A function with the signature of ``fun`` that returns the relevance of the argument (a tuple
      for a sequence of ``argnums``) in its tree, shapes and dtypes, in units of ``fun``'s value;
      and with ``has_aux`` the pair (relevance, auxiliary). It can be jitted, vmapped,
      differentiated. Its attribute ``multipliers`` is the same function of m.

    Raises:
      TypeError: explained arguments or the value are not floats; ``rules`` is no rule set.
      ValueError: ``argnums`` out of range; no such preset.
      UnsupportedPrimitive: a step on an explained value has no rule.

    Example:
      >>> import jax.numpy as jnp
      >>> relevance(lambda x: jnp.tanh(x @ jnp.array([1.0, -2.0])), "slope")(jnp.array([0.5, 0.25]))
      Array([ 0.5, -0.5], dtype=float32)
    """
    both = value_and_relevance(fun, rules, argnums, has_aux=has_aux)

    @functools.wraps(fun)
    def relevance_fun(*args: Any, **kwargs: Any) -> Any:
        out, result = both(*args, **kwargs)
        return (result, out[1]) if has_aux else result

    multipliers = _multipliers(fun, rules, argnums, has_aux)
    return with_multipliers(relevance_fun, multipliers, argnums)


def value_and_relevance(
    fun: Callable[..., Any],
    rules: Rules = "slope",
    argnums: int | Sequence[int] = 0,
    *,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Like :func:`relevance`, and like ``jax.value_and_grad``: the value comes with it.

    Args:
      fun, rules, argnums, has_aux: as for :func:`relevance`.

    Returns:
      A function that returns ``(value, relevance)``, or ``((value, auxiliary), relevance)`` with
      ``has_aux``. The value is that of ``fun``, an array of any shape.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    rule_set = preset(rules)

    @functools.wraps(fun)
    def value_and_relevance_fun(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        call = Arguments(fun, args, kwargs, argnums)
        out, pullback = _vjp(call, rule_set, has_aux)
        value = out[0] if has_aux else out
        return out, call.select(pullback(jnp.ones_like(value)))

    return value_and_relevance_fun


def relevance_vjp(
    fun: Callable[..., Any], *primals: Any, rules: Rules = "slope", has_aux: bool = False
) -> tuple[Any, ...]:
    """Like ``jax.vjp``: the value, and a function from its multiplier to relevances.

    Args:
      fun: as for :func:`relevance`.
      *primals: its arguments, all explained.
      rules: a rule set or the name of a preset.
      has_aux: ``fun`` returns ``(array, auxiliary)``.

    Returns:
      ``(value, pullback)``, or ``(value, pullback, auxiliary)`` with ``has_aux``. ``pullback(m)``
      takes the multiplier of the value, of its shape and dtype (1: explain this output, 0: do not),
      and returns a tuple of relevances, one for each primal. Under ``vmap`` over one-hot
      multipliers it explains all classes with one forward pass.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    call = Arguments(fun, primals, {}, tuple(range(len(primals))))
    out, pullback = _vjp(call, preset(rules), has_aux)

    def relevances(m: Any) -> tuple[Any, ...]:
        return tuple(pullback(m))

    return (out[0], relevances, out[1]) if has_aux else (out, relevances)


def rewrite(
    fun: Callable[..., Any], rules: Rules = "slope", argnums: int | Sequence[int] = 0
) -> Callable[..., Any]:
    """Returns ``fun`` itself, value for value, with the rules' VJP.

    ``jax.vjp`` of it carries multipliers: ``jax.grad(rewrite(fun, rules))`` is m, where
    ``relevance`` is x * m. Rules apply to what depends on ``argnums``; with respect to anything
    else (parameters) every step keeps its plain VJP. Differentiating twice gives the true
    derivative of the first. Outputs may be any pytree.

    Args:
      fun, rules, argnums: as for :func:`relevance`.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    rule_set = preset(rules)

    @functools.wraps(fun)
    def rewritten(*args: Any, **kwargs: Any) -> Any:
        call = Arguments(fun, args, kwargs, argnums)
        plan, output = trace(call, rule_set.fold)
        return output.restore(evaluate(plan, assign(plan, rule_set), call.leaves))

    return rewritten


def summary(
    fun: Callable[..., Any], rules: Rules = "slope", argnums: int | Sequence[int] = 0
) -> Callable[..., Table]:
    """Returns a function that tells what would be done, and computes nothing.

    Args:
      fun, rules, argnums: as for :func:`relevance`.

    Returns:
      A function with the signature of ``fun`` (arguments may be ``jax.ShapeDtypeStruct``) that
      returns a :class:`~jaxrel.plan.table.Table`: printed, one line for each step with path, kind,
      operation, shapes and rule.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    rule_set = preset(rules)

    def summarized(*args: Any, **kwargs: Any) -> Table:
        call = Arguments(fun, args, kwargs, argnums)
        plan, _ = trace(call, rule_set.fold)
        assign(plan, rule_set)
        return Table.of(plan, lambda step: _rule_name(step, rule_set))

    return summarized


def _rule_name(step: Step, rules: RuleSet) -> str:
    rule, override = rules.choose(step)
    return "" if step.kind == "control" and override is None else describe(rule)


def trace(
    call: Arguments, fold: bool = True, explained: int | None = None
) -> tuple[Plan, SplitOutput]:
    """Traces a call to a plan, and remembers how its outputs are put together.

    Args:
      call: the call.
      fold: see :class:`~jaxrel.RuleSet`.
      explained: how many of the first output leaves are explained; None: all.
    """
    call.check()
    names = leaf_paths(call.fun, call.args, call.kwargs)
    output = SplitOutput()
    with named_modules((*reachable(call.fun), *call.args)):
        jaxpr = jax.make_jaxpr(lambda *leaves: output.split(call(leaves)))(*call.leaves)
    facts = [INPUT for _ in call.leaves]
    plan, _ = build_plan(jaxpr, facts, names=names, explained=explained, fold=fold)
    return plan, output


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A call, planned and with its rules chosen, ready to be differentiated.

    Attributes:
      call: the call.
      plan, chosen: what to do.
      output: how the function's outputs are put together.
      companions: zeros for the inputs that need them; see :mod:`jaxrel.units`.
    """

    call: Arguments
    plan: Plan
    chosen: Assignment
    output: SplitOutput
    companions: dict[int, jax.Array]

    def value(self, leaves: list[Any], companions: dict[int, Any], taps: Tapped = NO_TAPS):
        """The function's value, and its auxiliary arrays."""
        first, *rest = evaluate(self.plan, self.chosen, leaves, companions, taps)
        return first, rest

    def combine(self, multipliers: Sequence[Any], units: Mapping[int, Any]) -> list[Any]:
        """R = x m + r for each leaf."""
        found = [x * m for x, m in zip(self.call.leaves, multipliers, strict=True)]
        for k, number in enumerate(self.plan.inputs):
            found[k] = found[k] + units[number] if number in units else found[k]
        return found


def explain(call: Arguments, rules: RuleSet, has_aux: bool) -> Explanation:
    """Checks and plans a call, and chooses the rules."""
    plan, output = trace(call, rules.fold, explained=1)
    check_output(output, has_aux)
    chosen = assign(plan, rules)
    needed = companioned(plan, chosen)
    inputs = zip(plan.inputs, call.leaves, strict=True)
    companions = {number: jnp.zeros_like(x) for number, x in inputs if number in needed}
    return Explanation(call, plan, chosen, output, companions)


def _vjp(call: Arguments, rules: RuleSet, has_aux: bool) -> tuple[Any, Callable[[Any], list[Any]]]:
    """``jax.vjp`` of the rewritten call, and from multipliers to relevances at its end."""
    made = explain(call, rules, has_aux)
    first, pullback, rest = jax.vjp(made.value, call.leaves, made.companions, has_aux=True)

    def relevances(m: Any) -> list[Any]:
        return call.restore(made.combine(*pullback(m)))

    return made.output.restore([first, *rest]), relevances


def _multipliers(
    fun: Callable[..., Any], rules: Rules, argnums: int | Sequence[int], has_aux: bool
) -> Callable[..., Any]:
    """Like ``jax.grad`` of ``fun``, but with the multipliers of the rules."""
    rule_set = preset(rules)

    def multipliers(*args: Any, **kwargs: Any) -> Any:
        call = Arguments(fun, args, kwargs, argnums)
        made = explain(call, rule_set, has_aux)
        if made.companions:
            raise ValueError(
                "multipliers: a rule such as Flat, WSquare or ZBox gives relevance to inputs that "
                "are worth 0, so it is no multiple of the input. Choose another rule for the first "
                "layer: rules | {First(): ...}."
            )
        first, pullback, rest = jax.vjp(
            lambda leaves: made.value(leaves, {}), call.leaves, has_aux=True
        )
        found = call.select(call.restore(pullback(jnp.ones_like(first))[0]))
        return (found, made.output.restore([first, *rest])[1]) if has_aux else found

    return multipliers
