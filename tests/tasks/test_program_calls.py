"""Calls between tests and a program, here in two threads: values come back as they were, and the program learns nothing."""

import math
import os
import random
import threading
from collections import Counter, OrderedDict, namedtuple
from contextlib import suppress

import numpy
import pytest

from ldlm_hf.tasks.program_calls import CallerEnd, ProgramEnd, Remote, _names


class Point:
    seen: list[object] = []

    def __init__(self, x):
        self.x = x

    def __add__(self, other):
        self.seen.append(other)
        return Point(self.x + getattr(other, "x", 0))

    def __eq__(self, other):
        self.seen.append(other)
        return not isinstance(other, Point) or self.x == other.x

    __sub__ = __lt__ = __float__ = __contains__ = __add__
    __hash__ = object.__hash__


class Refusal(KeyError):
    pass


def refuse(text):
    raise Refusal(text)


DEFINED = {
    "same": lambda value: value,
    "sort": lambda values: values.sort(),
    "apply": lambda function, *values: function(*values),
    "count": lambda n: iter(range(n)),
    "divide": lambda a, b: a / b,
    "refuse": refuse,
    "Point": Point,
    "Refusal": Refusal,
    "math": math,
    "table": {1: [2, (3,)]},
    "len": lambda value: 0,
}


@pytest.fixture
def ends():
    """Both ends of a pair of pipes, that of the program at work."""
    calls, results = os.pipe(), os.pipe()
    tests = CallerEnd(results[0], calls[1])

    def work():
        program = ProgramEnd(calls[0], results[1])
        with suppress(ConnectionError):
            program.serve(DEFINED)

    thread = threading.Thread(target=work)
    thread.start()
    Point.seen.clear()
    yield tests
    tests._writer.close()
    thread.join()


@pytest.fixture
def given(ends):
    return ends.define("", [name for name in DEFINED if name != "math"])


def random_value(draw, depth):
    kinds = [
        lambda: None, lambda: draw.random() < 0.5, lambda: draw.randrange(-10, 10), lambda: draw.getrandbits(70) - (1 << 69),
        lambda: draw.gauss(0, 1e300), lambda: complex(draw.random(), -1.0), lambda: "".join(map(chr, draw.choices(range(0x11000), k=5))),
        lambda: draw.randbytes(3), lambda: range(draw.randrange(9), 1 << 70, 3), lambda: draw.choice([math.inf, -0.0, 2**53, -(2**53)]),
    ]  # fmt: skip
    if depth == 0 or draw.random() < 0.4:
        return draw.choice(kinds)()
    members = [random_value(draw, depth - 1) for _ in range(draw.randrange(4))]
    keys = [random_value(draw, 0) for _ in members]
    kind = draw.choice([list, tuple, dict, set, frozenset, bytearray])
    if kind is bytearray:
        return bytearray(draw.randbytes(4))
    return kind(members if kind in (list, tuple) else keys if kind is not dict else zip(keys, members, strict=True))


def test_values_come_back_as_they_were(given):
    draw = random.Random(0)
    for _ in range(300):
        value = random_value(draw, 4)
        back = given["same"](value)
        assert (repr(back), type(back)) == (repr(value), type(value)) or back == value
    assert math.isnan(given["same"](math.nan))


def test_what_is_a_kind_of_number_or_list_comes_back_as_one(given):
    pair = namedtuple("Pair", "a b")(1, 2)
    for value, base in ((Counter("aab"), {"a": 2, "b": 1}), (OrderedDict(a=1), {"a": 1}), (pair, (1, 2))):
        assert given["same"](value) == base
        assert type(given["same"](value)) is type(base)
    for value, base in ((numpy.float64(0.5), 0.5), (numpy.int64(3), 3), (numpy.ones((2, 1)), [[1.0], [1.0]])):
        assert given["same"](value) == base
        assert type(given["same"](value)) is type(base)


def test_what_a_call_changes_is_changed_in_the_tests(given):
    values = [3, 1, 2]
    assert given["sort"](values) is None
    assert values == [1, 2, 3]
    inner = [1]
    outer = [inner]
    given["same"](outer)
    assert outer[0] is inner  # what is not changed stays


def test_functions_of_the_tests_are_called_back_however_deep(given):
    assert given["apply"](lambda a, b: a - b, 5, 3) == 2
    assert given["apply"](lambda n: given["apply"](lambda m: given["same"](m) + 1, n) * 2, 5) == 12
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        given["apply"](lambda: 1 / 0)
    with pytest.raises(TypeError, match="object of the tests cannot be given"):
        given["same"](object())


def test_errors_are_those_of_the_program(given):
    with pytest.raises(ZeroDivisionError):
        given["divide"](1, 0)
    with pytest.raises(given["Refusal"], match="no"):
        given["refuse"]("no")
    assert issubclass(given["Refusal"], KeyError)
    with pytest.raises(TypeError):
        given["sort"]()


def test_objects_are_used_through_their_attributes(given):
    point = given["Point"](3)
    assert isinstance(point, Remote)
    assert isinstance(point, given["Point"])
    assert not isinstance(3, given["Point"])
    assert point.x == 3
    point.x = 5
    assert (point + given["Point"](1)).x == 6
    assert point == given["Point"](5)
    assert point != given["Point"](6)
    assert list(given["count"](3)) == [0, 1, 2]
    assert given["table"] == {1: [2, (3,)]}
    with pytest.raises(AttributeError):
        point.y  # noqa: B018


def test_an_object_equals_nothing_of_the_tests_and_never_sees_it(given):
    point = given["Point"](3)
    assert point != 3
    assert not point == 3  # noqa: SIM201
    assert point not in [1, 2, 3]
    for compute in (
        lambda: point - 3,
        lambda: 3 + point,
        lambda: point < 3,
        lambda: math.isclose(point, 3),
        lambda: 3 in point,
    ):
        with pytest.raises(TypeError):
            compute()
    assert Point.seen == []
    assert given["same"](point) == point
    assert all(isinstance(value, Point) for value in Point.seen)


def test_the_tests_take_what_they_use_and_modules_from_python(ends):
    found = ends.define("import os\nassert same(math.pi) > len_\nx = [table for table in table]\nos.path")
    assert found.keys() == {"same", "table", "math", "os"}
    assert found["math"] is math
    with pytest.raises(NameError, match="defines 'len' anew"):
        ends.define("assert len([1]) == 1")
    assert "len" not in ends.define("len = 3\nassert len")
    with pytest.raises(NameError, match="does not define 'missing'"):
        ends.define("", ["missing"])
    assert _names("bisect([1], 2)") == (["bisect"], [])  # a function with the name of a module is none


@pytest.mark.parametrize("line", [b"", b"\n", b"1\n", b"[]\n", b"{\n", b"[" * 100_000 + b"\n"], ids=len)
def test_what_is_no_message_ends_the_tests(line):
    reader, writer = os.pipe()
    sent, received = os.pipe()
    caller = CallerEnd(reader, received)
    thread = threading.Thread(target=lambda: (os.write(writer, line), os.close(writer)))
    thread.start()
    with pytest.raises((ConnectionError, ValueError, RecursionError)):
        caller.ask("call", [])
    thread.join()
    caller._reader.close(), caller._writer.close(), os.close(sent)
