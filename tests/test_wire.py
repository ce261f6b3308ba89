import json
import socket
import struct

import numpy as np
import pytest

from autograder import wire
from autograder.builders import Build

MESSAGES = [
    None,
    [1, 2.5, "text", True, None],
    {"a": {"b": []}, "build": 1, "array": 2},
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(2.5),
    np.zeros((0, 3), dtype=np.int64),
    {"x": np.array([True, False]), "y": [np.ones(2), {"z": np.ones((1, 1))}]},
    (3, (4, [5]), np.ones(2)),  # a shape is a tuple in a notebook, so it is one in a graded run
    Build("sequential", layers=["linear"]),
]


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("message", MESSAGES, ids=str)
def test_what_is_packed_is_unpacked(message):
    assert same(message, wire.unpack(wire.pack(message)))


def test_objects_do_not_travel():
    with pytest.raises(wire.WireError, match="dtype object"):
        wire.pack(np.array([object()]))


def forged(text, body=b""):
    text = text.encode()
    return struct.pack("<QQ", len(text), len(body)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        forged("not json"),
        forged(json.dumps({"array": 0, "dtype": "float64", "shape": [10**12]})),
        forged(json.dumps({"array": 0, "dtype": "float64", "shape": [2]}), b"only8byt"),
        forged(json.dumps({"array": 0, "dtype": "object", "shape": [1]}), b"12345678"),
        forged(json.dumps({"array": 0, "dtype": "float64", "shape": [-1]}), b"12345678"),
        forged(json.dumps({"array": 0, "dtype": "float64", "shape": [1.5]}), b"12345678"),
        forged(json.dumps({"neither": 1})),
        forged("[" * 100_000),
        struct.pack("<QQ", 2**60, 0) + b"x",
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(wire.WireError):
        wire.unpack(data)


def test_a_message_that_claims_to_be_huge_is_not_read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack("<Q", 2**50))
        with pytest.raises(wire.WireError, match="at most"):
            wire.receive(ours)


def test_the_other_side_gone_is_an_end():
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(EOFError):
        wire.receive(ours)
