"""The public transformations: ``relevance`` is to a rule set what ``jax.grad`` is to the gradient.

    fun --make_jaxpr--> jaxpr --plan--> steps --assign--> rules --execute--> fun'
    relevance(fun)(x) = x * vjp(fun', x)(1)
    relevance(fun, baseline=x0)(x) = (x - x0) * vjp(fun', x)(1)

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
from .baseline import Baseline, read_baseline
from .execute import evaluate
from .naming import leaf_paths, named_modules, reachable
from .numerics import difference
from .plan import Plan, build_plan
from .plan.steps import INPUT, Step
from .plan.table import Table
from .ruleset import RuleSet, describe
from .rulesets import preset
from .taps import NO_TAPS, Tapped
from .units import companioned

Rules = RuleSet | str | None


def relevance(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Returns a function that explains the value of ``fun`` by its arguments.

    Like ``jax.grad``, but R = x * m, where m is the multiplier that the rules send back instead of
    the gradient. With rules that conserve and no biases, the relevances add up to the value.

    Args:
      fun: any function of arrays that JAX can trace. It returns an array of floats; its sum is
        explained, so that examples of a batch are explained independently.
      rules: a :class:`~jaxrel.RuleSet`, or the name of a preset with its defaults. Without:
        ``"slope"``, or ``"compare_to_baseline"`` where there is a baseline.
      argnums: which positional arguments to explain: pytrees of real floating point arrays.
      baseline: what the arguments are compared to: R = (x - x0) * m, and with rules that are
        complete sum(R) = f(x) - f(x0). A tree like the argument (a tuple for a sequence of
        ``argnums``), of arrays that broadcast to its leaves (0: everywhere); or with one more axis
        in front, many references, and relevance is the mean over them; or a function of the
        arguments that returns one of these.
      has_aux: ``fun`` returns ``(array, auxiliary)``.

    Returns:
      A function with the signature of ``fun`` that returns the relevance of the argument (a tuple
      for a sequence of ``argnums``) in its tree, shapes and dtypes, in units of ``fun``'s value;
      and with ``has_aux`` the pair (relevance, auxiliary). It can be jitted, vmapped,
      differentiated.

    Raises:
      TypeError: explained arguments or the value are not floats; ``rules`` is no rule set;
        ``baseline`` is another tree.
      ValueError: ``argnums`` out of range; no such preset; shapes of ``baseline`` do not fit.
      RuleError: a rule has no formula with a baseline, or none without.
      UnsupportedPrimitive: a step on an explained value has no rule.

    Example:
      >>> import jax.numpy as jnp
      >>> relevance(lambda x: jnp.tanh(x @ jnp.array([1.0, -2.0])), "slope")(jnp.array([0.5, 0.25]))
      Array([ 0.5, -0.5], dtype=float32)
    """
    both = value_and_relevance(fun, rules, argnums, baseline=baseline, has_aux=has_aux)

    @functools.wraps(fun)
    def relevance_fun(*args: Any, **kwargs: Any) -> Any:
        out, result = both(*args, **kwargs)
        return (result, out[1]) if has_aux else result

    return relevance_fun


def value_and_relevance(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Like :func:`relevance`, and like ``jax.value_and_grad``: the value comes with it.

    Args:
      fun, rules, argnums, baseline, has_aux: as for :func:`relevance`.

    Returns:
      A function that returns ``(value, relevance)``, or ``((value, auxiliary), relevance)`` with
      ``has_aux``. The value is that of ``fun``, an array of any shape.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    rule_set = preset(default_rules(rules, baseline))

    @functools.wraps(fun)
    def value_and_relevance_fun(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        call = Arguments(fun, args, kwargs, argnums)
        out, pullback = _vjp(call, rule_set, has_aux, baseline)
        value = out[0] if has_aux else out
        return out, call.select(pullback(jnp.ones_like(value)))

    return value_and_relevance_fun


def relevance_vjp(
    fun: Callable[..., Any],
    *primals: Any,
    rules: Rules = None,
    baseline: Any = None,
    has_aux: bool = False,
) -> tuple[Any, ...]:
    """Like ``jax.vjp``: the value, and a function from its multiplier to relevances.

    Args:
      fun: as for :func:`relevance`.
      *primals: its arguments, all explained.
      rules: a rule set or the name of a preset.
      baseline: as for :func:`relevance`; a tuple with one entry for each primal.
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
    out, pullback = _vjp(call, preset(default_rules(rules, baseline)), has_aux, baseline)

    def relevances(m: Any) -> tuple[Any, ...]:
        return tuple(pullback(m))

    return (out[0], relevances, out[1]) if has_aux else (out, relevances)


def rewrite(
    fun: Callable[..., Any], rules: Rules = None, argnums: int | Sequence[int] = 0
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
    rule_set = preset(default_rules(rules))

    @functools.wraps(fun)
    def rewritten(*args: Any, **kwargs: Any) -> Any:
        call = Arguments(fun, args, kwargs, argnums)
        plan, output = trace(call, rule_set)
        return output.restore(evaluate(plan, assign(plan, rule_set), call.leaves))

    return rewritten


def summary(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
) -> Callable[..., Table]:
    """Returns a function that tells what would be done, and computes nothing.

    Args:
      fun, rules, argnums: as for :func:`relevance`.
      baseline: whether there is one decides which rules have a formula; it is not read.

    Returns:
      A function with the signature of ``fun`` (arguments may be ``jax.ShapeDtypeStruct``) that
      returns a :class:`~jaxrel.plan.table.Table`: printed, one line for each step with path, kind,
      operation, shapes and rule.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    rule_set = preset(default_rules(rules, baseline))

    def summarized(*args: Any, **kwargs: Any) -> Table:
        call = Arguments(fun, args, kwargs, argnums)
        plan, _ = trace(call, rule_set)
        assign(plan, rule_set, baseline is not None)
        return Table.of(plan, lambda step: _rule_name(step, rule_set))

    return summarized


def _rule_name(step: Step, rules: RuleSet) -> str:
    rule, override = rules.choose(step)
    return "" if step.kind == "control" and override is None else describe(rule)


def default_rules(rules: Rules, baseline: Any = None) -> RuleSet | str:
    """The rule set that is meant where none is given."""
    return rules or ("slope" if baseline is None else "compare_to_baseline")


def trace(
    call: Arguments, rules: RuleSet, explained: int | None = None
) -> tuple[Plan, SplitOutput]:
    """Traces a call to a plan, and remembers how its outputs are put together.

    Args:
      call: the call.
      rules: how it is to be taken apart.
      explained: how many of the first output leaves are explained; None: all.
    """
    call.check()
    names = leaf_paths(call.fun, call.args, call.kwargs)
    output = SplitOutput()
    with named_modules((*reachable(call.fun), *call.args)):
        jaxpr = jax.make_jaxpr(lambda *leaves: output.split(call(leaves)))(*call.leaves)
    facts = [INPUT for _ in call.leaves]
    plan, _ = build_plan(
        jaxpr, facts, names=names, explained=explained, fold=rules.fold, parts=rules.parts
    )
    return plan, output


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A call, planned and with its rules chosen, ready to be differentiated.

    Attributes:
      call: the call.
      plan, chosen: what to do.
      output: how the function's outputs are put together.
      companions: zeros for the inputs that need them; see :mod:`jaxrel.units`.
      baseline: what the explained leaves are compared to; None: 0.
    """

    call: Arguments
    plan: Plan
    chosen: Assignment
    output: SplitOutput
    companions: dict[int, jax.Array]
    baseline: Baseline | None

    def value(
        self,
        leaves: list[Any],
        companions: dict[int, Any],
        twins: list[Any] | None,
        taps: Tapped = NO_TAPS,
    ):
        """The function's value, and its auxiliary arrays; ``twins`` are leaves at the baseline."""
        first, *rest = evaluate(self.plan, self.chosen, leaves, companions, taps, twins)
        return first, rest

    def combine(
        self, multipliers: Sequence[Any], units: Mapping[int, Any], twins: list[Any] | None
    ) -> list[Any]:
        """R = (x - x0) m + r for each leaf."""
        leaves = self.call.leaves
        if twins is not None:
            leaves = [difference(x, x0) for x, x0 in zip(leaves, twins, strict=True)]
        found = [x * m for x, m in zip(leaves, multipliers, strict=True)]
        for k, number in enumerate(self.plan.inputs):
            found[k] = found[k] + units[number] if number in units else found[k]
        return found

    def vjp(self, twins: list[Any] | None) -> tuple[Any, Callable[[Any], list[Any]], Any]:
        """``jax.vjp`` of the value, whose pullback gives relevances of the leaves."""
        value = functools.partial(self.value, twins=twins)
        first, pullback, rest = jax.vjp(value, self.call.leaves, self.companions, has_aux=True)

        def relevances(m: Any) -> list[Any]:
            multipliers, units = pullback(m)
            return self.combine(multipliers, units, twins)

        return first, relevances, rest


def explain(call: Arguments, rules: RuleSet, has_aux: bool, baseline: Any = None) -> Explanation:
    """Checks and plans a call, and chooses the rules."""
    plan, output = trace(call, rules, explained=1)
    check_output(output, has_aux)
    chosen = assign(plan, rules, baseline is not None)
    needed = companioned(plan, chosen)
    inputs = zip(plan.inputs, call.leaves, strict=True)
    companions = {number: jnp.zeros_like(x) for number, x in inputs if number in needed}
    references = None if baseline is None else read_baseline(call, baseline)
    return Explanation(call, plan, chosen, output, companions, references)


def _vjp(
    call: Arguments, rules: RuleSet, has_aux: bool, baseline: Any
) -> tuple[Any, Callable[[Any], list[Any]]]:
    """``jax.vjp`` of the rewritten call, and from multipliers to relevances at its end."""
    made = explain(call, rules, has_aux, baseline)
    references = made.baseline
    first, pullback, rest = made.vjp(None if references is None else references.one())

    def relevances(m: Any) -> list[Any]:
        if references is None or references.many is None:
            return call.restore(pullback(m))
        return call.restore(references.mean(lambda twins: made.vjp(twins)[1](m)))

    return made.output.restore([first, *rest]), relevances
