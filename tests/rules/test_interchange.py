"""Rule sets as data, as code and in words: what is written is what is read."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxrel
from jaxrel import First, Kind, RuleSet, Stabilizer, rules, rulesets
from jaxrel.rulesets import words
from jaxrel.rulesets.matching import KINDS, VARIANTS

PRESETS = {
    name: getattr(rulesets, name)(*((0.0, 1.0) if name == "epsilon_gamma_box" else ()))
    for name in sorted(set(rulesets.presets.__all__) - {"preset"})
}
OTHERS = {
    "stabilizers": rulesets.epsilon_plus(Stabilizer(0.25, "rms"), Stabilizer(1e-9, "clip"), False),
    "box": rulesets.deep_taylor(-1.5, 2),
    "infinite": RuleSet(maximum=rules.SoftmaxLimit()),
    "finite": RuleSet(maximum=rules.SoftmaxLimit(3.0), product=rules.ByDegree((1, 2.5))),
    "words": RuleSet(matmul=rules.Gamma(0.1, bias="plain"), other=None, fold=False, parts=True),
    "matches": rulesets.epsilon_plus_flat()
    | {
        "**/Conv_*": rules.AlphaBeta(3.0, 2.0),
        'block/"odd"\n': rules.Gradient(),
        "dot_general": rules.Pass(),
        First("dense"): rules.ZBox(0, 1.0),
        Kind("gate"): rules.First(),
        Kind("elementwise"): rules.PathIntegral(8),
    },
    "equal rules": RuleSet() | {First(): rules.Epsilon(), "silu": rules.Epsilon()},
}
ALL = PRESETS | OTHERS
PUBLIC = {name: getattr(jaxrel, name) for name in jaxrel.__all__ if name not in ("plot",)}


@pytest.mark.every_case
@pytest.mark.parametrize("name", ALL)
def test_data_and_code_give_the_same_rule_set(name):
    made = ALL[name]
    text = json.dumps(made.to_dict(), allow_nan=False)
    assert RuleSet.from_dict(json.loads(text)) == made
    assert RuleSet.from_dict(made.to_dict()) == made
    evaluated = eval(repr(made), PUBLIC)
    assert evaluated == made
    assert str(evaluated) == str(made)


def test_every_rule_is_written_and_has_words():
    """With its defaults, or where it has none with numbers."""
    seen = set()
    for name in rules.__all__:
        cls = getattr(rules, name)
        if not (isinstance(cls, type) and issubclass(cls, rules.Rule)) or cls is rules.Rule:
            continue
        seen.add(name)
        rule = cls(0.0, 1.0) if cls is rules.ZBox else cls()
        kind = next(kind for kind in KINDS if kind in (cls.kinds or KINDS))
        made = RuleSet(**{kind: rule})
        assert RuleSet.from_dict(json.loads(json.dumps(made.to_dict()))) == made
        assert eval(repr(made), PUBLIC) == made
        assert "{" not in made.describe()
    assert seen == set(words.RULES)
    assert set(words.KINDS) == {*KINDS, *VARIANTS}


@pytest.mark.parametrize(
    "number",
    [
        jnp.float32(0.1),
        jnp.asarray([0.1, float("inf")], jnp.float32),
        jnp.asarray(0.3, jnp.bfloat16),
        jnp.arange(3),
    ],
    ids=["scalar", "vector", "bfloat16", "integers"],
)
def test_arrays_keep_their_numbers_and_types(number):
    """Learned hyper-parameters are arrays."""
    made = RuleSet(matmul=rules.GeneralizedGamma(number)) | {First(): rules.ZBox(-number, number)}
    text = json.dumps(made.to_dict(), allow_nan=False)
    for found in (RuleSet.from_dict(json.loads(text)), eval(repr(made), PUBLIC)):
        assert jax.tree.structure(found) == jax.tree.structure(made)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(made), strict=True):
            assert jnp.array_equal(a, b)
            assert jnp.asarray(a).dtype == jnp.asarray(b).dtype


def of_ones_own(view: rules.View, m: Any) -> Any:
    return view.vjp(m)


@rules.rule("matmul")
class Own(rules.Rule):
    """A class of one's own."""

    def __call__(self, view: rules.View, m: Any, /) -> Any:
        """The gradient."""
        return view.vjp(m)


@rules.rule("matmul")
class Epsilon(Own):
    """One with a name that jaxrel has too."""


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (RuleSet(matmul=of_ones_own), "the rule of 'matmul', of_ones_own, is none of jaxrel.rules"),
        (RuleSet() | {"tanh": of_ones_own}, "| {'tanh': of_ones_own}."),
        (RuleSet() | {First("conv"): Own()}, '| {First("conv"): Own()}.'),
        (RuleSet(matmul=Epsilon()), "the rule of 'matmul', Epsilon(), is none of jaxrel.rules"),
    ],
    ids=["row", "override", "class", "name"],
)
def test_code_is_no_data(made, told):
    with pytest.raises(TypeError) as caught:
        made.to_dict()
    assert told in str(caught.value)
    assert "rule of your own" in made.describe()
    assert repr(made).startswith("RuleSet(")


def test_a_match_that_has_no_name_is_named():
    """There is none today; whatever may be one tomorrow is refused, not written wrong."""
    for match, told in ((jax.nn.silu, "silu"), (json, "json"), (3.5, "3.5")):
        with pytest.raises(TypeError, match=f"the match {told} of type"):
            rulesets.interchange.written_match(match)


def test_traced_numbers_are_refused_and_shown():
    def traced(eps):
        made = rulesets.epsilon(eps)
        assert "Epsilon" in repr(made) and "Epsilon" in str(made) and made.describe()
        with pytest.raises(TypeError, match="Epsilon.eps is .*outside of jit"):
            made.to_dict()
        return eps

    jax.jit(traced)(0.1)
    assert repr(jax.tree.map(lambda leaf: object(), rulesets.lrp())).startswith("RuleSet(")


@pytest.mark.parametrize(
    ("written", "error", "told"),
    [
        ("{}", TypeError, "expected what to_dict returns, got str; json.loads makes it of text."),
        ([], TypeError, "got list."),
        ({"matmull": None}, ValueError, "has no 'matmull'; did you mean 'matmul'?"),
        ({"matmul": "Epsilon"}, TypeError, "matmul: expected a rule, {"),
        ({"matmul": {"rule": "Epsilonn"}}, ValueError, "'Epsilonn'; did you mean 'Epsilon'?"),
        ({"matmul": {"rule": "Epsilon", "epss": 1}}, ValueError, "no 'epss'; did you mean 'eps'?"),
        ({"matmul": {"rule": "ZBox", "low": 1}}, ValueError, "ZBox needs high."),
        ({"matmul": {"rule": "Epsilon", "eps": "big"}}, TypeError, "Epsilon.eps: expected a numb"),
        ({"matmul": {"rule": "Epsilon", "eps": -1}}, ValueError, "eps >= 0 is needed, got -1"),
        ({"matmul": {"rule": "Half"}}, TypeError, "matmul: Half() is a rule for product steps"),
        ({"matmul": {"rule": "View"}}, ValueError, "no rule is called 'View'"),
        ({"softmax": None}, TypeError, "softmax: expected a rule, got None"),
        ({"overrides": [["a"]]}, TypeError, "expected a pair [match, rule], got ['a']."),
        ({"overrides": ["ab"]}, TypeError, "expected a pair [match, rule], got 'ab'."),
        ({"overrides": [[3, {"rule": "Pass"}]]}, TypeError, "expected a match, a string"),
        ({"overrides": [[{"kind": "con"}, {"rule": "Pass"}]]}, ValueError, "did you mean 'conv'?"),
        ({"overrides": [["a", None]]}, TypeError, "a: expected a rule, got None"),
    ],
)
@pytest.mark.every_case
def test_what_is_not_as_written_is_refused(written, error, told):
    with pytest.raises(error) as caught:
        RuleSet.from_dict(written)
    assert told in str(caught.value)


def test_what_is_not_mentioned_is_as_by_default(tmp_path: Path):
    path = tmp_path / "rules.json"
    path.write_text('{"matmul": {"rule": "Epsilon"}}')
    assert RuleSet.from_dict(json.loads(path.read_text())) == rulesets.epsilon()


def test_words():
    said = rulesets.epsilon_gamma_box(0.0, 1.0).describe().splitlines()
    assert said[0].startswith("Layers, z = W x + b: in proportion to what each input contributes")
    assert said[-1] == (
        "The first convolution of the input: in proportion to contributions counted from the ends "
        "of the box 0 to 1."
    )
    assert RuleSet(other=None).describe().splitlines()[-1].startswith("Any other operation: an err")
    named = (rulesets.slope() | {"**/head": rules.Epsilon(0.5)}).describe()
    assert named.splitlines()[-1].startswith("What is called '**/head': in proportion")
