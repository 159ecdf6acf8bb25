"""The public transformations: ``relevance`` is to a rule set what ``jax.grad`` is to the gradient.

    fun --make_jaxpr--> jaxpr --plan--> steps --assign--> rules --execute--> fun'
    relevance(fun)(x) = x * vjp(fun', x)(1)
    relevance(fun, baseline=x0)(x) = (x - x0) * vjp(fun', x)(1)

fun' has fun's values and the rules' VJP. What is carried backwards is the multiplier m = R / x, in
which matrices, sums and everything else that is linear need no rule at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from ._call.arguments import Arguments, check_function
from ._call.averages import count
from ._call.multipliers import RelevanceFunction, with_multipliers
from ._execute.blame import by_layer, total
from ._execute.constants import constants
from ._execute.evaluate import evaluate
from ._execute.explanation import explain, trace
from ._plan.steps import Step
from ._plan.table import Table
from .rulesets.assign import Assignment, assign
from .rulesets.presets import preset
from .rulesets.ruleset import RuleSet, describe

Rules = RuleSet | str | None


def relevance(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
    biases: bool | str = False,
    has_aux: bool = False,
    chunk: int = 1,
) -> RelevanceFunction:
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
        complete sum(R) = f(x) - f(x0). An array for each leaf, in a tree like the argument (a tuple
        for a sequence of ``argnums``) or a prefix of it (0: everywhere); or a function of the
        arguments that returns this. An array that broadcasts to the leaf x is one reference, and of
        x's own shape one for each example. Any other is many: references lie along its first axis,
        the other axes broadcast to x, and relevance is the mean over them. For pictures
        (B, H, W, C):

        * (), (C,), (H, W, C), (1, H, W, C): one reference for all
        * (B, H, W, C): paired, one reference for each example
        * (n, H, W, C), n other than B: n references for each example
        * (n, 1, H, W, C): the same for any n, also B: write ``x0[:, None]`` where n may be B
        * (n, B, H, W, C): n references of its own for each example
      biases: True: also return the relevance of every additive constant, as a dictionary from
        layer path to an array in the constant's own shape and dtype, inside a scan with one row
        for each iteration, inside ``shard_map`` added up over shards. What belongs to no one
        operand is one number: f(0) of a nonlinearity, the fill of a gather. With rules that
        conserve sum(R) + sum(biases) = f(x). ``"total"``: their sum. Added up in float32 at least.
      has_aux: ``fun`` returns ``(array, auxiliary)``.
      chunk: how many of many references are computed at once; memory is that of so many.

    Returns:
      A function with the signature of ``fun`` that returns the relevance of the argument (a tuple
      for a sequence of ``argnums``) in its tree, shapes and dtypes, in units of ``fun``'s value;
      with ``biases`` the pair (relevance, biases) in its place; and with ``has_aux`` the pair of
      that and auxiliary. It can be jitted, vmapped, differentiated. Its attribute ``multipliers``
      is the same function of m, of which R is x or x - x0 times as much; for many references it is
      the mean of theirs (DeepLIFT's multipliers: of hypothetical contributions).

    Raises:
      TypeError: explained arguments or the value are not floats; ``rules`` is no rule set;
        ``baseline`` is another tree.
      ValueError: ``argnums`` out of range; no such preset; shapes of ``baseline`` do not fit;
        ``biases`` with a baseline, where constants cancel; ``chunk`` is less than 1.
      RuleError: a rule has no formula with a baseline, or none without.
      UnsupportedPrimitive: a step on an explained value has no rule.

    Example:
      >>> import jax.numpy as jnp
      >>> relevance(lambda x: jnp.tanh(x @ jnp.array([1.0, -2.0])), "slope")(jnp.array([0.5, 0.25]))
      Array([ 0.5, -0.5], dtype=float32)
    """
    check_function("relevance", fun)
    rule_set = preset(default_rules(rules, baseline))
    both = value_and_relevance(
        fun, rules, argnums, baseline=baseline, biases=biases, has_aux=has_aux, chunk=chunk
    )

    @functools.wraps(fun)
    def relevance_fun(*args: Any, **kwargs: Any) -> Any:
        out, result = both(*args, **kwargs)
        return (result, out[1]) if has_aux else result

    def multipliers(*args: Any, **kwargs: Any) -> Any:
        if biases:
            raise TypeError(
                f"multipliers: with biases={biases!r} part of the relevance goes to biases, which "
                "are no multiple of x. Make a relevance without."
            )
        call = Arguments(fun, args, kwargs, argnums)
        out, pullback = _vjp(call, rule_set, has_aux, baseline, biases, chunk, multiples=True)
        found = call.select(pullback(jnp.ones_like(out[0] if has_aux else out))[0])
        return (found, out[1]) if has_aux else found

    compared = baseline is not None
    return with_multipliers(relevance_fun, multipliers, argnums, compared=compared)


def value_and_relevance(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
    biases: bool | str = False,
    has_aux: bool = False,
    chunk: int = 1,
) -> Callable[..., Any]:
    """Like :func:`relevance`, and like ``jax.value_and_grad``: the value comes with it.

    Args:
      fun, rules, argnums, baseline, biases, has_aux, chunk: as for :func:`relevance`.

    Returns:
      A function that returns ``(value, relevance)``, or ``((value, auxiliary), relevance)`` with
      ``has_aux``. The value is that of ``fun``, an array of any shape.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    check_function("value_and_relevance", fun)
    rule_set = preset(default_rules(rules, baseline))
    chunk = count("relevance", chunk=chunk)

    @functools.wraps(fun)
    def value_and_relevance_fun(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        call = Arguments(fun, args, kwargs, argnums)
        out, pullback = _vjp(call, rule_set, has_aux, baseline, biases, chunk)
        value = out[0] if has_aux else out
        found, blamed = pullback(jnp.ones_like(value))
        selected = call.select(found)
        return out, (selected, blamed) if biases else selected

    return value_and_relevance_fun


def relevance_vjp(
    fun: Callable[..., Any],
    *primals: Any,
    rules: Rules = None,
    baseline: Any = None,
    biases: bool | str = False,
    has_aux: bool = False,
    chunk: int = 1,
) -> tuple[Any, ...]:
    """Like ``jax.vjp``: the value, and a function from its multiplier to relevances.

    Args:
      fun: as for :func:`relevance`.
      *primals: its arguments, all explained.
      rules: a rule set or the name of a preset.
      baseline: as for :func:`relevance`; a tuple with one entry for each primal.
      biases: as for :func:`relevance`; ``pullback`` then returns (relevances, biases).
      has_aux: ``fun`` returns ``(array, auxiliary)``.
      chunk: as for :func:`relevance`.

    Returns:
      ``(value, pullback)``, or ``(value, pullback, auxiliary)`` with ``has_aux``. ``pullback(m)``
      takes the multiplier of the value, of its shape and dtype (1: explain this output, 0: do not),
      and returns a tuple of relevances, one for each primal. Under ``vmap`` over one-hot
      multipliers it explains all classes with one forward pass.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    check_function("relevance_vjp", fun)
    call = Arguments(fun, primals, {}, tuple(range(len(primals))))
    rule_set = preset(default_rules(rules, baseline))
    chunk = count("relevance_vjp", chunk=chunk)
    out, pullback = _vjp(call, rule_set, has_aux, baseline, biases, chunk)

    def relevances(m: Any) -> tuple[Any, ...]:
        found, blamed = pullback(m)
        return (tuple(found), blamed) if biases else tuple(found)

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
    check_function("rewrite", fun)
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
      returns a :class:`~jaxrel._plan.table.Table`: printed, one line for each step with path, kind,
      operation, shapes and rule, those of a layer under one heading; in a notebook that opens.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    check_function("summary", fun)
    rule_set = preset(default_rules(rules, baseline))

    def summarized(*args: Any, **kwargs: Any) -> Table:
        call = Arguments(fun, args, kwargs, argnums)
        plan, _ = trace(call, rule_set, compared=baseline is not None)
        assign(plan, rule_set, baseline is not None)
        return Table.of(plan, lambda step: _rule_name(step, rule_set))

    return summarized


def _rule_name(step: Step, rules: RuleSet) -> str:
    rule, override = rules.choose(step)
    return "" if step.kind == "control" and override is None else describe(rule)


def default_rules(rules: Rules, baseline: Any = None) -> RuleSet | str:
    """The rule set that is meant where none is given."""
    if rules is not None:
        return rules
    return "slope" if baseline is None else "compare_to_baseline"


def _vjp(
    call: Arguments,
    rules: RuleSet,
    has_aux: bool,
    baseline: Any,
    biases: bool | str,
    chunk: int,
    multiples: bool = False,
) -> tuple[Any, Callable[[Any], tuple[list[Any], Any]]]:
    """``jax.vjp`` of the rewritten call, and from multipliers to relevances at its end.

    With ``multiples`` to multipliers.
    """
    _check_biases(biases, baseline)
    made = explain(call, rules, has_aux, baseline)
    if multiples:
        made.check_multiples()
    references = made.baseline
    if references is not None and references.many is not None:
        value = evaluate(made.plan, Assignment(), call.leaves)

        def mean(m: Any) -> tuple[list[Any], Any]:
            def against(twins: list[Any]) -> list[Any]:
                return made.vjp(twins, {}, multiples)[1](m)[0]

            return call.restore(references.mean(against, chunk)), None

        return made.output.restore(value), mean
    blamed = constants(made.plan, made.chosen, 1) if biases else {}
    twins = None if references is None else references.at(0)
    first, pullback, rest = made.vjp(twins, blamed, multiples)

    def relevances(m: Any) -> tuple[list[Any], Any]:
        found, amounts = pullback(m)
        whole = total(amounts, first.dtype) if biases == "total" else by_layer(blamed, amounts)
        return call.restore(found), whole

    return made.output.restore([first, *rest]), relevances


def _check_biases(biases: bool | str, baseline: Any) -> None:
    if biases not in (True, False, "total"):
        raise ValueError(f'biases: expected True, False or "total", got {biases!r}.')
    if biases and baseline is not None:
        raise ValueError("biases: against a baseline constants cancel; none has any relevance.")
