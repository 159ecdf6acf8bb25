"""Runs the notebooks in `docs/notebooks/` and writes what they show into them.

    python docs/site/notebooks.py

Without Jupyter: cells run one after the other in one namespace; what is printed is kept, and of the
last expression a table or words as HTML, a figure as PNG, anything else as text.
"""

import ast
import base64
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Runs the cells of a notebook, puts their outputs into it, and returns what they define."""
    made: dict[str, Any] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(cells, 1):
        cell["execution_count"] = count
        cell["outputs"] = list(_outputs("".join(cell["source"]), made, count))
    return made


def _outputs(source: str, made: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """Runs a cell."""
    tree, last = ast.parse(source), None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), made)
        value = eval(compile(last, f"cell {count}", "eval"), made) if last else None
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        yield {"output_type": "stream", "name": "stdout", "text": text}
    if value is not None:
        shown = {"data": _shown(value), "metadata": {}, "execution_count": count}
        yield {"output_type": "execute_result", **shown}


def _shown(value: Any) -> dict[str, Any]:
    if hasattr(value, "savefig"):
        file = io.BytesIO()
        value.savefig(file, format="png", dpi=70)
        return {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["Figure"]}
    if hasattr(value, "_repr_html_"):
        html = value._repr_html_().splitlines(keepends=True)
        return {"text/html": html, "text/plain": [type(value).__name__]}
    return {"text/plain": repr(value).splitlines(keepends=True)}


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        read = json.loads(path.read_text())
        run(read)
        path.write_text(json.dumps(read, indent=1, ensure_ascii=False) + "\n")
        print(path.name)
