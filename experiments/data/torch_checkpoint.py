"""Read a legacy torch checkpoint without torch, and without running anything it asks for.

Before torch 1.6, `torch.save(state_dict, path)` wrote one file that holds, in this order,

1. three pickles: a magic number, the protocol number (1001) and facts about the writing machine;
2. the pickled state dict, whose tensors name a storage by key instead of holding its bytes;
3. a pickled list of the storage keys;
4. for each key in that list: the element count (little-endian int64) and the raw elements.

A pickle is a program, and the ordinary unpickler lets it call any importable function. The
unpickler here knows three kinds of global name (`collections.OrderedDict`, the tensor builder and
the storage types) and refuses all others, so that a hostile file can end in a `CheckpointError`
but not in foreign code.
"""

import pickle
from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from os import PathLike
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_ZIP_SIGNATURE = b"PK\x03\x04"
_COUNT_DTYPE = np.dtype("<i8")

# Strings rather than `np.dtype` objects: a pickle may try to overwrite the state of whatever it
# gets hold of, and a string has none.
_STORAGE_DTYPES = {
    "BoolStorage": "|b1",
    "ByteStorage": "|u1",
    "CharStorage": "|i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
}


class CheckpointError(ValueError):
    """The file is not a legacy torch state dict, is damaged, or asks for something forbidden."""


class _Storage(NamedTuple):
    """A flat run of elements that follows the pickle; tensors may share it."""

    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    """A strided view of a storage, to be taken once the storage has been read.

    Offset and strides count elements, not bytes.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict that an old torch wrote.

    Args:
        path: A file in the format that the module docstring describes.

    Returns:
        The arrays by their dotted torch names, in the order of the file. Every array has the
        tensor's own shape and dtype, is C-contiguous, writable and shares no memory.

    Raises:
        OSError: The file cannot be opened or read.
        CheckpointError: The file has another format, is cut short, names a global that is not on
            the allow-list, or holds something other than a flat dict of tensors.
    """
    with open(path, "rb") as file:
        try:
            return _read(file)
        except OSError:
            raise
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:  # The pickle module documents no closed list of its errors.
            raise CheckpointError(f"{path}: damaged checkpoint ({error!r})") from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    """Read the four parts of the file one after the other."""
    if file.read(len(_ZIP_SIGNATURE)) == _ZIP_SIGNATURE:
        raise CheckpointError("a zip checkpoint (torch 1.6 or later), not a legacy one")
    file.seek(0)
    if _RestrictedUnpickler(file).load() != _MAGIC_NUMBER:
        raise CheckpointError("not a legacy torch checkpoint (bad magic number)")
    if (version := _RestrictedUnpickler(file).load()) != _PROTOCOL_VERSION:
        raise CheckpointError(f"unknown protocol version {version}")
    if not _RestrictedUnpickler(file).load().get("little_endian"):
        raise CheckpointError("written on a big-endian machine")

    unpickler = _RestrictedUnpickler(file)
    tensors = unpickler.load()
    if not isinstance(tensors, dict):
        raise CheckpointError(f"holds a {type(tensors).__name__}, not a state dict")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise CheckpointError(f"entry {name!r} is no named tensor")

    keys = _RestrictedUnpickler(file).load()
    elements = {key: _read_elements(file, unpickler.storages[key]) for key in keys}
    return {name: _view(tensor, elements[tensor.storage.key]) for name, tensor in tensors.items()}


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that builds containers, numbers, strings and tensor descriptions only."""

    def __init__(self, file: BinaryIO) -> None:
        """Prepare to read one pickle at the file's current position."""
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Resolve a global name from the allow-list; `CheckpointError` for any other."""
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if module_name == "torch" and global_name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[global_name]
        raise CheckpointError(f"refused: the checkpoint asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Describe the storage that a tensor names."""
        kind, dtype, key, _location, length, view = pid
        if kind != "storage" or view is not None:
            raise CheckpointError(f"unsupported reference in the checkpoint: {pid!r}")
        if not isinstance(key, str) or dtype not in _STORAGE_DTYPES.values():
            raise CheckpointError(f"malformed storage in the checkpoint: {pid!r}")
        return self.storages.setdefault(key, _Storage(key, dtype, length))

    def _rebuild_tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: Sequence[int],
        strides: Sequence[int],
        *_gradient_state: Any,
    ) -> _Tensor:
        """Stand in for torch's own builder: check the description and keep it for later."""
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise CheckpointError("malformed tensor in the checkpoint")
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise CheckpointError(f"malformed tensor in the checkpoint: {numbers}")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _read_elements(file: BinaryIO, storage: _Storage) -> np.ndarray:
    """Read one storage: its element count, which must agree with the pickle, and its elements."""
    dtype = np.dtype(storage.dtype)
    (count,) = np.frombuffer(file.read(_COUNT_DTYPE.itemsize), _COUNT_DTYPE)
    if count != storage.length:
        raise CheckpointError(f"storage {storage.key}: {count} elements, not {storage.length}")
    data = file.read(storage.length * dtype.itemsize)
    if len(data) != storage.length * dtype.itemsize:
        raise CheckpointError(f"storage {storage.key}: the file ends early")
    return np.frombuffer(data, dtype)


def _view(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """Copy a tensor out of its storage.

    `as_strided` checks nothing, so both bounds are checked here: the last element must lie within
    the storage, and no element may be repeated (a stride of 0 could ask for terabytes).
    """
    size = prod(tensor.shape)
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if size and (size > elements.size or tensor.offset + last >= elements.size):
        raise CheckpointError(f"a tensor of shape {tensor.shape} reaches outside its storage")
    if not size:
        return np.empty(tensor.shape, elements.dtype)
    strides = tuple(stride * elements.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides).copy()
