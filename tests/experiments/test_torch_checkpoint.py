"""The restricted reader of legacy torch checkpoints.

The test files are put together from pickle opcodes, because that needs no torch and lets a test
say what no honest writer would.
"""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from experiments.data.torch_checkpoint import CheckpointError, read_state_dict
from experiments.networks.efficientnet import checkpoint_path

HEADER = b"".join(
    pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
MATRIX = np.arange(6, dtype="<f4")


def name(module: str, attribute: str) -> bytes:
    """Push a global name."""
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def literal(value: object) -> bytes:
    """Push a plain value."""
    return pickle.dumps(value, 2)[2:-1]  # Without the PROTO and STOP opcodes.


def tensor(shape, strides, offset=0, length=6, storage="FloatStorage", key="0") -> bytes:
    """Push a call of torch's tensor builder, as `torch.save` writes it."""
    reference = literal("storage") + name("torch", storage) + literal(key) + literal("cpu")
    reference = pickle.MARK + reference + literal(length) + pickle.NONE + pickle.TUPLE
    hooks = name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = reference + pickle.BINPERSID + b"".join(map(literal, (offset, shape, strides)))
    arguments = pickle.MARK + arguments + literal(False) + hooks + pickle.TUPLE
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def checkpoint(entries: dict[str, bytes], storages: dict[str, np.ndarray] | None = None) -> bytes:
    """Write a whole file: the header, a dict of pushed values, the storages."""
    storages = {"0": MATRIX} if storages is None else storages
    items = b"".join(literal(key) + value for key, value in entries.items())
    body = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    return HEADER + body + pickle.STOP + pickle.dumps(list(storages), 2) + data


@pytest.fixture
def read(tmp_path: Path):
    """Return a function that reads bytes as a checkpoint file."""

    def read_bytes(data: bytes) -> dict[str, np.ndarray]:
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return read_state_dict(path)

    return read_bytes


def test_tensors_may_share_a_storage_and_have_any_strides(read):
    state = read(
        checkpoint(
            {
                "rows": tensor((2, 3), (3, 1)),
                "columns": tensor((3, 2), (1, 3)),
                "tail": tensor((2,), (1,), offset=4),
                "scalar": tensor((), (), offset=5),
                "empty": tensor((0, 3), (3, 1)),
            }
        )
    )
    expected = MATRIX.reshape(2, 3)
    np.testing.assert_array_equal(state["rows"], expected)
    np.testing.assert_array_equal(state["columns"], expected.T)
    np.testing.assert_array_equal(state["tail"], [4, 5])
    assert state["scalar"].shape == () and state["scalar"] == 5
    assert state["empty"].shape == (0, 3)
    state["rows"][:] = 0  # The arrays are writable, and one does not show through another.
    assert state["columns"].sum() == MATRIX.sum()


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [("HalfStorage", "<f2"), ("LongStorage", "<i8"), ("BoolStorage", "?")],
)
def test_each_storage_type_has_its_dtype(read, storage, dtype):
    values = np.array([0, 1, 1], dtype)
    state = read(checkpoint({"x": tensor((3,), (1,), length=3, storage=storage)}, {"0": values}))
    assert state["x"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(state["x"], values)


@pytest.mark.parametrize(
    ("module", "attribute"),
    [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("collections", "Counter")],
)
def test_other_global_names_are_refused(read, tmp_path, module, attribute):
    canary = tmp_path / "canary"
    call = name(module, attribute) + literal((f"touch {canary}",)) + pickle.REDUCE
    with pytest.raises(CheckpointError, match=rf"refused: .* {module}\.{attribute}"):
        read(checkpoint({"x": call}))
    assert not canary.exists()


@pytest.mark.parametrize(
    "entry",
    [
        tensor((2, 3), (3, 2)),
        tensor((6,), (1,), offset=1),
        tensor((1000, 6), (0, 1)),
        tensor((2, 3), (3, -1)),
        tensor((2, 3), (3,)),
        tensor((6,), (1,), length=7),
    ],
    ids=["strides", "offset", "repeats", "negative", "rank", "length"],
)
def test_a_tensor_must_lie_within_its_storage(read, entry):
    with pytest.raises(CheckpointError):
        read(checkpoint({"x": entry}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"no checkpoint at all", "damaged"),
        (b"PK\x03\x04 and so on", "zip"),
        (pickle.dumps(42), "magic"),
        (HEADER + pickle.dumps([1, 2]), "not a state dict"),
        (checkpoint({"x": literal(1)}), "'x' is no named tensor"),
        (checkpoint({"x": tensor((6,), (1,))})[:-1], "ends early"),
        (checkpoint({"x": tensor((6,), (1,))})[:-30], "damaged"),
        (checkpoint({"x": tensor((6,), (1,))}, {}), "damaged"),
    ],
)
def test_other_files_are_named_in_the_error(read, data, message):
    with pytest.raises(CheckpointError, match=f"weights.pth: .*{message}"):
        read(data)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "missing.pth")


def test_the_weights_package_holds_the_published_checkpoint():
    path = checkpoint_path()
    # Torch's convention: the name ends in the first eight digits of the SHA-256 of the content.
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.split("-")[-1])
    state = read_state_dict(path)
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert state["_bn0.num_batches_tracked"].dtype == np.int64
    assert all(np.isfinite(array).all() for array in state.values())
