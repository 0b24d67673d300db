"""Pickles read as data: what one describes is put together from a short list of things, and nothing is called."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LARGEST_MEMORY = 250 * 10**6
"""Bytes that the objects of a pickle may take in memory, beside three times the pickle's own."""
DEEPEST = 64
"""Dictionaries, lists and tuples inside each other that are looked through."""


@dataclass(frozen=True, slots=True)
class Global:
    """What a pickle names, a class or a function: only its name is known here."""

    name: str


@dataclass(eq=False, slots=True)
class Opaque:
    """An object that was never built: what it would have been made of.

    Attributes:
        name: of its class, or of what would have made it.
        parts: everything that was given to it.
    """

    name: str
    parts: list[Any] = field(default_factory=list)


class Attributes(dict[str, Any]):
    """The attributes of an object of a compiled module (TorchScript), by name."""

    name: str = ""


class PickleError(ValueError):
    """A pickle that is torn, or does what a pickle of weights does not."""


class TooLarge(PickleError):
    """A pickle that asks for more memory than its length allows."""


Call = Callable[[tuple[Any, ...]], Any]
"""What stands in for a function or a class: from the arguments to a description of what it would give."""


@dataclass
class Reader:
    """A stack machine for pickles that only puts together dictionaries, lists, tuples, texts and numbers.

    Attributes:
        calls: what stands in for each function or class, by name.
        opaque: whether an object of a class may be passed over, by the class's name.
        persistent: from a persistent id to what it stands for.
        build: gives an object its state; it says whether it knew how.
        strange: names that are neither called nor passed over; the file is to be refused for them.
        passed: names of what was passed over.
    """

    calls: Mapping[str, Call]
    opaque: Callable[[str], bool]
    persistent: Callable[[Any], Any]
    build: Callable[[Any, Any], bool]
    strange: set[str] = field(default_factory=set)
    passed: dict[str, list[Opaque]] = field(default_factory=dict)

    def read(self, raw: bytes, place: int = 0) -> tuple[Any, int]:
        """What the pickle at a place describes, and where it ends.

        Raises:
            PickleError: if it is torn, asks for too much memory, or does what no pickle of weights does.
        """
        run = _Run(self, raw, place)
        try:
            return run.value(), run.place
        except PickleError:
            raise
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError, struct.error) as error:
            if run.place >= len(raw):
                raise EOFError("it ends too early") from error
            raise PickleError(f"it is damaged at byte {run.place:,}") from error


class _Run:
    """One pickle on its way: the stack, the marks below it, and the memo."""

    def __init__(self, reader: Reader, raw: bytes, place: int) -> None:
        self.reader = reader
        self.raw = raw
        self.place = place
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.left = LARGEST_MEMORY + 3 * (len(raw) - place)

    def value(self) -> Any:
        """What the pickle describes. The five commonest opcodes stand here, others in a table, which is slower."""
        raw, steps, memo = self.raw, _STEPS, self.memo
        place, stack, left = self.place, self.stack, self.left
        try:
            while True:
                code = raw[place]
                place += 1
                if code == 0x71:  # BINPUT
                    memo[raw[place]] = stack[-1]
                    place, left = place + 1, left - 110
                elif code == 0x68:  # BINGET
                    stack.append(memo[raw[place]])
                    place, left = place + 1, left - 16
                elif code == 0x4B:  # BININT1
                    stack.append(raw[place])
                    place, left = place + 1, left - 16
                elif code == 0x28:  # MARK
                    self.below.append(stack)
                    stack, left = [], left - 120
                elif code == 0x74:  # TUPLE
                    left -= 64 + 8 * len(stack)
                    items, stack = tuple(stack), self.below.pop()
                    stack.append(items)
                else:
                    self.place, self.stack, self.left = place, stack, left
                    if code == 0x2E:  # STOP
                        return stack.pop()
                    cost, step = steps[code]
                    self.left -= cost
                    step(self)
                    place, stack, left = self.place, self.stack, self.left
                if left < 0:
                    raise TooLarge(f"it describes more objects than {LARGEST_MEMORY // 10**6} MB hold")
        except IndexError:
            self.place = max(self.place, place)
            raise

    def take(self, length: int) -> bytes:
        first, self.place = self.place, self.place + length
        if self.place > len(self.raw):
            raise EOFError("it ends too early")
        return self.raw[first : self.place]

    def number(self, form: struct.Struct) -> int:
        first, self.place = self.place, self.place + form.size
        return form.unpack_from(self.raw, first)[0]

    def line(self) -> bytes:
        end = self.raw.find(b"\n", self.place)
        if end < 0:
            raise EOFError("it ends too early")
        first, self.place = self.place, end + 1
        return self.raw[first:end]

    def text(self, length: int) -> str:
        self.left -= 4 * length
        if self.left < 0:
            raise TooLarge("it has texts that are too long")
        return str(self.take(length), "utf-8", "surrogatepass")

    def marked(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def named(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        reader = self.reader
        if full not in reader.calls and not reader.opaque(full):
            reader.strange.add(full)
        self.stack.append(Global(full))

    def call(self, target: Any, arguments: Any) -> Any:
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise PickleError("it calls what is no function")
        call = self.reader.calls.get(target.name)
        if call is not None:
            try:
                return call(arguments)
            except (PickleError, TypeError, ValueError, AttributeError):
                if not self.reader.strange:
                    raise
        # Of a file that is to be refused, the rest is read for what else it names
        made = Opaque(target.name, [arguments])
        self.reader.passed.setdefault(target.name, []).append(made)
        return made

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.parts.extend(items)
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleError("it puts items into what is no dictionary")
        self.left -= 60 * len(items)
        for place in range(0, len(items), 2):
            key = items[place]
            if type(key) is not str:
                key = _key(key)
                # Hashes of tuples can be made to collide, so that a million take a day: some thousands have room
                self.left -= 100_000 if type(key) is tuple else 0
            target[key] = items[place + 1]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.parts.extend(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise PickleError("it puts items into what is no list")

    def built(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.parts.append(state)
        elif not self.reader.strange and not self.reader.build(target, state):
            raise PickleError(f"it changes {_described(target)} after it is made")

    def remember(self, number: int) -> None:
        self.memo[number] = self.stack[-1]


_PLAIN_KEYS = (str, int, float, bytes, Global, type(None))


def _key(key: Any) -> Any:
    """What may name an entry of a dictionary: values whose hashes cannot be made to collide by the thousand."""
    if isinstance(key, _PLAIN_KEYS) and not (isinstance(key, int) and key.bit_length() > 60):
        return key
    if isinstance(key, tuple) and len(key) <= 8:
        return tuple(_key(part) for part in key)
    if isinstance(key, Opaque):  # by itself: two of them are never equal here
        return key
    raise PickleError(f"it names an entry of a dictionary by {_described(key)}")


def _described(value: Any) -> str:
    if isinstance(value, Opaque | Global):
        return value.name
    return {"dict": "a dictionary"}.get(type(value).__name__, f"a {type(value).__name__}".lower())


# -- opcodes -----------------------------------------------------------------------------------------------------------

_U1, _U2, _U4, _U8, _I4, _F8 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q", "<i", ">d"))
_Step = Callable[[_Run], None]


def _push(make: Callable[[_Run], Any]) -> _Step:
    def step(run: _Run) -> None:
        run.stack.append(make(run))

    return step


def _unknown(run: _Run) -> None:
    code = run.raw[run.place - 1]
    raise PickleError(f"byte {run.place - 1:,} ({code:#04x}) is no instruction of a pickle of weights")


def _pop(run: _Run) -> None:
    if run.stack:
        run.stack.pop()
    else:
        run.stack = run.below.pop()


def _tuple(count: int) -> _Step:
    def step(run: _Run) -> None:
        items = tuple(run.stack[-count:])
        if len(items) < count:
            raise IndexError
        run.stack[-count:] = [items]

    return step


def _marked(make: Callable[[_Run, list[Any]], Any]) -> _Step:
    def step(run: _Run) -> None:
        items = run.marked()
        run.left -= 8 * len(items)
        run.stack.append(make(run, items))

    return step


def _dict(run: _Run, items: list[Any]) -> dict[Any, Any]:
    run.stack.append({})
    run.set_items(items)
    return run.stack.pop()


def _set_item(run: _Run) -> None:
    value, key = run.stack.pop(), run.stack.pop()
    run.set_items([key, value])


def _reduce(run: _Run) -> None:
    arguments, target = run.stack.pop(), run.stack.pop()
    run.stack.append(run.call(target, arguments))


def _new_object(run: _Run) -> None:
    named, arguments, target = run.stack.pop(), run.stack.pop(), run.stack.pop()
    if named:
        made = Opaque(getattr(target, "name", "something"), [named, arguments])
        run.reader.passed.setdefault(made.name, []).append(made)
        if isinstance(target, Global) and target.name in run.reader.calls:
            raise PickleError(f"it makes {target.name} in a way that no file of weights needs")
        run.stack.append(made)
    else:
        run.stack.append(run.call(target, arguments))


def _inst(run: _Run) -> None:
    module, name = run.line().decode("utf-8"), run.line().decode("utf-8")
    arguments = tuple(run.marked())
    run.named(module, name)
    run.stack.append(run.call(run.stack.pop(), arguments))


def _obj(run: _Run) -> None:
    items = run.marked()
    run.stack.append(run.call(items[0], tuple(items[1:])))


def _stack_global(run: _Run) -> None:
    name, module = run.stack.pop(), run.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise PickleError("it names a class by what is no text")
    run.named(module, name)


def _long(raw: bytes) -> int:
    if len(raw) > 64:
        raise PickleError("it has a number of more than 64 bytes")
    return int.from_bytes(raw, "little", signed=True)


def _line_number(run: _Run) -> Any:
    line = run.line()
    if line in (b"00", b"01"):
        return line == b"01"
    return _digits(line)


def _digits(line: bytes) -> int:
    if len(line) > 160:
        raise PickleError("it has a number of more than 160 digits")
    return int(line.removesuffix(b"L"))


def _quoted(run: _Run) -> str:
    line = run.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise PickleError("it has a text without quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("utf-8")  # type: ignore[attr-defined]


def _length(run: _Run, form: struct.Struct) -> int:
    length = run.number(form)
    if length < 0:
        raise PickleError("it has a text of less than no letters")
    return length


def _bytes(form: struct.Struct) -> _Step:
    def step(run: _Run) -> None:
        length = _length(run, form)
        run.left -= length
        run.stack.append(run.take(length))

    return step


def _string(form: struct.Struct) -> _Step:
    return _push(lambda run: run.text(_length(run, form)))


def _ignore(form: struct.Struct) -> _Step:
    def step(run: _Run) -> None:
        run.number(form)

    return step


def _persistent(run: _Run) -> None:
    run.stack.append(run.reader.persistent(run.stack.pop()))


def _protocol(run: _Run) -> None:
    if run.number(_U1) > 5:
        raise PickleError("it is written in a protocol that is not known")


_TABLE: dict[bytes, tuple[int, _Step]] = {
    b"\x80": (0, _protocol),
    b"\x95": (0, _ignore(_U8)),
    b"0": (0, _pop),
    b"1": (0, lambda run: (run.marked(), None)[1]),
    b"2": (16, _push(lambda run: run.stack[-1])),
    b"N": (16, _push(lambda _: None)),
    b"\x88": (16, _push(lambda _: True)),
    b"\x89": (16, _push(lambda _: False)),
    b"I": (48, _push(_line_number)),
    b"L": (48, _push(lambda run: _digits(run.line()))),
    b"J": (48, _push(lambda run: run.number(_I4))),
    b"M": (48, _push(lambda run: run.number(_U2))),
    b"\x8a": (96, _push(lambda run: _long(run.take(run.number(_U1))))),
    b"\x8b": (96, _push(lambda run: _long(run.take(_length(run, _I4))))),
    b"F": (48, _push(lambda run: float(run.line()))),
    b"G": (48, _push(lambda run: _F8.unpack(run.take(8))[0])),
    b"S": (80, _push(_quoted)),
    b"T": (80, _string(_I4)),
    b"U": (80, _string(_U1)),
    b"V": (80, _push(lambda run: str(run.line(), "raw-unicode-escape"))),
    b"X": (80, _string(_U4)),
    b"\x8c": (80, _string(_U1)),
    b"\x8d": (80, _string(_U8)),
    b"B": (64, _bytes(_U4)),
    b"C": (64, _bytes(_U1)),
    b"\x8e": (64, _bytes(_U8)),
    b"\x96": (64, _bytes(_U8)),
    b"]": (80, _push(lambda _: [])),
    b"a": (16, lambda run: run.extend([run.stack.pop()])),
    b"e": (16, lambda run: run.extend(run.marked())),
    b"l": (80, _marked(lambda _, items: items)),
    b"}": (80, _push(lambda _: {})),
    b"d": (80, _marked(_dict)),
    b"s": (16, _set_item),
    b"u": (16, lambda run: run.set_items(run.marked())),
    b"\x8f": (80, _push(lambda _: Opaque("builtins.set"))),
    b"\x90": (16, lambda run: run.extend(run.marked())),
    b"\x91": (80, _marked(lambda _, items: Opaque("builtins.frozenset", items))),
    b")": (16, _push(lambda _: ())),
    b"\x85": (64, _tuple(1)),
    b"\x86": (72, _tuple(2)),
    b"\x87": (80, _tuple(3)),
    b"p": (110, lambda run: run.remember(_digits(run.line()))),
    b"r": (110, lambda run: run.remember(run.number(_U4))),
    b"\x94": (110, lambda run: run.remember(len(run.memo))),
    b"g": (16, _push(lambda run: run.memo[_digits(run.line())])),
    b"j": (16, _push(lambda run: run.memo[run.number(_U4)])),
    b"c": (120, lambda run: run.named(run.line().decode("utf-8"), run.line().decode("utf-8"))),
    b"\x93": (120, _stack_global),
    b"R": (120, _reduce),
    b"\x81": (120, _reduce),
    b"\x92": (120, _new_object),
    b"b": (120, lambda run: run.built()),
    b"i": (240, _inst),
    b"o": (120, _obj),
    b"Q": (120, _persistent),
}
_STEPS: list[tuple[int, _Step]] = [_TABLE.get(bytes([code]), (0, _unknown)) for code in range(256)]


# -- what a pickle has described --------------------------------------------------------------------------------------


def containers(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every dictionary, list and tuple with the keys that lead to it; each once, the outer ones first.

    Raises:
        PickleError: if they stand more than 64 deep in each other.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    seen: set[int] = set()
    for part, found in waiting:  # grows while it is gone through
        if not isinstance(found, dict | list | tuple) or id(found) in seen:
            continue
        seen.add(id(found))
        yield part, found
        if len(part) >= DEEPEST:
            raise PickleError(f"its dictionaries stand more than {DEEPEST} deep in each other")
        items: Iterable[tuple[Any, Any]] = found.items() if isinstance(found, dict) else enumerate(found)
        waiting += [
            ((*part, name_of(key)), inner) for key, inner in items if isinstance(inner, dict | list | tuple) and inner
        ]


def name_of(key: Any) -> str:
    """A key of a dictionary as text."""
    return key.name if isinstance(key, Global | Opaque) else str(key)


def any_inside(values: Iterable[Any], wanted: Callable[[Any], bool]) -> bool:
    """Whether anything below these values, in containers or objects that were never built, is wanted."""
    waiting, seen = list(values), set()
    while waiting:
        value = waiting.pop()
        if wanted(value):
            return True
        if isinstance(value, dict | list | tuple | Opaque) and id(value) not in seen:
            seen.add(id(value))
            waiting += (
                value.values() if isinstance(value, dict) else value.parts if isinstance(value, Opaque) else value
            )
    return False
