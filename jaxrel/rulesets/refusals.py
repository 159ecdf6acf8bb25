"""What is said of a step that cannot be explained: which, where, why, and the way out."""

from __future__ import annotations

from typing import Any

from .._plan.primitives import OPAQUE, STATE, of
from .._plan.steps import Step
from ..errors import RuleError, UnsupportedPrimitive, place
from .ruleset import describe


def unsuited(rule: Any, step: Step, compared: bool) -> RuleError:
    """A rule that has no formula with a baseline (``compared``), or none without."""
    alone, way_out = (
        ("with", "Choose another rule for it, or leave the baseline out.")
        if compared
        else ("without", "Give relevance(..., baseline=...).")
    )
    return RuleError(
        f"{describe(rule)} has no formula {alone} a baseline; it is the rule of a {step.kind} "
        f"step, {step.operation!r} {place(step.location, step.source)}. {way_out}"
    )


def unsupported(step: Step, differentiable: bool) -> UnsupportedPrimitive:
    """A step that no rule explains; ``differentiable``: jax could."""
    name = step.nodes[-1].name
    if name == "while":
        reason = "a while loop over a value that depends on the explained input cannot be reversed."
        way_out = _by_name(step) or (
            "Use lax.scan, lax.fori_loop with static bounds, or stop_gradient on what enters it; "
            "or " + _WRAP
        )
    elif name in STATE:
        reason = "a reference holds a value that depends on the explained input."
        way_out = "Put stop_gradient on what is stored, or hand it on as a value."
    elif name in OPAQUE:
        reason = "an opaque call on a value that depends on the explained input."
        way_out = _by_name(step) or "Put stop_gradient on what enters it, or " + _WRAP
    elif not differentiable:
        reason = "this operation cannot be differentiated by a value that is live."
        way_out = (
            f'Give it a rule of your own by name, rules | {{"{name}": rule}}, or put stop_gradient '
            "on what enters it."
        )
    else:
        reason = "no rule is known for this operation on a live value."
        way_out = f'Name one: rules | {{"{name}": Gradient()}} takes its plain VJP.'
    return UnsupportedPrimitive(name, step.location, step.source, reason, way_out)


_WRAP = (
    "wrap it in jax.custom_vjp and give that function a rule by name: "
    'rules | {"its_name": PathIntegral()}.'
)


def _by_name(step: Step) -> str:
    """The way out for what stands inside a function whose author gives its derivative."""
    calls = step.nodes[-1].calls
    own = [call for call in calls if of(call.eqn.primitive.name).own_derivative]
    if not own:
        return ""
    name, maker = own[-1].name, own[-1].eqn.primitive.name.removesuffix("_call")
    solver = any(call.name == "diffeqsolve" for call in calls)
    return (
        f"{'With diffrax use adjoint=diffrax.DirectAdjoint(). Or: it' if solver else 'It'} stands "
        f"inside {name!r}, which has a derivative of its own (jax.{maker}): give that a rule as a "
        f'whole, by name: rules | {{"{name}": PathIntegral()}}.'
    )
