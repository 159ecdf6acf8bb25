"""The arrows between the rooms of the house go one way; its doors are the public names."""

import ast
import pathlib

import jaxrel

ROOT = pathlib.Path(jaxrel.__file__).parent

BELOW = {  # what each room may import, besides itself
    "_compat": set(),
    "errors": set(),
    "_plan": {"_compat", "errors"},
    "rules": {"_compat"},
    "rulesets": {"_compat", "errors", "_plan", "rules"},
    "_call": {"_compat", "errors"},
    "_execute": {"_compat", "errors", "_call", "_plan", "rules", "rulesets"},
    "plot": {"errors"},
}
BELOW["api"] = {*BELOW}
BELOW["around"] = {"_compat", "_call"}
BELOW["audit"] = BELOW["verify"] = {*BELOW}
BELOW["training"] = {"_compat", "_call", "api", "rulesets", "rules"}


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


def test_dir_shows_the_public_names_only():
    assert {"relevance", "rules", "rulesets", "training", "plot"} <= set(dir(jaxrel))
    assert not any(name.startswith("_") and not name.startswith("__") for name in dir(jaxrel))
    assert all(hasattr(jaxrel, name) for name in dir(jaxrel))
