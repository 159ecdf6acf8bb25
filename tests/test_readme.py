"""The code in the README runs as it stands, block after block, in the types that users have.

Its tables, and those of `docs/presets.md`, are those of the program: signatures, presets and their
rules, kinds of steps.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxrel
from jaxrel import plot, rules, rulesets
from jaxrel.rulesets.matching import KINDS, VARIANTS

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
PRESETS = (README.parent / "docs" / "presets.md").read_text()


def table(head: str, ditto: bool = False) -> Iterator[list[str]]:
    """The cells of the rows of a table; with ``ditto``, what a ditto mark stands for before it."""
    text = TEXT + PRESETS
    lines = iter(text.split(f"\n| {head} |")[1].splitlines()[2:])
    above: list[str] = []
    for line in lines:
        if not line.startswith("|"):
            return
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        full = [above[k] + cell if cell.startswith('"') else cell for k, cell in enumerate(cells)]
        above = full
        yield full if ditto else cells


def quoted(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_it_is_short():
    assert len(TEXT.splitlines()) < 150


def signatures() -> Iterator[ast.Call]:
    """The calls in the table of functions, the outermost last call taken off."""
    for function, *_ in table("function | like"):
        (code,) = quoted(function)
        if "(" in code:
            code = re.sub(r"\*, |, \*$|\.\.\.|, rules=$", "", code).replace("rules=)", ")")
            call = ast.parse(code, mode="eval").body
            assert isinstance(call, ast.Call)
            yield call.func if isinstance(call.func, ast.Call) else call


def test_its_signatures_are_those_of_the_functions():
    for call in signatures():
        assert isinstance(call.func, ast.Name)
        parameters = inspect.signature(getattr(jaxrel, call.func.id)).parameters
        plain = [parameters[arg.id] for arg in call.args if isinstance(arg, ast.Name)]
        assert not any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in plain), call.func.id
        for keyword in call.keywords:
            default = parameters[str(keyword.arg)].default
            assert default == ast.literal_eval(keyword.value), (call.func.id, keyword.arg)


def test_its_functions_are_all_there_are():
    shown = {code.split("(")[0] for row in table("function | like") for code in quoted(row[0])}
    public = {
        name
        for name in dir(jaxrel)
        if inspect.isfunction(getattr(jaxrel, name)) and name != "with_multipliers"
    }
    assert public | {"jaxrel.metrics", "jaxrel.plot"} == shown
    (pictures,) = (row[2] for row in table("function | like") if "jaxrel.plot" in row[0])
    assert set(quoted(pictures)) - {"plot"} == {
        name for name in dir(plot) if callable(getattr(plot, name))
    }


@pytest.mark.usefixtures("default_precision")
def test_its_functions_run_on_its_example(rng):
    """Each row of the table, on the network of its ten lines."""
    made: dict[str, Any] = {}
    (ten_lines,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(ten_lines, made)
    assert ten_lines in (README.parent / "docs" / "guide.md").read_text()
    fun, images, mine = made["fun"], made["images"], made["mine"]
    found = jaxrel.relevance(fun, mine)(images)
    value, same = jaxrel.value_and_relevance(fun, mine)(images)
    out, pullback = jaxrel.relevance_vjp(fun, images, rules=mine)
    for relevance in (same, pullback(jnp.ones_like(out))[0]):
        assert jnp.allclose(relevance, found, rtol=1e-5, atol=1e-7)
    assert jnp.array_equal(jaxrel.rewrite(fun, mine)(images), value)
    assert "conv" in str(jaxrel.summary(fun, mine)(images))
    assert jaxrel.verify(fun, mine)(images)
    books = jaxrel.audit(fun, mine)(images)
    assert jnp.allclose(books.explained, found.sum(), rtol=1e-4)
    key, explain = jax.random.key(0), jaxrel.relevance(fun, mine)
    for around in (
        jaxrel.integrated(explain, 0.0, steps=2),
        jaxrel.smooth(explain, key, 0.1, 2, relative=True, chunk=2),
        jaxrel.expected(explain, images, key, 2),
    ):
        assert around(images).shape == images.shape
    pictures = rng.uniform(size=images.shape)
    assert len(plot.grid(pictures, {"mine": found}).axes) == 2 * len(images) + 1


def rule_names(text: str) -> set[str]:
    names = {code.split("(")[0] for code in quoted(text)}
    return {name for name in names if isinstance(getattr(rules, name, None), type)}


def used(rule_set: Any) -> set[str]:
    return {
        line.split()[-1].split("(")[0] for line in str(rule_set).replace(", ", ",").splitlines()
    }


def test_its_presets_have_the_rules_it_says():
    slope, seen = used(rulesets.slope()), set()
    pairs = zip(table("preset | matmul"), table("preset | matmul", ditto=True), strict=True)
    for (names, *cells), (_, *full) in pairs:
        made = set()
        for code in quoted(names):
            name = code.split("(")[0].replace("..._", "epsilon_alpha2_beta1_")
            seen.add(name)
            parameters = inspect.signature(getattr(rulesets, name)).parameters
            given = {"low": 0.0, "high": 1.0} if "low" in parameters else {}
            chosen = used(getattr(rulesets, name)(**given))
            assert chosen <= rule_names(" ".join(full)) | slope, name
            made |= chosen
            if "gamma" in parameters:  # what it has with one
                made |= used(getattr(rulesets, name)(**given, gamma=0.1))
        made |= {"WSquare"} if "deep_taylor" in names else set()  # without bounds
        assert rule_names(" ".join(cells)) <= made | slope, names
    assert seen == set(rulesets.presets.__all__) - {"preset"}


def test_its_kinds_take_the_rules_it_says():
    kinds, variants, named = set(), set(), set()
    for names, _, rule_cell in table("kind of step"):
        here = [name for name in quoted(names) if name in KINDS]
        kinds.update(here)
        variants.update(set(quoted(names)) - set(here))
        for name in rule_names(rule_cell):
            named.add(name)
            domain = getattr(rules, name).kinds
            assert not domain or domain & set(here), (name, here)
    assert kinds == set(KINDS)
    assert variants <= set(VARIANTS)
    every = {n for n in dir(rules) if isinstance(getattr(rules, n), type)}
    every = {n for n in every if issubclass(getattr(rules, n), rules.Rule)}
    assert named == every - {"Rule"}


def headings(page: Path) -> set[str]:
    """What a page's headings are linked by."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in found}


@pytest.mark.every_case
@pytest.mark.parametrize(
    "page", [README, *sorted((README.parent / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_what_is_linked_to_is_there(page):
    """The reference is made when the site is."""
    for target, head in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", page.read_text()):
        there = page.parent / target if target else page
        assert "://" in target or target.startswith("reference/") or there.exists(), target
        assert not head or "://" in target or head in headings(there), (target, head)
