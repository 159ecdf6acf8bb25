"""The code in `docs/` runs, and does what is said."""

import importlib.util
import json
import pathlib
import re
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrel
from jaxrel import metrics, relevance, rules
from tests.checks import needs

THIS = pathlib.Path(__file__)
DOCS = THIS.parent.parent / "docs"


def blocks(name: str) -> list[str]:
    """The code of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), flags=re.DOTALL)


def run(name: str) -> dict[str, Any]:
    """What the blocks of a page define, run one after the other; all numbers are finite."""
    made: dict[str, Any] = {}
    for block in blocks(name):
        exec(compile(block, name, "exec"), made)
    for key, value in made.items():
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
            assert jnp.isfinite(value).all(), key
    return made


def test_every_page_with_code_has_a_test():
    """Each of which runs its page."""
    ran = set(re.findall(r'(?:run|blocks)\("([a-z_]+[.]md|CONTRIBUTING[.]md)"\)', THIS.read_text()))
    assert ran == {page.name for page in DOCS.glob("*.md") if blocks(page.name)}


@pytest.mark.usefixtures("default_precision")
def test_the_first_page():
    made = run("index.md")
    np.testing.assert_allclose(made["explain"](jnp.array([[1.0, 3.0]])), [[-1.0, 4.5]], rtol=1e-6)


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_the_tutorial_finds_a_shortcut_and_repairs_it(capsys):
    made = run("tutorial.md")
    right, others, labels = made["right"], made["others"], made["labels"]
    assert right(made["plain"], made["images"], labels) == 1
    assert right(made["plain"], others, labels) < 0.5
    assert made["on_bar"] < 0.5 and "of the relevance is on the bar" in capsys.readouterr().out
    assert right(made["repaired"], others, labels) > 0.95


@needs("keras")
@pytest.mark.usefixtures("default_precision")
def test_fourteen_tasks():
    made = run("howto.md")
    fun, images = made["fun"], made["images"]
    np.testing.assert_allclose(made["of_classes"][1], made["heatmaps"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(made["on_all"], made["heatmaps"], rtol=1e-4, atol=1e-6)
    whole = made["of_channels"].sum(0)
    np.testing.assert_allclose(whole, made["heatmaps"], rtol=1e-3, atol=1e-5)
    change = fun(images) - fun(made["references"]).mean()
    np.testing.assert_allclose(made["difference"].sum((1, 2, 3)), change, rtol=1e-3, atol=1e-5)
    assert made["of_nnx"].shape == made["of_keras"].shape == images.shape
    assert made["of_layer"].shape == (8, 6, 6, 4) and made["of_words"].shape == (1, 5)
    assert all("<" in text for text in made["shown"])


def test_fourteen_tasks_are_short():
    text = (DOCS / "howto.md").read_text()
    assert re.findall(r"^## (\d+)\. ", text, flags=re.MULTILINE) == [str(k + 1) for k in range(14)]
    assert max(len(block.splitlines()) for block in blocks("howto.md")) <= 15
    assert len(blocks("howto.md")) == 15  # and what they explain


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_guide(capsys):
    made: list[dict[str, Any]] = [{}]
    for block in blocks("guide.md"):
        made.append(dict(made[-1]))
        exec(compile(block, "guide.md", "exec"), made[-1])
    assert "layers_3" in capsys.readouterr().out  # the table of the plan
    _, _, biases, baseline, inside, around, judged = made
    value = biases["fun"](biases["images"]).sum()
    assert jnp.allclose(biases["explained"].sum() + biases["total"], value, rtol=1e-4)
    change = value - 4 * baseline["fun"](baseline["others"]).mean()
    assert jnp.allclose(baseline["difference"].sum(), change, rtol=1e-3)
    explained = around["explain"](around["images"])
    assert jnp.allclose(explained, baseline["difference"], rtol=1e-3, atol=1e-6)
    assert judged["curve"].shape == (4, 51)
    weights, constant = inside["W"], inside["c"]
    product = jnp.tensordot(weights, inside["images"][:1], 4) + constant
    assert jnp.allclose(product, inside["fun"](inside["images"][:1]), rtol=1e-5)


@pytest.mark.usefixtures("default_precision")
def test_training():
    assert all(map(jnp.isfinite, run("training.md")["metrics"].values()))


@pytest.mark.usefixtures("default_precision")
def test_recipes():
    made = run("recipes.md")
    fun, images = made["fun"], made["images"]
    value = fun(images).sum()

    biases = sum(m.sum() for m in made["maps"].values())
    head = made["variables"]["params"]["layers_5"]["bias"][3] * len(images)
    np.testing.assert_allclose(made["of_input"].sum() + biases + head, value, rtol=1e-4)
    assert made["saliency"].shape == (4, 16, 16)
    account = sum(map(jnp.sum, jax.tree.leaves((made["whole"], made["ledger"]))))
    np.testing.assert_allclose(account, value, rtol=1e-4)
    np.testing.assert_allclose(
        made["maps"]["layers_0"].sum((0, 1, 2)), made["ledger"]["layers_0"], rtol=1e-3, atol=1e-5
    )

    kernel = made["of_parameters"]["params"]["layers_5"]["kernel"]  # of a last layer: all it makes
    np.testing.assert_allclose(kernel.sum(), value - head, rtol=1e-4)
    whole = made["jaxrel"].relevance(fun, "epsilon_plus")(images)
    np.testing.assert_allclose(made["concepts"].sum(0), whole, rtol=1e-3, atol=1e-4)
    change = fun(images) - fun(made["corrupted"])
    np.testing.assert_allclose(made["exact"].sum((1, 2, 3)), change, rtol=1e-3, atol=1e-5)
    assert set(made["patching"]) == {"layers_0", "layers_2", "layers_5"}
    for part in made["parts"]:
        loses = fun(images) - fun(images * ~part)
        of_part = (made["of_parts"] * part).sum((1, 2, 3))
        np.testing.assert_allclose(of_part, loses, rtol=1e-4, atol=1e-6)


def by_hand(leaves: Any, tokens: jax.Array) -> jax.Array:
    """Relevance of the tokens of the page's network, split behind its table."""
    parameters: dict[int, jax.Array] = {}
    for leaf in map(jnp.asarray, leaves):
        order = sorted(leaf.shape, reverse=True)  # equinox has weights the other way round
        parameters[leaf.size] = leaf if leaf.shape == tuple(order) else leaf.T
    table, hidden, head = (parameters[size] for size in (80, 48, 12))
    b, c = parameters[6], parameters[2]

    def rest(h: jax.Array) -> jax.Array:
        return (jnp.tanh(h @ hidden + b).mean(1) @ head + c)[:, 0]

    return relevance(rest, "slope")(table[tokens]).sum(-1)


@needs("keras")
@pytest.mark.usefixtures("default_precision")
def test_the_same_lines_explain_a_token_model_of_every_library():
    made = run("token_models.md")
    leaves = {
        "linen": jax.tree.leaves(made["learned"]),
        "nnx": jax.tree.leaves(made["in_nnx"]),
        "equinox": jax.tree.leaves(made["in_equinox"]),
        "haiku": jax.tree.leaves(made["weights"]),
        "keras": [variable.value for variable in made["in_keras"].variables],
    }
    assert set(made["of_words"]) == set(leaves)
    for library, found in made["of_words"].items():
        want = by_hand(leaves[library], made["tokens"])
        assert found.shape == made["tokens"].shape
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6, err_msg=library)


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
def test_metrics():
    made = run("metrics.md")
    assert made["morf"].shape == (6, 33) and made["regions"].shape == (6, 11)
    np.testing.assert_allclose(made["morf"][:, -1], made["lerf"][:, -1], rtol=1e-4, atol=1e-6)
    assert made["scores"]["sensitivity-n"].shape == (6, 3)
    np.testing.assert_allclose(made["scores"]["cascading"][0], 1, rtol=1e-5)
    np.testing.assert_allclose(made["curve"][-1], 1, rtol=1e-4)
    first = np.moveaxis(made["attributions"], 1, -1)
    np.testing.assert_allclose(first, made["heatmaps"], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("default_precision")
def test_a_rule_in_ten_lines():
    made = run("CONTRIBUTING.md")
    x = made["x"]
    np.testing.assert_allclose(made["clipped"], x * np.minimum(np.sinh(x) / x, 1.2), rtol=1e-6)


# --------------------------------------------------------------------------------- the reference


def script(name: str) -> Any:
    """A script of the site."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference():
    made = script("reference")
    pages = made.pages()
    for door in made.DOORS:
        page = pages[f"reference/{door.__name__.rpartition('.')[2]}.md"]
        for name in set(door.__all__) - {"__version__"}:
            assert f"## `{name}`\n" in page or isinstance(getattr(door, name), ModuleType), name
    assert "- **rules**: a `RuleSet`, or" in pages["reference/jaxrel.md"]
    assert ":class:" not in "".join(pages.values()) and "``" not in pages[
        "reference/rules.md"
    ].replace("```", "")


def test_a_public_name_without_a_docstring_is_an_error(monkeypatch):
    made = script("reference")
    monkeypatch.setattr(jaxrel.relevance, "__doc__", None)
    with pytest.raises(ValueError, match="jaxrel.relevance is public and has no docstring"):
        made.pages()


def test_every_rule_preset_and_metric_has_a_row():
    rows = (DOCS / "rules.md").read_text()
    named = {
        name
        for line in rows.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if line[:1] == "|" else "")
    }
    every = {n for n in rules.__all__ if isinstance(getattr(rules, n), type)}
    assert named == {n for n in every if issubclass(getattr(rules, n), rules.Rule)} - {"Rule"}
    judged = (DOCS / "metrics.md").read_text()
    assert not [name for name in metrics.__all__ if f"{name}" not in judged]


# --------------------------------------------------------------------------------- the notebooks

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.every_case
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_what_they_show(path):
    """Every cell was run, in order, and nothing is heavy."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [1 + k for k in range(len(cells))]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [out for out in outputs if out["output_type"] == "error"]
    assert path.stat().st_size < 150_000


@pytest.mark.full
@pytest.mark.usefixtures("default_precision")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path):
    """They show again what they hold, but for the last digits of numbers."""
    notebook = json.loads(path.read_text())
    kinds = [shown(cell) for cell in notebook["cells"]]
    made = script("notebooks").run(notebook)
    assert [shown(cell) for cell in notebook["cells"]] == kinds
    if path.stem == "images":
        assert made["accuracy"] > 0.9
        assert made["scores"]["against black"] > made["scores"]["epsilon_plus_flat"]
    if path.stem == "text":
        change = made["fun"](made["asked"]) - made["fun"](jnp.zeros_like(made["asked"]))
        np.testing.assert_allclose(made["found"].sum(1), change, rtol=1e-3, atol=1e-4)


def shown(cell: dict[str, Any]) -> list[list[str]]:
    """Of what kinds the outputs of a cell are."""
    return [sorted(output.get("data", ["text"])) for output in cell.get("outputs", [])]


@pytest.mark.usefixtures("default_precision")
def test_a_cell_shows_its_last_value_and_what_it_prints():
    run_cells = script("notebooks").run
    sources = ["a = 1\nprint(a)\na + 1", "import jaxrel\njaxrel.rulesets.slope()", "b = a"]
    cells = [{"cell_type": "code", "source": [source]} for source in sources]
    assert run_cells({"cells": cells})["b"] == 1
    printed, value = cells[0]["outputs"]
    assert printed["text"] == ["1\n"] and value["data"]["text/plain"] == ["2"]
    assert "<table" in "".join(cells[1]["outputs"][0]["data"]["text/html"])
    assert cells[2]["outputs"] == []


def test_batchnorm_big_models_and_debugging():
    made = run("harder.md")
    explain, fun, images = made["explain"], made["fun"], made["images"]
    plain = jaxrel.relevance(fun, "slope")(images)
    np.testing.assert_allclose(explain(made["variables"], images), plain, rtol=1e-4, atol=1e-7)
    norms = [str(jaxrel.summary(fun, r)(images)).count("affine") for r in ("lrp", made["apart"])]
    assert norms == [0, 1]
    assert made["averages"]["batch_stats"] and made["of_tokens"].dtype == jnp.bfloat16
    np.testing.assert_allclose(made["of_split"], 1, rtol=1e-5)
