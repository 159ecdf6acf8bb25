"""What is installed: the library alone, of few packages, all of them used; and how it looks."""

import io
import re
import tomllib
import zipfile
from pathlib import Path

import jaxrel

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CODE = {path: path.read_text() for path in sorted((ROOT / "jaxrel").rglob("*.py"))}


def test_each_dependency_is_used():
    named = [re.split("[>=<]", asked)[0] for asked in PROJECT["project"]["dependencies"]]
    assert named == ["jax", "jaxlib", "flax", "optax", "chex"]
    whole = "\n".join(CODE.values())
    for name in set(named) - {"jaxlib"}:  # which jax is made of
        assert re.search(rf"^ *(import|from) {name}\b", whole, flags=re.MULTILINE), name


def test_extras_and_what_an_index_shows():
    project = PROJECT["project"]
    assert {"train", "plot", "experiments", "docs", "test"} <= set(project["optional-dependencies"])
    assert project["authors"] == [{"name": "jaxrel developers"}] and project["classifiers"]
    assert {"Source", "Documentation", "Changelog", "Issues"} == set(project["urls"])
    assert project["version"] == jaxrel.__version__
    assert f"version: {jaxrel.__version__}" in (ROOT / "docs" / "CITATION.cff").read_text()


def test_the_readme_of_an_index_has_links_and_pictures():
    text = (ROOT / "README.md").read_text()
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets and all(target.startswith("https://") for target in targets)
    assert "](https://raw.githubusercontent.com/jaxrel/jaxrel/main/experiments/results/" in text


def test_the_wheel_is_small():
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["jaxrel"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, text in CODE.items():
            wheel.writestr(str(path.relative_to(ROOT)), text)
    assert len(file.getvalue()) < 480_000
