"""The code in the README runs as it stands, block after block, in the types that users have."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.usefixtures("default_precision")
def test_its_code_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    made: list[dict[str, Any]] = [{}]
    for block in blocks:
        made.append(dict(made[-1]))
        exec(compile(block, README.name, "exec"), made[-1])
        for name, value in made[-1].items():
            if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
                assert jnp.isfinite(value).all(), name
    assert "layers_3" in capsys.readouterr().out  # the table of the plan
    _, _, biases, baseline, around, training = made
    value = biases["fun"](biases["images"]).sum()
    assert jnp.allclose(biases["explained"].sum() + biases["total"], value, rtol=1e-4)
    change = value - 4 * baseline["fun"](baseline["others"]).mean()
    assert jnp.allclose(baseline["difference"].sum(), change, rtol=1e-3)
    explained = around["explain"](around["images"])
    assert jnp.allclose(explained, baseline["difference"], rtol=1e-3, atol=1e-6)
    assert all(map(jnp.isfinite, training["metrics"].values()))
