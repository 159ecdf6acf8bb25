"""The arrows between the rooms of the house go one way; its doors are the public names."""

import ast
import inspect
import pathlib
import pydoc
import re
import subprocess
import sys
from types import FunctionType, ModuleType

import pytest

import jaxrel

ROOT = pathlib.Path(jaxrel.__file__).parent

BELOW = {  # what each room may import, besides itself
    "_compat": set(),
    "errors": set(),
    "_show": set(),
    "_plan": {"_compat", "errors", "_show"},
    "rules": {"_compat", "errors"},
    "rulesets": {"_compat", "errors", "_plan", "_show", "rules"},
    "_call": {"_compat", "errors"},
    "_execute": {"_compat", "errors", "_call", "_plan", "rules", "rulesets"},
    "plot": {"errors", "_show"},
}
BELOW["api"] = {*BELOW}
BELOW["around"] = {"_compat", "_call"}
BELOW["audit"] = BELOW["inside"] = BELOW["verify"] = {*BELOW}
BELOW["training"] = {"_compat", "errors", "_call", "api", "rulesets", "rules"}
BELOW["metrics"] = {"_compat", "errors", "_call", "_execute", "rules", "training"}


def room(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: pathlib.Path):
    """The rooms that a file of the package imports."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            target = (*base, *(node.module or "").split("."))
            target = tuple(filter(None, target))
            yield from [target[0]] if target else [alias.name for alias in node.names]


def test_arrows_go_one_way():
    for path in ROOT.rglob("*.py"):
        here = room(path)
        if here != "__init__":
            wrong = set(imported(path)) - BELOW[here] - {here}
            assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_few_files_lie_at_the_top_and_none_is_long():
    assert len(list(ROOT.glob("*.py"))) <= 8
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_what_is_not_needed_is_not_imported():
    """Most programs neither draw nor train."""
    heavy = ("flax", "optax", "chex", "matplotlib", "jaxrel.training", "jaxrel.metrics")
    asks = f"import sys, jaxrel; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, check=True, text=True)
    assert told.stdout.strip() == "[]"


DOORS = [jaxrel, jaxrel.rules, jaxrel.rulesets, jaxrel.training, jaxrel.plot, jaxrel.metrics]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_dir_a_star_and_help_show_the_public_names_only(door):
    made: dict[str, object] = {}
    exec(f"from {door.__name__} import *", made)
    assert sorted(set(made) - {"__builtins__"}) == dir(door) == sorted(door.__all__)
    assert not [name for name in dir(door) if name.startswith("_") and name != "__version__"]
    text = pydoc.render_doc(door, renderer=pydoc.plaintext)
    shown = [name for name in dir(door) if isinstance(getattr(door, name), type | FunctionType)]
    assert all(re.search(rf"\b{name}\b", text) for name in shown)
    assert {"relevance", "rules", "rulesets", "training", "plot", "metrics"} <= set(dir(jaxrel))


@pytest.mark.parametrize("door", DOORS[1:], ids=lambda door: door.__name__)
def test_nothing_public_is_left_out(door):
    names = {n for n, value in vars(door).items() if not isinstance(value, ModuleType)}
    assert {n for n in names if not n.startswith("_")} == set(door.__all__)


def documented(thing):
    """Public functions and classes of a door, and the public methods of its classes."""
    for name in thing.__all__:
        value = getattr(thing, name)
        if isinstance(value, type):
            yield name, value
            methods = {n: m for n, m in vars(value).items() if isinstance(m, FunctionType)}
            yield from ((f"{name}.{n}", m) for n, m in methods.items() if not n.startswith("_"))
        elif isinstance(value, FunctionType):
            yield name, value


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_what_is_public_says_what_it_does(door):
    """And names each argument of a function that has a section on them."""
    for name, thing in documented(door):
        text = inspect.getdoc(thing)
        assert text, name
        if isinstance(thing, FunctionType) and "Args:" in text:
            section = text.split("Args:")[1].split("Returns:")[0].split("Raises:")[0]
            missing = [p for p in inspect.signature(thing).parameters if p not in section]
            assert not set(missing) - {"self"}, (name, missing)
