"""`experiments.explain_bytes`: the ONNX reader, the network's numbers, and the command line."""

import jax
import numpy as np
import pytest

from experiments import explain_bytes
from experiments.data import onnx_file
from experiments.networks import magika
from jaxrel import rulesets
from tests.checks import needs

pytestmark = needs("magika")

PDF = (
    b"%PDF-1.4\n1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj\n"
    b"2 0 obj << /Type /Pages /Kids [3 0 R] /Count 1 >> endobj\n"
    b"3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >> endobj\nxref\n0 4\n"
    b"trailer << /Size 4 /Root 1 0 R >>\nstartxref\n180\n%%EOF\n"
)
PYTHON = b"import os\n\n\ndef main() -> None:\n    print(os.getcwd())\n\n\nmain()\n"
HTML = b"<!DOCTYPE html>\n<html><body><p>Tell me why.</p></body></html>\n" * 30

# What onnxruntime 1.32 says of the file in magika 1.0.3.
TOLD = {"pdf": (PDF, 0.9992237), "python": (PYTHON, 0.8817002), "html": (HTML, 0.8723910)}


@pytest.fixture(scope="module")
def variables():
    return magika.load_variables()


@pytest.fixture(scope="module")
def tokens():
    return np.stack([magika.encode(content) for content, _ in TOLD.values()])


@pytest.mark.usefixtures("default_precision")
def test_types_are_told_as_by_onnxruntime(variables, tokens):
    """A norm over groups that are nearly all alike leaves five digits of float32."""
    probabilities = np.asarray(jax.nn.softmax(magika.Magika().apply(variables, tokens)))
    types = magika.load_types()
    assert [types[k] for k in probabilities.argmax(1)] == list(TOLD)
    np.testing.assert_allclose(probabilities.max(1), [p for _, p in TOLD.values()], atol=1e-4)


def convolved(x, kernel):
    """(n, features, length, 1) by (out, features, width, 1)."""
    width = kernel.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], width, axis=2)
    return np.einsum("nflw,ofw->nol", windows, kernel[..., 0], optimize=True)[..., None]


def sliced(x, starts, ends, axes, steps=None):
    assert steps is None or (np.asarray(steps) == 1).all() or len(x) == 2
    index = [slice(None)] * x.ndim
    for start, end, axis in zip(starts, ends, axes, strict=True):
        index[axis] = slice(start, end)
    return x[tuple(index)]


OPERATIONS = {
    "Add": np.add,
    "Cast": lambda x: x.astype(float) if x.dtype == bool else x,
    "Concat": lambda *parts: np.concatenate(parts),
    "Conv": convolved,
    "Div": np.divide,
    "Equal": np.equal,
    "Exp": np.exp,
    "Expand": lambda x, shape: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape))),
    "GlobalMaxPool": lambda x: x.max(2, keepdims=True),
    "MatMul": np.matmul,
    "Max": np.maximum,
    "Mul": np.multiply,
    "Reciprocal": np.reciprocal,
    "ReduceMax": lambda x: x.max(1),
    "ReduceSum": lambda x, axes: x.sum(tuple(axes)),
    "Reshape": lambda x, shape: x.reshape(shape),
    "Shape": lambda x: np.array(x.shape),
    "Slice": sliced,
    "Sqrt": np.sqrt,
    "Squeeze": lambda x, axes: x.squeeze(tuple(axes)),
    "Sub": np.subtract,
    "Tanh": np.tanh,
    "Transpose": lambda x: x.transpose(0, 2, 1, 3),
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(axes)),
}


def test_the_network_is_that_of_the_file(variables, tokens):
    """Whose operations numpy carries out one by one, in float64."""
    graph = onnx_file.read(magika.package_path() / "model.onnx")
    values = {k: v.astype(float) if v.dtype == "<f4" else v for k, v in graph.constants.items()}
    values["bytes"] = tokens[:1]
    for node in graph.nodes:
        (made,) = node.makes
        values[made] = OPERATIONS[node.operation](*(values[name] for name in node.reads))
    wide = jax.tree.map(lambda w: w.astype(float), variables)
    found = jax.nn.softmax(magika.Magika().apply(wide, tokens[:1]))
    np.testing.assert_allclose(found, values["target_label"], rtol=1e-6, atol=1e-12)


@pytest.mark.usefixtures("default_precision")
def test_bytes_add_up_to_what_they_change(variables, tokens):
    """Against a file without bytes; bytes that are not there have no relevance."""
    tokens, html = tokens[2:], np.array([magika.load_types().index("html")])
    rules = rulesets.compare_to_baseline()
    relevance = explain_bytes.explain(variables, tokens, html, rules)
    nothing = np.full_like(tokens, magika.PADDING)
    logits, others = (magika.Magika().apply(variables, t)[0, html[0]] for t in (tokens, nothing))
    np.testing.assert_allclose(relevance.sum(), logits - others, rtol=1e-3)
    assert not relevance[tokens == magika.PADDING].any()
    assert explain_bytes.spelled(tokens[0], relevance[0]).startswith("0:'<")


def test_bytes_are_those_that_the_package_reads():
    tokens = magika.encode(b"  \n" + PDF + b"\n\n")
    assert bytes(tokens[:5].tolist()) == b"%PDF-" and bytes(tokens[-5:].tolist()) == b"%%EOF"
    # white space is stripped where the file begins, and where it ends
    assert (tokens == magika.PADDING).sum() == 2 * 1024 - 2 * len(PDF.strip()) - 3 - 3
    long = magika.encode(bytes(range(256)) * 100)
    assert long[1023] == 255 and long[1024] == 0 and long.max() == 255
    with pytest.raises(ValueError, match="8 bytes"):
        magika.encode(b"  short ")


def test_bytes_are_taken_away_or_left():
    tokens, relevance = np.array([[5, 6, 7]]), np.array([[0.5, -1.0, 2.0]])
    np.testing.assert_array_equal(explain_bytes.without(tokens, relevance, 1), [[5, 6, 256]])
    np.testing.assert_array_equal(explain_bytes.alone(tokens, relevance, 2), [[5, 256, 7]])


def message(*fields):
    """Bytes of a protocol buffer: of short strings and small integers."""
    parts = []
    for number, value in fields:
        sized = isinstance(value, bytes)
        parts.append(bytes([number << 3 | 2, len(value)]) if sized else bytes([number << 3, value]))
        parts.append(value if sized else b"")
    return b"".join(parts)


def test_tensors_are_read_however_they_are_written(tmp_path):
    floats = np.arange(6, dtype="<f4")
    tensors = [
        message((1, b"\x02\x03"), (2, 1), (8, b"raw"), (9, floats.tobytes())),
        message((1, 2), (1, 3), (2, 1), (8, b"listed"), (4, floats.tobytes())),
        message((1, 3), (2, 7), (8, b"integers"), (7, b"\x01\xac\x02" + b"\xff" * 9 + b"\x01")),
    ]
    node = message((1, b"x"), (1, b"raw"), (2, b"layer/y"), (4, b"MatMul"))
    path = tmp_path / "made.onnx"
    graph = message((1, node), *((5, tensor) for tensor in tensors))
    path.write_bytes(
        message((1, 8)) + bytes([7 << 3 | 2, len(graph) & 127 | 128, len(graph) >> 7]) + graph
    )
    found = onnx_file.read(path)
    assert found.nodes == (onnx_file.Node("MatMul", ("x", "raw"), ("layer/y",)),)
    np.testing.assert_array_equal(found.weight("layer/y"), floats.reshape(2, 3))
    np.testing.assert_array_equal(found.constants["listed"], floats.reshape(2, 3))
    np.testing.assert_array_equal(found.constants["integers"], [1, 300, -1])
    with pytest.raises(ValueError, match="nothing makes 'other'"):
        found.weight("other")


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError):
        magika.load_variables(path)
    content = (magika.package_path() / "model.onnx").read_bytes()
    for wrong in (b"", b"not one", content[:1000]):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="model.onnx: not an ONNX file"):
            magika.load_variables(path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--files", "missing.pdf"], "missing.pdf"),
        (["--rules", "magic"], "magic"),
        (["--files", ","], "--files names nothing"),
        (["--output", "missing/folder"], "there is no such directory"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(arguments, words, capsys):
    assert explain_bytes.main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1


@pytest.mark.usefixtures("default_precision")
def test_from_the_command_line(tmp_path, capsys):
    (tmp_path / "made.pdf").write_bytes(PDF)
    arguments = ["--files", str(tmp_path / "made.pdf"), "--rules", "slope", "--output"]
    assert explain_bytes.main([*arguments, str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    assert "made.pdf: pdf" in out and "0:'%" in out
    assert (tmp_path / "results" / "explain_bytes.png").exists()
