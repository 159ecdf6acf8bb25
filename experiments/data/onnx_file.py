"""Reads the weights of an ONNX file, without the `onnx` package.

An ONNX file is a message of protocol buffers: a sequence of fields, each a key (the number of the
field, and how it is written) and a value. The few that are needed, by numbers of `onnx.proto`:

    ModelProto   7 graph
    GraphProto   1 node, 5 initializer
    NodeProto    1 input, 2 output, 4 op_type
    TensorProto  1 dims, 2 data_type, 4 float_data, 7 int64_data, 8 name, 9 raw_data
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 11: "<f8"}
"""Numbers that a tensor may have, by `TensorProto.DataType`."""

_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation of a graph: the names of what it reads and makes."""

    operation: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The operations of a model, in the order of execution, and its constants by name."""

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]

    def weight(self, value: str) -> np.ndarray:
        """The constant with the most numbers that the operation reads that makes a value.

        Args:
            value: The end of the value's name, such as `"Dense_0/MatMul:0"`.

        Raises:
            ValueError: There is no such operation, or it reads no constant.
        """
        for node in self.nodes:
            read = [self.constants[name] for name in node.reads if name in self.constants]
            if read and any(name.endswith(value) for name in node.makes):
                return max(read, key=np.size)
        raise ValueError(f"not the expected network: nothing makes {value!r} of a constant")


def read(path: Path) -> Graph:
    """Read the graph of an ONNX file.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: It is no ONNX file, or has tensors of other types than float and integers.
    """
    try:
        model = dict(_fields(memoryview(path.read_bytes())))
        graph = list(_fields(model[7]))
    except (IndexError, KeyError, TypeError):
        raise ValueError(f"{path}: not an ONNX file") from None
    nodes = tuple(_node(value) for number, value in graph if number == 1)
    return Graph(nodes, dict(_tensor(value) for number, value in graph if number == 5))


def _node(message: memoryview) -> Node:
    fields = list(_fields(message))
    reads, makes, operation = (
        tuple(str(value, "utf-8") for number, value in fields if number == wanted)
        for wanted in (1, 2, 4)
    )
    return Node(operation[0], reads, makes)


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    fields = list(_fields(message))
    shape = [size for number, value in fields if number == 1 for size in _integers(value)]
    single = dict(fields)
    name, kind = str(single[8], "utf-8"), single[2]
    if kind not in _DTYPES:
        raise ValueError(f"{name}: tensors of type {kind} are not read")
    if 9 in single:
        numbers = np.frombuffer(single[9], _DTYPES[kind])
    elif kind == 1:
        numbers = np.frombuffer(single.get(4, b""), "<f4")
    else:
        numbers = np.array(list(_integers(single.get(7, b""))), _DTYPES[kind])
    return name, numbers.reshape(shape)


def _integers(value: Any) -> Iterator[int]:
    """The integers of a repeated field: one, or many packed together."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        found, at = _varint(value, at)
        yield found


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a message: number, and an integer or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, written = key >> 3, key & 7
        if written == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if written == _SIZED:
            size, at = _varint(message, at)
        else:
            size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[written]
        if at + size > len(message):
            raise IndexError("the message is cut off")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, low bits first, and where the next thing begins."""
    found, shift = 0, 0
    while True:
        byte = message[at]
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return found - (1 << 64 if found >> 63 else 0), at
