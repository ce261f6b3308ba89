"""Plain data between two processes that do not trust each other: no pickle, lengths checked before memory is taken.

A message is JSON in which an array stands as {"array": k, "dtype": …, "shape": […]}, followed by the raw bytes
of its arrays in that order.
"""

import json
import math
import struct

import numpy as np

from autograder.builders import Build

DTYPES = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split())
_NAMES = {np.dtype(name): name for name in DTYPES}  # a dtype's own .name takes longer
LIMIT = 256 * 2**20  # bytes of one message, JSON and arrays together
_HEAD = struct.Struct("<QQ")


class WireError(ValueError):
    """What came is not a message."""


def pack(message) -> bytes:
    """None, bool, int, float, str, list, tuple, dict, arrays and Builds -> bytes."""
    buffers: list[bytes] = []

    def plain(value):
        if isinstance(value, np.ndarray):
            if value.dtype not in _NAMES:
                raise WireError(f"arrays of dtype {value.dtype} do not travel")
            buffers.append(value.tobytes())
            return {"array": len(buffers) - 1, "dtype": _NAMES[value.dtype], "shape": list(value.shape)}
        if isinstance(value, Build):
            return {"build": value.name, "arguments": plain(value.arguments)}
        if isinstance(value, dict):
            return {"dict": {str(key): plain(item) for key, item in value.items()}}
        if isinstance(value, (list, tuple)):
            items = [plain(item) for item in value]
            return items if isinstance(value, list) else {"tuple": items}
        if isinstance(value, np.generic):
            return value.item()
        return value

    text = json.dumps(plain(message)).encode()
    body = b"".join(buffers)
    return _HEAD.pack(len(text), len(body)) + text + body


def unpack(data: bytes):
    """The message that `pack` made; a WireError for anything else."""
    try:
        text_size, body_size = _HEAD.unpack_from(data)
        if _HEAD.size + text_size + body_size != len(data):
            raise WireError("the lengths do not add up")
        text, body = data[_HEAD.size : _HEAD.size + text_size], data[_HEAD.size + text_size :]
        return _Reader(body).read(json.loads(text))
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, struct.error, RecursionError, OverflowError) as error:
        raise WireError(f"not a message: {error}") from None


class _Reader:
    """Takes the arrays out of the body, one after another."""

    def __init__(self, body: bytes):
        self.body, self.position = body, 0

    def read(self, value):
        if isinstance(value, list):
            return [self.read(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "dict" in value:
            return {key: self.read(item) for key, item in value["dict"].items()}
        if "tuple" in value:
            return tuple(self.read(item) for item in value["tuple"])
        if "build" in value:
            return Build(value["build"], **self.read(value["arguments"]))
        return self.array(value["dtype"], value["shape"])

    def array(self, dtype, shape) -> np.ndarray:
        if dtype not in DTYPES or len(shape) > 32 or not all(type(size) is int and size >= 0 for size in shape):
            raise WireError("an array with an impossible dtype or shape")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > len(self.body) - self.position:
            raise WireError("an array longer than its message")
        flat = np.frombuffer(self.body, dtype, math.prod(shape), self.position)
        self.position += size
        return flat.reshape(shape).copy()


def framed(message) -> bytes:
    """A message as it travels: its length, then itself."""
    data = pack(message)
    return struct.pack("<Q", len(data)) + data


def send(socket, message) -> None:
    """One message down a socket."""
    socket.sendall(framed(message))


def receive(socket):
    """The next message from a socket; EOFError when the other side is gone."""
    (size,) = struct.unpack("<Q", _exactly(socket, 8))
    if size > LIMIT:
        raise WireError(f"a message of {size} bytes; at most {LIMIT} are read")
    return unpack(_exactly(socket, size))


def _exactly(socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = socket.recv(min(size - len(data), 2**20))
        if not piece:
            raise EOFError("the other side closed the connection")
        data += piece
    return bytes(data)
