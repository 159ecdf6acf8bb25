"""The public transformations: ``relevance`` is to a rule set what ``jax.grad`` is to the gradient.

    fun --make_jaxpr--> jaxpr --plan--> steps --assign--> rules --execute--> fun'
    relevance(fun)(x) = x * vjp(fun', x)(1)
    relevance(fun, baseline=x0)(x) = (x - x0) * vjp(fun', x)(1)

fun' has fun's values and the rules' VJP. What is carried backwards is the multiplier m = R / x, in
which matrices, sums and everything else that is linear need no rule at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ._call.arguments import Arguments, check_function, check_multiplier
from ._call.averages import count
from ._call.multipliers import RelevanceFunction, with_multipliers
from ._execute.evaluate import evaluate
from ._execute.explanation import trace
from ._execute.inside import read_inside
from ._execute.leaves import beside_leaves
from ._execute.pullback import Asked, pull
from ._plan.steps import Step
from ._plan.table import Table
from .rulesets.assign import Assignment, assign
from .rulesets.presets import preset
from .rulesets.ruleset import RuleSet, describe

Rules = RuleSet | str | None
Places = str | Sequence[str] | None


def relevance(
    fun: Callable[..., Any],
    rules: Rules = None,
    argnums: int | Sequence[int] = 0,
    *,
    baseline: Any = None,
    biases: bool | str = False,
    has_aux: bool = False,
    chunk: int = 1,
    at: Places = None,
    through: Mapping[str, Any] | None = None,
    direct: bool = False,
    parallel: bool = True,
    leaves: int | Sequence[int] = (),
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
        ``"all"``: beside them under ``"implicit"`` what rules create or destroy and stabilisers
        take, y m - sum x m of every step, one number for each layer path: then the ledger closes
        for every rule set, sum(R) + sum(jax.tree.leaves(biases)) = f(x), or f(x) - f(x0).
      has_aux: ``fun`` returns ``(array, auxiliary)``.
      chunk: how many of many references are computed at once; memory is that of so many.
      at: inner values that are explained beside the arguments (in place of them with
        ``argnums=()``, and arguments may then be integers). A place is a layer path as
        :func:`summary` prints it, ``"Block_0/Conv_3"``: what the layer gives; with ``":in"``: what
        it reads; or a name by ``jax.ad_checkpoint.checkpoint_name`` or flax's ``sow`` and
        ``perturb``. Globs (``"**/Conv_*"``) and sequences mean several. A layer that is called
        several times has places ``"path#0"``, ``"path#1"``, one that gives several values
        ``"path:0"``, ``"path:1"``. The function is explained as if it were split there: nothing is
        read across a place. R = (a - a0) m, where a0 is the value at the ``baseline``; with
        ``argnums=()`` that is one of all arguments (a tuple, None for one that stays), also of
        integers: a corrupted input, and relevance is attribution patching.
      through: conditional relevance: maps places to masks that broadcast to the value. The
        multiplier is multiplied by the mask there, so only what passes it counts (CRP, Achtibat
        et al. 2023). Masks are operands: ``vmap`` over them runs the forward pass once.
      direct: only what passes no other place of ``at`` counts.
      parallel: False: what passes beside the places of ``through`` (skip connections) is cut, as
        far as the loop or call that they stand in goes.
      leaves: which of ``argnums`` are leaves, such as parameters, at which relevance ends. The
        rules explain ``fun`` by its other explained arguments (where all are leaves, by all other
        arguments of floats), for which parameters are weights; and a parameter w that meets a has
        R = w a m, not halved between the two: what of the value passes each weight.

    Returns:
      A function with the signature of ``fun`` that returns the relevance of the argument (a tuple
      for a sequence of ``argnums``) in its tree, shapes and dtypes, in units of ``fun``'s value;
      with ``at`` the pair of that and of the places' relevance, or the latter alone where
      ``argnums=()``: an array in the value's own shape and dtype for one place given by its name,
      else a dictionary by name; inside a scan (or ``shard_map``) with one row for each iteration
      (device) in front; with ``biases`` the pair (relevance, biases) in its place; and with
      ``has_aux`` the pair of that and auxiliary. It can be jitted, vmapped, differentiated. Its
      attribute ``multipliers`` is the same function of m, of which R is x or x - x0 times as much;
      for many references it is the mean of theirs (DeepLIFT's multipliers: of hypothetical
      contributions).

    Raises:
      TypeError: explained arguments or the value are not floats; ``rules`` is no rule set;
        ``baseline`` is another tree.
      ValueError: ``argnums`` out of range; no such preset; shapes of ``baseline`` do not fit;
        ``biases`` with a baseline, where constants cancel; ``leaves`` with a baseline, or that are
        not among ``argnums``; ``chunk`` is less than 1; no such place, or one that no relevance
        arrives at; a mask does not fit.
      RuleError: a rule has no formula with a baseline, or none without.
      UnsupportedPrimitive: a step on an explained value has no rule.

    Warns:
      LargeRelevanceWarning: against a baseline, relevances cancel: the largest is more than 1000
        times what the value changes by (of a batch, the example that changes most). Only where
        numbers are known: not under ``jit`` and other transformations, whose programs are the same.

    Example:
      >>> import jax.numpy as jnp
      >>> relevance(lambda x: jnp.tanh(x @ jnp.array([1.0, -2.0])), "slope")(jnp.array([0.5, 0.25]))
      Array([ 0.5, -0.5], dtype=float32)
    """
    check_function("relevance", fun)
    inside = read_inside(at, through, direct, parallel)
    asked = Asked(_rules(rules, baseline), has_aux, baseline, biases, _chunk(chunk), inside, leaves)

    @functools.wraps(fun)
    def relevance_fun(*args: Any, **kwargs: Any) -> Any:
        out, result = _explained(fun, args, kwargs, argnums, asked)
        return (result, out[1]) if has_aux else result

    def multipliers(*args: Any, **kwargs: Any) -> Any:
        if biases:
            raise TypeError(
                f"multipliers: with biases={biases!r} part of the relevance goes to biases, which "
                "are no multiple of x. Make a relevance without."
            )
        out, found = _explained(fun, args, kwargs, argnums, asked, multiples=True)
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
    at: Places = None,
    through: Mapping[str, Any] | None = None,
    direct: bool = False,
    parallel: bool = True,
    leaves: int | Sequence[int] = (),
) -> Callable[..., Any]:
    """Like :func:`relevance`, and like ``jax.value_and_grad``: the value comes with it.

    Args:
      fun, rules, argnums, baseline, biases, has_aux, chunk, at, through, direct, parallel, leaves:
        as for :func:`relevance`.

    Returns:
      A function that returns ``(value, relevance)``, or ``((value, auxiliary), relevance)`` with
      ``has_aux``. The value is that of ``fun``, an array of any shape.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    check_function("value_and_relevance", fun)
    inside = read_inside(at, through, direct, parallel)
    asked = Asked(_rules(rules, baseline), has_aux, baseline, biases, _chunk(chunk), inside, leaves)

    @functools.wraps(fun)
    def value_and_relevance_fun(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return _explained(fun, args, kwargs, argnums, asked)

    return value_and_relevance_fun


def _explained(
    fun: Callable[..., Any],
    args: tuple,
    kwargs: Mapping[str, Any],
    argnums: int | Sequence[int],
    asked: Asked,
    multiples: bool = False,
) -> tuple[Any, Any]:
    """What a function returns, and the relevances (with ``multiples`` multipliers) asked for."""
    if asked.leaves != ():
        return beside_leaves(fun, args, kwargs, argnums, asked, multiples)
    call, asked = asked.call(fun, args, kwargs, argnums)
    out, pullback = pull(call, asked, multiples)
    value = out[0] if asked.has_aux else out
    return out, pullback(jnp.ones_like(value)).of(call, asked)


def relevance_vjp(
    fun: Callable[..., Any],
    *primals: Any,
    rules: Rules = None,
    baseline: Any = None,
    biases: bool | str = False,
    has_aux: bool = False,
    chunk: int = 1,
    argnums: int | Sequence[int] | None = None,
    at: Places = None,
    through: Mapping[str, Any] | None = None,
    direct: bool = False,
    parallel: bool = True,
) -> tuple[Any, ...]:
    """Like ``jax.vjp``: the value, and a function from its multiplier to relevances.

    Args:
      fun: as for :func:`relevance`.
      *primals: its arguments.
      rules: a rule set or the name of a preset.
      baseline: as for :func:`relevance`; a tuple with one entry for each primal.
      biases: as for :func:`relevance`; ``pullback`` then returns (relevances, biases).
      has_aux: ``fun`` returns ``(array, auxiliary)``.
      chunk: as for :func:`relevance`.
      argnums: which primals are explained; None: all.
      at, through, direct, parallel: as for :func:`relevance`; ``pullback`` returns what that does.

    Returns:
      ``(value, pullback)``, or ``(value, pullback, auxiliary)`` with ``has_aux``. ``pullback(m)``
      takes the multiplier of the value, of its shape and dtype (1: explain this output, 0: do not),
      and returns a tuple of relevances, one for each explained primal. Under ``vmap`` over one-hot
      multipliers it explains all classes with one forward pass.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    check_function("relevance_vjp", fun)
    explained = tuple(range(len(primals))) if argnums is None else argnums
    inside = read_inside(at, through, direct, parallel)
    asked = Asked(_rules(rules, baseline), has_aux, baseline, biases, _chunk(chunk), inside)
    call, asked = asked.call(fun, primals, {}, explained)
    out, pullback = pull(call, asked)

    def relevances(m: Any) -> Any:
        check_multiplier(m, out[0] if has_aux else out)
        return pullback(m).of(call, asked)

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
      Below, and in its ``notes``, what is split by the border of a ``shard_map``, loop or branch.

    Raises:
      TypeError, ValueError, UnsupportedPrimitive: as :func:`relevance`.
    """
    check_function("summary", fun)
    rule_set = preset(default_rules(rules, baseline))

    def summarized(*args: Any, **kwargs: Any) -> Table:
        call = Arguments(fun, args, kwargs, argnums)
        plan, _ = trace(call, rule_set, compared=baseline is not None)
        chosen = assign(plan, rule_set, baseline is not None)
        return Table.of(plan, lambda step: _rule_name(step, rule_set, chosen))

    return summarized


def _rule_name(step: Step, rules: RuleSet, chosen: Assignment) -> str:
    rule, override = rules.choose(step)
    known = chosen.get(id(step)) or rule  # with what the plan tells of degrees
    return "" if step.kind == "control" and override is None else describe(known)


def _rules(rules: Rules, baseline: Any) -> RuleSet:
    return preset(default_rules(rules, baseline))


def _chunk(chunk: int) -> int:
    return count("relevance", chunk=chunk)


def default_rules(rules: Rules, baseline: Any = None) -> RuleSet | str:
    """The rule set that is meant where none is given."""
    if rules is not None:
        return rules
    return "slope" if baseline is None else "compare_to_baseline"
