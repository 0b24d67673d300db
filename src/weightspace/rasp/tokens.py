"""Programs as tokens, in both published vocabularies, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.canonical import (
    COMPARISON_NAMES,
    INPUT_NAMES,
    OPERATION_NAMES,
    PREDICATE_NAMES,
    argument_order,
    by_depth,
)
from weightspace.rasp.compiler.layers import by_layer
from weightspace.rasp.functions import Function, Value, shown
from weightspace.rasp.lambdas import ONE_ARGUMENT, SEQUENCE, Lambda, Operands, recognise
from weightspace.rasp.language import (
    ENCODINGS,
    Aggregate,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    tokens,
    usual_default,
)
from weightspace.rasp.program import Program

Ids = Sequence[int] | Sequence[np.integer] | np.ndarray

# -- typed: one token after the other --------------------------------------------------------------------------------

PAD, BOS, EOS, END_OF_OPERATION, END_OF_LAYER = "PAD", "BOS", "EOS", "EOO", "EOL"
TYPED_OPERATIONS = ("Map", "SequenceMap", "LinearSequenceMap", "SelectAggregate", "SelectorWidth")
TYPED_VARIABLES = tuple(f"sop_{number:02d}" for number in range(10))
TYPED_INPUTS = ("sop_10_tokens", "sop_11_indices")
TYPED_FACTORS = ("-3", "-2", "-1", "1", "2", "3")
TYPED_COMPARISONS = ("EQ", "TRUE", "GEQ", "GT", "LEQ", "LT", "NEQ")
TYPED_MAPS = (
    "int(x)", "not x", "x", "x != 2", "x != 3", "x * 2", "x + 0.5", "x + 1", "x - 1", "x < 2", "x < 3", "x < 3.5",
    "x == 0", "x == 1", "x == 2", "x == 3", "x > 0.5", "x > 2", "x > 3", "x > 3.5",
)  # fmt: skip
TYPED_SEQUENCE_MAPS = ("x * y", "x + y % 10", "x - y", "x and y", "x or y")
TYPED_FUNCTIONS = tuple(
    sorted(
        [f"lambda x: {source}" for source in TYPED_MAPS] + [f"lambda x, y: {source}" for source in TYPED_SEQUENCE_MAPS]
    )
)
_FUNCTIONS = {name: Function.parse(name) for name in TYPED_FUNCTIONS}
_FUNCTION_NAMES = {(function.source, function.arity): name for name, function in _FUNCTIONS.items()}
_FACTOR_NAMES: dict[int | float, str] = {int(name): name for name in TYPED_FACTORS}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of the `typed` programs: a program is a list of ids, and a list of ids a program.

    A program is BOS; for every half-layer (attention, MLP, attention, ...) its operations, each
    `variable encoding operation arguments... EOO`, and EOL; and EOS. A Map has as arguments its function and its input,
    a SequenceMap its function and two inputs, a LinearSequenceMap two inputs and two factors, a SelectorWidth keys,
    queries and comparison, a SelectAggregate these and an S-op. Within a half-layer operations stand in the order of
    their texts. Selectors have no variable; two of the same arguments become one.

    Attributes:
        names: of the tokens; the place of a name is its id.
    """

    names: tuple[str, ...]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each name."""
        return {name: place for place, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, program: Program) -> list[int]:
        """The ids of a program, without dead code. What it is meant for is not in them.

        Raises:
            RaspError: if it has something for which there is no token; the message names the statement.
        """
        variables = {id(tokens): TYPED_INPUTS[0], id(indices): TYPED_INPUTS[1]}
        layers = by_layer(program)
        if not layers:
            raise RaspError("a program that is one of its inputs has no tokens: it needs an operation")
        count = sum(map(len, layers))
        if count > len(TYPED_VARIABLES):
            raise RaspError(f"{count} S-ops are too many: the vocabulary has {len(TYPED_VARIABLES)} variables")
        words, free = [BOS], iter(TYPED_VARIABLES)
        for members in layers:
            written = [(_typed_operation(program, node, variables), id(node)) for node in members]
            # by the texts alone: what ties is the same operation twice, and stays in the order of the graph
            for text, node in sorted(written, key=lambda pair: pair[0]):
                variables[node] = next(free)
                words += [variables[node], *text, END_OF_OPERATION]
            words.append(END_OF_LAYER)
        words.append(EOS)
        ids = self.ids
        return [ids[word] for word in words]

    def decode(self, ids: Ids) -> Program:
        """The program of a list of ids; for those that `encode` makes, encoding it gives them back.

        The last operation is the output. Variables need not be numbered in order, nor operations be cut into
        half-layers as the compiler does it; each reads only earlier ones.

        Raises:
            RaspError: if they are not a program, with the position from 0, what stands there and what was expected.
        """
        return _TypedReader(_words(ids, self.names)).program()


def _typed_operation(program: Program, node: SOp, variables: dict[int, str]) -> list[str]:
    """An operation as strings, without its variable."""
    head = [node.encoding, type(node).__name__]
    match node:
        case Map() | SequenceMap():
            name = _FUNCTION_NAMES.get((node.function.source, node.function.arity))
            if name is None:
                raise _refusal(
                    program, node, f"the function {node.function.source!r} has no token: there are {_functions()}"
                )
            return [*head, name, *(variables[id(child)] for child in node.children)]
        case LinearSequenceMap():
            factors = []
            for factor in (node.first_factor, node.second_factor):
                if factor not in _FACTOR_NAMES:
                    known = ", ".join(TYPED_FACTORS)
                    raise _refusal(program, node, f"the factor {factor!r} has no token: there are {known}")
                factors.append(_FACTOR_NAMES[factor])
            return [*head, variables[id(node.first)], variables[id(node.second)], *factors]
        case Aggregate():
            _check_default(program, node)
            selection = _typed_selection(program, node.selector, variables)
            return [node.encoding, "SelectAggregate", *selection, variables[id(node.sop)]]
        case SelectorWidth():
            return [*head, *_typed_selection(program, node.selector, variables)]
    raise _refusal(program, node, f"{type(node).__name__} has no token: there are {', '.join(TYPED_OPERATIONS)}")


def _functions() -> str:
    return ", ".join(TYPED_MAPS + TYPED_SEQUENCE_MAPS)


def _typed_selection(program: Program, selector: Selector, variables: dict[int, str]) -> list[str]:
    if not isinstance(selector, Select):
        raise _refusal(program, selector, f"{type(selector).__name__} has no token: write it as one Select")
    name = COMPARISON_NAMES.get(selector.function.source)
    if name is None or name not in TYPED_COMPARISONS:
        what = f"the predicate {name or selector.function.source!r} has no token"
        raise _refusal(program, selector, f"{what}: there are {', '.join(TYPED_COMPARISONS)}")
    return [variables[id(selector.keys)], variables[id(selector.queries)], name]


def _refusal(program: Program, node: Expression, message: str) -> RaspError:
    name = program.names.get(id(node))
    return RaspError(f"{name}: {message}" if name else message)


def _check_default(program: Program, node: Aggregate) -> None:
    if repr(node.default) != repr(usual_default(node.encoding)):
        raise _refusal(program, node, f"the default {node.default!r} has no token: leave it at what is usual")


def _words(ids: Ids, names: Sequence[str], where: str = "position") -> list[str]:
    words = []
    for place, word in enumerate(ids):
        if isinstance(word, bool | np.bool_) or not isinstance(word, int | np.integer):
            raise RaspError(f"{where} {place}: {shown(word)} is no id: ids are whole numbers")
        if not 0 <= word < len(names):
            raise RaspError(f"{where} {place}: the id {word} is unknown: ids are 0 to {len(names) - 1}")
        words.append(names[int(word)])
    return words


class _TypedReader:
    """Words on their way to a program: what has been read so far."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.place = words, 0
        self.made: dict[str, SOp] = dict(zip(TYPED_INPUTS, (tokens, indices), strict=True))
        self.selects: dict[tuple[int, int, str], Select] = {}
        self.statements: list[Expression] = []

    def program(self) -> Program:
        self.take((BOS,), "BOS")
        output: SOp | None = None
        while True:
            word = self.take((END_OF_LAYER, EOS, *TYPED_VARIABLES), "a new variable, EOL or EOS")
            if word in TYPED_VARIABLES:
                if word in self.made:
                    self.place -= 1
                    self.fail(f"a new variable, EOL or EOS; {word} is assigned already")
                output = self.operation()
                self.statements.append(output)
                self.made[word] = output
                self.take((END_OF_OPERATION,), "EOO, since the operation is complete")
            elif word == EOS:
                break
        if output is None:
            self.place -= 1
            self.fail("an operation: a program has at least one")
        while self.place < len(self.words):
            self.take((PAD,), "PAD, since the program has ended")
        return Program(output, tuple((f"v{number}", node) for number, node in enumerate(self.statements, 1)))

    def operation(self) -> SOp:
        encoding: Any = self.take(ENCODINGS, "categorical or numerical")
        match self.take(TYPED_OPERATIONS, "an operation"):
            case "Map":
                return Map(self.function(1), self.sop(), encoding=encoding)
            case "SequenceMap":
                return SequenceMap(self.function(2), self.sop(), self.sop(), encoding=encoding)
            case "LinearSequenceMap":
                first, second = self.sop(), self.sop()
                factors = [float(self.take(TYPED_FACTORS, "a factor")) for _ in range(2)]
                return LinearSequenceMap(first, second, *factors, encoding=encoding)
            case "SelectAggregate":
                return Aggregate(self.select(), self.sop(), encoding=encoding)
        return SelectorWidth(self.select(), encoding=encoding)

    def select(self) -> Select:
        keys, queries = self.sop(), self.sop()
        comparison: Any = self.take(TYPED_COMPARISONS, "a comparison")
        key = (id(keys), id(queries), comparison)
        if key not in self.selects:
            self.selects[key] = Select(keys, queries, comparison)
            self.statements.append(self.selects[key])
        return self.selects[key]

    def function(self, arity: int) -> Function:
        names = [name for name, function in _FUNCTIONS.items() if function.arity == arity]
        return _FUNCTIONS[self.take(names, f"a function of {arity} argument{'s' * (arity - 1)}")]

    def sop(self) -> SOp:
        return self.made[self.take(tuple(self.made), "an input or a variable that is assigned before")]

    def take(self, allowed: Sequence[str], expected: str) -> str:
        if self.place >= len(self.words) or self.words[self.place] not in allowed:
            self.fail(expected)
        self.place += 1
        return self.words[self.place - 1]

    def fail(self, expected: str) -> NoReturn:
        found = repr(self.words[self.place]) if self.place < len(self.words) else "the end"
        raise RaspError(f"position {self.place}: found {found}, expected {expected}")


TYPED = Vocabulary(
    (
        *(PAD, BOS, EOS, END_OF_OPERATION, END_OF_LAYER),
        *TYPED_OPERATIONS,
        *ENCODINGS,
        *TYPED_VARIABLES,
        *TYPED_FUNCTIONS,
        *TYPED_FACTORS,
        *TYPED_COMPARISONS,
        *TYPED_INPUTS,
    )
)
"""The vocabulary of the paper's 2024 successor, in its order."""

# -- paper: five fields a line ---------------------------------------------------------------------------------------

PADDING, START, END, NOTHING = "<PAD>", "PROGRAM_START", "PROGRAM_END", "NA"
MOST_LINES = 15
PAPER_VARIABLES = tuple(f"v{number}" for number in range(1, MOST_LINES + 1))
PAPER_OPERATIONS = (PADDING, *OPERATION_NAMES, START, END)
PAPER_ARGUMENTS = (PADDING, *INPUT_NAMES, *PREDICATE_NAMES, *ONE_ARGUMENT, *SEQUENCE, NOTHING, *PAPER_VARIABLES)
PAPER_INTEGERS = tuple(map(str, range(-20, 21)))
PAPER_ITEMS = tuple(f"t{number}" for number in range(16))
PAPER_CONSTANTS = (PADDING, NOTHING, "None", "False", "True", *PAPER_INTEGERS, *PAPER_ITEMS)
PAPER_HUNDREDTHS = (PADDING, NOTHING, *(f".{number:02d}" for number in range(100)))
_NAMED: dict[str, Value] = {"None": None, "False": False, "True": True}


@dataclass(frozen=True)
class LineVocabulary:
    """The tokens of the paper's programs: a program is a table of ids, one line of it a row.

    A line is an operation, three arguments (lambda or predicate, inputs, variables; NA where there is none) and the
    variable of the result. A row PROGRAM_START stands before, a row PROGRAM_END after the lines, and rows of zeros fill
    up to 17. Lines stand in the order of `canonical.by_depth`. All S-ops are categorical.

    The published format loses the constants of lambdas, and the order of operands, since the arguments of a line are
    sorted. `lossless` keeps both: the lambda or predicate stands first, operands in order, NA where a Map's constant
    stands, and two fields follow, the constant and, of a decimal, its hundredths (`4.35` is 4 and .35).

    Attributes:
        lossless: whether operand order and constants are kept.
    """

    lossless: bool

    @cached_property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """The tokens of each field; the place of a name is its id, 0 is padding."""
        constants = (PAPER_CONSTANTS, PAPER_HUNDREDTHS) if self.lossless else ()
        return (PAPER_OPERATIONS, *[PAPER_ARGUMENTS] * 4, *constants)

    @cached_property
    def ids(self) -> tuple[dict[str, int], ...]:
        """The id of each name, field by field."""
        return tuple({name: place for place, name in enumerate(names)} for names in self.names)

    def encode(self, program: Program) -> np.ndarray:
        """(17, 5) int64 ids of a program, or (17, 7) where `lossless`; without dead code and what it is meant for.

        Raises:
            RaspError: if it has something for which there is no token; the message names the statement.
        """
        nodes = [node for level in by_depth(program) for node in level]
        if not 0 < len(nodes) <= MOST_LINES:
            raise RaspError(f"a program of {len(nodes)} operations cannot be written: it may have 1 to {MOST_LINES}")
        names = {id(node): f"v{number}" for number, node in enumerate(nodes, 1)}
        names |= {id(tokens): "tokens", id(indices): "indices"}
        rows = np.zeros((MOST_LINES + 2, len(self.names)), dtype=np.int64)
        rows[0, 0], rows[len(nodes) + 1, 0] = self.ids[0][START], self.ids[0][END]
        for row, node in enumerate(nodes, 1):
            arguments, constant = self._line(program, node, names)
            arguments += [NOTHING] * (3 - len(arguments))
            if not self.lossless:
                arguments.sort(key=argument_order)
            line = [type(node).__name__, *arguments, names[id(node)], *(constant if self.lossless else ())]
            rows[row] = [ids[word] for ids, word in zip(self.ids, line, strict=True)]
        return rows

    def _line(self, program: Program, node: Expression, names: dict[int, str]) -> tuple[list[str], tuple[str, str]]:
        """The arguments of a line, and its constant and hundredths."""
        none = (NOTHING, NOTHING)
        if isinstance(node, SOp) and node.numerical:
            raise _refusal(program, node, "it is numerical, and the S-ops of the paper's programs are categorical")
        reads = [names[id(child)] for child in node.children]
        match node:
            case Map() | SequenceMap():
                found = self._lambda(program, node)
                if isinstance(node, SequenceMap):
                    return [found.name, *reads], none
                if not self.lossless:
                    return [found.published, *reads], none
                # NA stands where the constant does
                operands = [NOTHING, *reads] if found.operands in ("cx", "c") else [*reads, NOTHING]
                constant = _constant_words(program, node, found.constant) if "c" in found.operands else none
                return [found.name, *operands], constant
            case Select() if node.function.source in COMPARISON_NAMES:
                return [f"PRED_{COMPARISON_NAMES[node.function.source]}", *reads], none
            case Select():
                known = ", ".join(PREDICATE_NAMES)
                raise _refusal(program, node, f"the predicate {node.function.source!r} has no token: there are {known}")
            case Aggregate():
                _check_default(program, node)
                return reads, none
            case SelectorWidth():
                return reads, none
        raise _refusal(program, node, f"{type(node).__name__} has no token: there are {', '.join(OPERATION_NAMES)}")

    def _lambda(self, program: Program, node: Map | SequenceMap) -> Lambda:
        found = recognise(node.function)
        source = node.function.source
        if isinstance(node, Map):
            if found is None or (self.lossless and found.function.source != source):
                known = "an operator between x and a constant, or not"
                raise _refusal(program, node, f"the function {source!r} has no token: there are those of {known}")
        elif found is None or found.name not in SEQUENCE:
            raise _refusal(
                program, node, f"the function {source!r} has no token: there are {', '.join(SEQUENCE)} of x and y"
            )
        elif self.lossless and found.operands != "xy":
            raise _refusal(
                program, node, f"{source!r} has no token: write the function with x first, and swap its operands"
            )
        return found

    def lines(self, ids: Sequence[Any] | np.ndarray) -> list[str]:
        """The lines of a table of ids in the paper's style (Figure 13), such as `v3 = Select(PRED_LT, v2, v2)`.

        What a line says need not make sense; it ends before the first row PROGRAM_END or padding.

        Raises:
            RaspError: if an id is none.
        """
        found = []
        for words in self._rows(ids):
            operation, *arguments = words[:4]
            if operation in (END, PADDING):
                break
            if operation == START:
                continue
            if self.lossless and words[5] not in (NOTHING, PADDING) and NOTHING in arguments:
                arguments[arguments.index(NOTHING)] = str(_constant(*words[5:]))
            shown_arguments = ", ".join(argument for argument in arguments if argument != NOTHING)
            found.append(f"{words[4]} = {operation}({shown_arguments})")
        return found

    def decode(self, ids: Sequence[Any] | np.ndarray) -> Program:
        """The program of a table of ids; for those that `encode` makes, encoding it gives them back.

        The last line is the output. Lines may stand in any order in which each reads only earlier ones.

        Raises:
            RaspError: if they are not a program, with line and field, what stands there and what was expected; or if
                this vocabulary loses constants and operand order.
        """
        if not self.lossless:
            raise RaspError(
                "the published tokens do not hold constants and operand order: use PAPER_LOSSLESS, or lines"
            )
        return _LineReader(self._rows(ids)).program()

    def _rows(self, ids: Sequence[Any] | np.ndarray) -> list[list[str]]:
        rows = []
        for number, row in enumerate(ids):
            if not isinstance(row, Sequence | np.ndarray) or isinstance(row, str) or len(row) != len(self.names):
                raise RaspError(f"line {number}: {shown(row)} is not a row of {len(self.names)} ids")
            words = [
                _words([word], names, f"line {number}, field") for word, names in zip(row, self.names, strict=True)
            ]
            rows.append([word for (word,) in words])
        return rows


def _constant_words(program: Program, node: Map, constant: Value) -> tuple[str, str]:
    """A constant as a token and, of a decimal, its hundredths."""
    if constant is None or isinstance(constant, bool):
        return str(constant), NOTHING
    if isinstance(constant, str) and constant in PAPER_ITEMS:
        return constant, NOTHING
    if isinstance(constant, int) and str(constant) in PAPER_INTEGERS:
        return str(constant), NOTHING
    if isinstance(constant, float) and abs(constant) < 100:
        whole, hundredths = divmod(round(constant * 100), 100)
        if repr(whole + hundredths / 100) == repr(constant) and str(whole) in PAPER_INTEGERS:
            return str(whole), f".{hundredths:02d}"
    known = "None, False, True, -20 to 20, -20.0 to 20.99 in hundredths, 't0' to 't15'"
    raise _refusal(program, node, f"the constant {constant!r} has no token: there are {known}")


def _constant(name: str, hundredths: str) -> Value:
    """The constant that two tokens stand for."""
    if name not in PAPER_INTEGERS:
        return _NAMED.get(name, name)
    return int(name) if hundredths in (NOTHING, PADDING) else int(name) + int(hundredths[1:]) / 100


class _LineReader:
    """Lines on their way to a program: what has been read so far."""

    def __init__(self, rows: list[list[str]]) -> None:
        self.rows, self.row = rows, 0
        self.made: dict[str, Expression] = {"tokens": tokens, "indices": indices}

    def program(self) -> Program:
        if not self.rows or self.rows[0][0] != START:
            raise RaspError(f"line 0: found {self.rows[0][0] if self.rows else 'the end'}, expected {START}")
        while True:
            self.row += 1
            if self.row == len(self.rows):
                raise RaspError(f"line {self.row}: found the end, expected {END}")
            words = self.rows[self.row]
            if words[0] == END:
                break
            if words[0] not in OPERATION_NAMES:
                self.fail(0, "an operation")
            if words[4] not in PAPER_VARIABLES or words[4] in self.made:
                self.fail(4, "a variable that is not assigned before")
            self.made[words[4]] = self.operation(words[0])
        for row in range(self.row + 1, len(self.rows)):
            if self.rows[row][0] != PADDING:
                raise RaspError(
                    f"line {row}: found {self.rows[row][0]}, expected {PADDING}, since the program has ended"
                )
        nodes = [*self.made.values()][2:]
        if not nodes or not isinstance(nodes[-1], SOp):
            raise RaspError("the last line is the output: expected an operation that gives an S-op")
        return Program(nodes[-1], tuple((f"v{number}", node) for number, node in enumerate(nodes, 1)))

    def operation(self, operation: str) -> Expression:
        if operation == "Map":
            return self.map()
        self.no_constant()
        if operation == "SequenceMap":
            return SequenceMap(
                Lambda(self.word(1, SEQUENCE, "a numeric lambda"), "xy").function, self.sop(2), self.sop(3)
            )
        if operation == "Select":
            predicate: Any = self.word(1, PREDICATE_NAMES, "a predicate").removeprefix("PRED_")
            return Select(self.sop(2), self.sop(3), predicate)
        if operation == "Aggregate":
            self.word(3, (NOTHING,), NOTHING)
            return Aggregate(self.selector(1), self.sop(2))
        for field in (2, 3):
            self.word(field, (NOTHING,), NOTHING)
        return SelectorWidth(self.selector(1))

    def map(self) -> Map:
        name = self.word(1, ONE_ARGUMENT + SEQUENCE, "a lambda")
        first = self.rows[self.row][2] == NOTHING
        inner = self.sop(3 if first else 2)
        if not first:
            self.word(3, (NOTHING,), NOTHING)
        operands: Operands = "cx" if first else "xc"
        if name == "LAM_IV":
            operands = "c" if first else "x"
            if not first:
                self.no_constant()
                return Map(Lambda(name, operands).function, inner)
        return Map(Lambda(name, operands, self.constant()).function, inner)

    def constant(self) -> Value:
        name = self.word(5, PAPER_CONSTANTS[2:], "a constant")
        if name in PAPER_INTEGERS:
            self.word(6, PAPER_HUNDREDTHS[1:], "hundredths or NA")
        else:
            self.word(6, (NOTHING,), f"{NOTHING}, since only numbers have hundredths")
        return _constant(name, self.rows[self.row][6])

    def no_constant(self) -> None:
        for field in (5, 6):
            self.word(field, (NOTHING,), f"{NOTHING}, since there is no constant")

    def sop(self, field: int) -> SOp:
        node = self.made.get(self.rows[self.row][field])
        if not isinstance(node, SOp):
            self.fail(field, "an input, or the variable of an S-op that is assigned before")
        return node

    def selector(self, field: int) -> Selector:
        node = self.made.get(self.rows[self.row][field])
        if not isinstance(node, Selector):
            self.fail(field, "the variable of a Select that is assigned before")
        return node

    def word(self, field: int, allowed: Sequence[str], expected: str) -> str:
        word = self.rows[self.row][field]
        if word not in allowed:
            self.fail(field, expected)
        return word

    def fail(self, field: int, expected: str) -> NoReturn:
        found = self.rows[self.row][field]
        raise RaspError(f"line {self.row}, field {field}: found {found}, expected {expected}")


PAPER = LineVocabulary(lossless=False)
"""The paper's target (appendix B.3), with the ids of its code."""
PAPER_LOSSLESS = LineVocabulary(lossless=True)
"""The same with constants and operand order, so that a program can be had back."""
