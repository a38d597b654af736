"""Calls from tests to a program in another process: stand-ins for what it defines, and values that are copied as data.

A program that shares a process with its tests can fake their success: leave at the right place, answer with objects that equal
everything, rewrite the tests. Here it gets the arguments of calls and no more. What it sends back is read as JSON, and an
object that is no data stands for itself alone: it equals no number, and nothing the tests expect is ever sent to it.

Copied are `None`, numbers, texts, bytes, ranges, and lists, tuples, sets and dictionaries of them (of a subclass as its base); a list,
set or dictionary that a call has changed is changed in the tests. Functions may be given to a program, which calls them back.
This module imports nothing of the package.
"""

from __future__ import annotations

import ast
import builtins
import json
import operator
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import ModuleType


EXACT_INTEGERS = 1 << 53
SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
CHANGEABLE = (list, set, dict, bytearray)
COMPARISONS = ("eq", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv")
OPERATIONS = {
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    **{name: getattr(builtins, name) for name in ("getattr", "setattr", "iter", "next", "len", "bool", "str", "repr")},
    **{name: getattr(builtins, name) for name in ("hash", "isinstance")},
    **{name: getattr(operator, name) for name in ("getitem", "setitem", *COMPARISONS)},
}
Message = None | bool | int | float | str | list | dict


class Peer:
    """One end of two pipes with a message a line: it asks and, while it waits, answers what it is asked.

    Args:
        reader (`int`): file descriptor to read from.
        writer (`int`): file descriptor to write to.
    """

    def __init__(self, reader: int, writer: int) -> None:
        """Open both pipes."""
        self.known: list[object] = []  # what was sent as a number, since it is no data
        self._reader, self._writer = os.fdopen(reader, encoding="ascii"), os.fdopen(writer, "w", encoding="ascii")

    def ask(self, operation: str, arguments: Iterable[object], keywords: dict[str, object] | None = None) -> object:
        """Return what an operation has come to at the other end; lists, sets and dictionaries are changed as they were there.

        Raises:
            Exception: what it raised, if that is of Python's own.
            ConnectionError: if the other end is gone.
        """
        arguments = list(arguments)
        packed = {name: self.pack(value) for name, value in (keywords or {}).items()}
        self.send({"ask": operation, "arguments": [self.pack(value) for value in arguments], "keywords": packed})
        while "ask" in (message := self.receive()):
            self.answer(message)
        if "raised" in message:
            raise self.make_error(str(message["raised"]), str(message["text"]))
        for value, changed in zip(arguments, message["arguments"], strict=True):
            if isinstance(value, CHANGEABLE):
                _change(value, self.unpack(changed))
        return self.unpack(message["value"])

    def answer(self, message: dict) -> None:
        """Do what was asked and send what came of it."""
        try:
            arguments = [self.unpack(value) for value in message["arguments"]]
            keywords = {name: self.unpack(value) for name, value in message["keywords"].items()}
            value = self.pack(self.do(message["ask"], arguments, keywords))
            changed = [self.pack(value) if isinstance(value, CHANGEABLE) else None for value in arguments]
            reply = {"value": value, "arguments": changed}
        except BaseException as error:  # all that can be raised, to leave included, is an answer
            reply = {"raised": type(error).__name__, "text": str(error)}
        self.send(reply)

    def do(self, operation: str, arguments: list[object], keywords: dict[str, object]) -> object:
        """Return what an operation comes to at this end."""
        raise NotImplementedError

    def send(self, message: dict) -> None:
        """Write a line."""
        self._writer.write(json.dumps(message) + "\n")
        self._writer.flush()

    def receive(self) -> dict:
        """Return what the next line says; `ConnectionError` if there is none."""
        line = self._reader.readline()
        message = json.loads(line) if line else None
        if not isinstance(message, dict):
            raise ConnectionError("the program has ended" if not line else "the program has sent what is no message")
        return message

    def pack(self, value: object) -> Message:
        """Return a value as JSON has it, tagged by its type where that has another."""
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < EXACT_INTEGERS else ["int", hex(value)]
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if isinstance(value, bytes | bytearray):
            return [bytes.__name__ if isinstance(value, bytes) else bytearray.__name__, value.hex()]
        if isinstance(value, range):
            return ["range", *map(self.pack, (value.start, value.stop, value.step))]
        for name, kind in SEQUENCES.items():
            if isinstance(value, kind):
                return [name, *map(self.pack, value)]
        if isinstance(value, dict):
            return ["dict", *([self.pack(key), self.pack(entry)] for key, entry in value.items())]
        if type(value).__module__ == "numpy":
            return self.pack(value.tolist())
        return self.pack_other(value)

    def pack_other(self, value: object) -> Message:
        """Return what stands for a value that is no data: its number."""
        self.known.append(value)
        return ["object", len(self.known) - 1]

    def unpack(self, message: Message) -> object:
        """Return the value that was packed."""
        if not isinstance(message, list):
            return message
        kind, *parts = message
        if kind in SEQUENCES:
            return SEQUENCES[kind](map(self.unpack, parts))
        if kind == "dict":
            return {self.unpack(key): self.unpack(value) for key, value in parts}
        if kind == "int":
            return int(parts[0], 16)
        if kind == "complex":
            return complex(*parts)
        if kind in ("bytes", "bytearray"):
            return getattr(builtins, kind).fromhex(parts[0])
        if kind == "range":
            return range(*map(self.unpack, parts))
        return self.unpack_other(kind, parts)

    def unpack_other(self, kind: str, parts: list[Message]) -> object:
        """Return what something stands for that is no data."""
        raise ValueError(f"{kind!r} is no kind of value")

    def make_error(self, name: str, text: str) -> Exception:
        """Return an exception of Python's own by its name, and another one as a `RuntimeError` that names it."""
        kind = vars(builtins).get(name)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
            return kind(text)
        return RuntimeError(f"{name}: {text}")


class ProgramEnd(Peer):
    """The end of the program, which does what the tests ask."""

    def serve(self, names: dict[str, object]) -> None:
        """Answer until the other end is gone.

        Args:
            names (`dict[str, object]`): what the program defines.
        """
        self.names = {name: value for name, value in names.items() if not isinstance(value, ModuleType)}
        while True:
            self.answer(self.receive())

    def do(self, operation: str, arguments: list[object], keywords: dict[str, object]) -> object:
        """Return what an operation comes to, or those of some names that are defined."""
        if operation == "define":
            return {name: self.names[name] for name in arguments if name in self.names}
        return OPERATIONS[operation](*arguments, **keywords)

    def send(self, message: dict) -> None:
        """Write what the program has printed, and a line."""
        with suppress(Exception):
            sys.stdout.flush()
        super().send(message)

    def pack_other(self, value: object) -> Message:
        """Return what stands for a value; for an exception its name and the nearest one of Python's own that it is."""
        if isinstance(value, type) and issubclass(value, Exception):
            own = next(kind for kind in value.__mro__ if kind.__module__ == "builtins")
            return ["exception", value.__name__, own.__name__]
        return super().pack_other(value)

    def unpack_other(self, kind: str, parts: list[Message]) -> object:
        """Return an object that was sent before, or a function of the tests."""
        if kind == "object":
            return self.known[parts[0]]
        return lambda *arguments: self.ask("call", [parts[0], *arguments])


class CallerEnd(Peer):
    """The end of the tests, which asks; it can be asked nothing but to call the functions that it has given."""

    def __init__(self, reader: int, writer: int) -> None:
        """Open both pipes."""
        super().__init__(reader, writer)
        self.errors: dict[str, type[Exception]] = {}  # exceptions of the program

    def define(self, source: str, names: Sequence[str] = ()) -> dict[str, object]:
        """Return what the tests take from the program, by name, and the modules of the standard library that they use.

        Args:
            source (`str`): the tests.
            names (`Sequence[str]`, *optional*): what they take; by default all names that they use and the program defines.

        Raises:
            NameError: if the program does not define one of `names`, or defines what the tests use as a part of Python.
        """
        if names:
            defined = self.ask("define", names)
            for name in names:
                if name not in defined:
                    raise NameError(f"the program does not define {name!r}")
            return {name: defined[name] for name in names}
        wanted, modules = _names(source)
        defined = self.ask("define", wanted)
        for name in wanted:
            if name in defined and name in vars(builtins):
                raise NameError(f"the program defines {name!r} anew, which the tests use as a part of Python")
        own = {name: defined[name] for name in wanted if name in defined}
        return {**own, **{name: pkgutil.resolve_name(name) for name in modules}}

    def do(self, operation: str, arguments: list[object], keywords: dict[str, object]) -> object:
        """Return what a function that was given to the program returns."""
        return self.known[arguments[0]](*arguments[1:])

    def pack_other(self, value: object) -> Message:
        """Return what stands for an object of the program, or for a function of the tests."""
        if isinstance(value, Remote):
            return ["object", object.__getattribute__(value, "__number")]
        if not callable(value):
            raise TypeError(f"a {type(value).__name__} of the tests cannot be given to the program")
        return ["function", super().pack_other(value)[1]]

    def unpack_other(self, kind: str, parts: list[Message]) -> object:
        """Return what stands for an object or an exception of the program."""
        if kind == "object":
            return Remote(self, parts[0])
        if kind == "exception":
            name, base = str(parts[0]), type(self.make_error(str(parts[1]), ""))
            return self.errors.setdefault(name, type(name, (base,), {}))
        return super().unpack_other(kind, parts)

    def make_error(self, name: str, text: str) -> Exception:
        """Return an exception, also one that the program has defined."""
        return self.errors[name](text) if name in self.errors else super().make_error(name, text)


class Remote:
    """An object of the program: its attributes are asked for, and it equals only what the program compares it with itself."""

    def __init__(self, peer: CallerEnd, number: int) -> None:
        """Keep where it is."""
        object.__setattr__(self, "__peer", peer)
        object.__setattr__(self, "__number", number)

    def __getattr__(self, name: str) -> object:
        """Return an attribute; what Python looks up by itself is none."""
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return _ask(self, "getattr", name)

    def __call__(self, *arguments: object, **keywords: object) -> object:
        """Call it."""
        return object.__getattribute__(self, "__peer").ask("call", [self, *arguments], keywords)

    def __instancecheck__(self, value: object) -> bool:
        """Return whether an object of the program is an instance of it."""
        return isinstance(value, Remote) and _ask(value, "isinstance", self) is True


def _names(source: str) -> tuple[list[str], list[str]]:
    """Return the names that tests may take from a program, and the modules of the standard library that they use.

    A module is what has the name of one and is only ever asked for attributes, as in `math.pi`.
    """
    nodes = list(ast.walk(ast.parse(source)))
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    names = [node for node in nodes if isinstance(node, ast.Name)]
    used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    modules = (used & sys.stdlib_module_names) - {node.id for node in names if id(node) not in bases}
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    own = {name for name in used - modules if not name.startswith("__")}
    return sorted(own - (bound & set(vars(builtins)))), sorted(modules)


def _ask(remote: Remote, operation: str, *arguments: object) -> object:
    return object.__getattribute__(remote, "__peer").ask(operation, [remote, *arguments])


def _method(operation: str) -> Callable:
    def method(self: Remote, *arguments: object) -> object:
        # With a value of the tests the program would learn what they expect.
        if operation in COMPARISONS and not isinstance(arguments[0], Remote):
            return NotImplemented
        return _ask(self, operation, *arguments)

    return method


for _operation in set(OPERATIONS) - {"call", "getattr", "isinstance"}:
    setattr(Remote, f"__{_operation}__", _method(_operation))


def _change(value: object, changed: object) -> None:
    """Make a list, set, dictionary or bytearray what it has become; what is equal stays as it is."""
    if type(changed) is not type(value) or changed == value:
        return
    value.clear()
    value.extend(changed) if isinstance(value, list | bytearray) else value.update(changed)
