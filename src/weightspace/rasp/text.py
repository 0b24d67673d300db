"""Programs as text in the paper's listing style, printed and parsed."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from weightspace.errors import RaspError
from weightspace.rasp.choices import NextTokens, Pick
from weightspace.rasp.forms import (
    FORMS,
    HEADERS,
    MOST_OPERATIONS,
    READERS,
    SETS,
    Form,
    check_arity,
    check_child,
    check_variable,
    check_written,
    form_of,
    make,
    names_of,
    output_name,
    read_encoding,
    read_factor,
    read_sets,
    read_value,
    read_which,
    unknown_variable,
)
from weightspace.rasp.functions import LONGEST_SOURCE, Function
from weightspace.rasp.language import (
    COMPARISONS,
    ENCODINGS,
    EXACTNESS,
    Aggregate,
    Comparison,
    Encoding,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    SequenceMap,
    SOp,
    Statements,
    indices,
    tokens,
    usual_default,
)

LONGEST_TEXT = 200_000
DEEPEST_CALLS = 40
LONGEST_LINE, MOST_ENTRIES, FIRST_ENTRIES = 160, 8, 4
"""A line of more characters is folded if its table has more entries than the second; so many are left."""
PREDICATE = "PRED_"
SPELLINGS: dict[str, Comparison] = {**{name: name for name in COMPARISONS}, "LE": "LEQ", "GE": "GEQ", "NE": "NEQ"}
"""Comparisons as they may be written, each also after `PRED_`; the paper writes LE, GE and NE."""

T = TypeVar("T")


class TextError(RaspError):
    """A text that is not a program; the message starts with `line L, column C: `, both counted from 1."""


# -- printed --------------------------------------------------------------------------------------------------------


def to_text(program: Statements) -> str:
    """The canonical text of a program: parsing and printing it gives it back.

    One statement a line, under what the program is meant for and above `return`. An encoding is printed where it is
    numerical, a default where it is not the usual one. Labels and notes are no part of the text.

    Raises:
        RaspError: if the program has no statement for something that it reads.
    """
    lines = header_lines(program)
    statements = [(name, node) for name, node in program.statements if not isinstance(node, NextTokens)]
    for name, node in statements:
        lines.append(f"{name}{annotation_of(node)} = {call_text(node, names_of(program, node))}")
    return "\n".join([*lines, f"return {_output(program)}"])


def header_lines(program: Statements) -> list[str]:
    """What a program is meant for, a line each."""
    lines = []
    if program.vocab is not None:
        lines.append(f"vocab = {[*program.vocab]!r}")
    if program.max_seq_len is not None:
        lines.append(f"max_seq_len = {program.max_seq_len}")
    if program.causal:
        lines.append("causal = True")
    if program.mlp_exactness != EXACTNESS:
        lines.append(f"mlp_exactness = {program.mlp_exactness!r}")
    return lines


def _output(program: Statements) -> str:
    output = program.output
    if not isinstance(output, NextTokens):
        return output_name(program)
    names = names_of(program, output)
    return "{" + ", ".join(f"{token!r}: {name}" for token, name in zip(output.tokens, names, strict=True)) + "}"


def folded_text(program: Statements) -> str:
    """The text of a program as a person looks at it: of a long table the first entries and how many more there are.

    It is for reading; `to_text` is what can be parsed.
    """
    lines = to_text(program).splitlines()
    first = len(lines) - 1 - len([node for _, node in program.statements if not isinstance(node, NextTokens)])
    for number, (_, node) in enumerate(program.statements, first):
        function = node.function if isinstance(node, Map | SequenceMap | Select) else None
        table = None if function is None else function.table
        if (
            function is not None
            and table is not None
            and len(table) > MOST_ENTRIES
            and len(lines[number]) > LONGEST_LINE
        ):
            shown = ", ".join(f"{key!r}: {value!r}" for key, value in list(table.items())[:FIRST_ENTRIES])
            folded = f"{{{shown}, ... {len(table) - FIRST_ENTRIES:,} more}}"
            lines[number] = lines[number].replace(function.source, folded)
    return "\n".join(lines)


def annotation_of(node: Expression) -> str:
    """The encoding of a statement as it is written behind the name, where it is not the usual one."""
    # A LinearSequenceMap without annotation is numerical, so a categorical one has to say so.
    said = isinstance(node, SOp) and (node.numerical or isinstance(node, LinearSequenceMap))
    return f": {node.encoding}" if isinstance(node, SOp) and said else ""


def call_text(node: Expression, reads: Sequence[str]) -> str:
    """The call of an operation.

    Args:
        reads: the texts of what it reads.
    Raises:
        RaspError: if its function has no text.
    """
    before: list[str] = []
    after: list[str] = []
    match node:
        case Map() | SequenceMap():
            before = [check_written(node.function).source]
        case LinearSequenceMap():
            before = [repr(node.first_factor), repr(node.second_factor)]
        case Select(predicate=predicate):
            before = [PREDICATE + predicate if isinstance(predicate, str) else check_written(predicate).source]
        case Aggregate(default=default) if repr(default) != repr(usual_default(node.encoding)):
            after = [f"default={default!r}"]
        case Pick():
            before = [node.which]
            after = [] if node.default is None else [f"default={node.default!r}"]
    return f"{type(node).__name__}({', '.join([*before, *reads, *after])})"


# -- parsed ---------------------------------------------------------------------------------------------------------


def parse(text: str) -> Statements:
    """The program that a text describes.

    Args:
        text: as `to_text` prints it. Besides, calls may be nested; the statements may be the indented body of
            `def NAME(tokens, indices):`; without `return` the last statement is the output; `PRED_` may be left out; a
            function may be written as a lambda; blank lines and comments are skipped.
    Raises:
        TextError: with line, column, what was found and what was expected.
    """
    if len(text) > LONGEST_TEXT:
        raise TextError(f"line 1, column 1: a text of {len(text)} characters is too long: at most {LONGEST_TEXT}")
    return _Parser(text).program()


def _tree(text: str) -> list[ast.stmt]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text).body
    except SyntaxError as error:
        where = f"line {max(error.lineno or 1, 1)}, column {max(error.offset or 1, 1)}"
        raise TextError(f"{where}: {error.msg}; expected statements such as 'v1 = Map(x + 1, tokens)'") from None
    except RecursionError:
        raise TextError("line 1, column 1: something in the text is nested too deep to be read") from None
    except (ValueError, MemoryError) as error:
        raise TextError(f"line 1, column 1: the text cannot be read: {error}") from None


class _Parser:
    """A text on its way to a program: what has been read so far, and where."""

    def __init__(self, text: str) -> None:
        self.lines = re.split("\r\n|\r|\n", text)
        self.statements = self._unwrapped(_tree(text))
        self.taken = {
            target.id
            for statement in self.statements
            for target in (*getattr(statement, "targets", ()), getattr(statement, "target", None))
            if isinstance(target, ast.Name)
        }
        self.nodes: dict[str, Expression] = {"tokens": tokens, "indices": indices}
        self.assigned: dict[str, int] = {}
        self.meant: dict[str, Any] = {}
        self.names: dict[int, str] = {id(tokens): "tokens", id(indices): "indices"}
        self.unnamed = 0

    def program(self) -> Statements:
        if not self.statements:
            raise TextError("line 1, column 1: no program: expected statements such as 'v1 = Map(x + 1, tokens)'")
        last = self.statements[-1]
        for statement in self.statements:
            if isinstance(statement, ast.Return):
                if statement is not last:
                    self.fail(self.statements[self.statements.index(statement) + 1], "nothing may follow 'return'")
                return self._finished(self._returned(statement), statement)
            self._statement(statement)
        latest = [*self.nodes.values()][-1]
        if latest is indices:
            self.fail(last, "no operation and no 'return': expected statements such as 'v1 = Map(x + 1, tokens)'")
        return self._finished(latest, last)

    def fail(self, where: ast.AST, message: str) -> NoReturn:
        """Raise a `TextError` at a node."""
        line, offset = getattr(where, "lineno", 1), getattr(where, "col_offset", 0)
        raise TextError(f"line {line}, column {self._column(line, offset)}: {message}") from None

    def checked(self, where: ast.AST, check: Callable[..., T], *arguments: Any) -> T:
        """What `check` returns; what it refuses is refused at a node."""
        try:
            return check(*arguments)
        except RaspError as error:
            self.fail(where, str(error))

    def found(self, where: ast.expr | ast.stmt) -> str:
        """The beginning of a node as it stands in the text, in quotes."""
        line = self.lines[where.lineno - 1].encode(errors="replace")
        end = where.end_col_offset if where.end_lineno == where.lineno else None
        written = line[where.col_offset : end].decode(errors="replace")
        return repr(written if len(written) <= 60 else written[:57] + "...")

    def _column(self, line: int, offset: int) -> int:
        # Python counts bytes; a reader counts characters.
        return len(self.lines[line - 1].encode(errors="replace")[:offset].decode(errors="replace")) + 1

    def _unwrapped(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """The statements, those in the body of `def NAME(tokens, indices):` included."""
        for place, statement in enumerate(statements):
            if not isinstance(statement, ast.FunctionDef):
                continue
            given = statement.args
            others = (given.posonlyargs, given.kwonlyargs, given.defaults, given.vararg, given.kwarg)
            if [argument.arg for argument in given.args] not in ([], ["tokens"], ["tokens", "indices"]) or any(others):
                self.fail(statement, "a program takes tokens and indices: write 'def NAME(tokens, indices):'")
            if statement.decorator_list:
                self.fail(statement.decorator_list[0], "decorators are unknown here: leave it out")
            if place + 1 < len(statements):
                self.fail(statements[place + 1], "nothing may follow the body of 'def'")
            body = statement.body
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                body = body[1:]  # its docstring
            return [*statements[:place], *body]
        return statements

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = None
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value):
                pass
            case _:
                self.fail(
                    statement,
                    f"found {self.found(statement)}; expected 'NAME = OPERATION(...)', 'NAME: numerical = "
                    f"OPERATION(...)', 'return NAME', or one of {', '.join(HEADERS)}",
                )
        if name in self.assigned:
            self.fail(statement, f"{name} is assigned twice, first in line {self.assigned[name]}: choose another name")
        self.assigned[name] = statement.lineno
        if name in HEADERS:
            if annotation is not None:
                self.fail(annotation, f"{name} has no encoding")
            self.meant[name] = self.checked(value, READERS[name], self._literal(value))
            return
        if name in ("tokens", "indices"):
            self.fail(statement, f"{name} is the program's input and cannot be assigned: choose another name")
        self.checked(statement, check_variable, name)
        encoding = None if annotation is None else self._encoding(annotation)
        if not isinstance(value, ast.Call):
            self.fail(value, f"found {self.found(value)}; expected an operation: {_operations()}")
        node = self._operation(value, 0, encoding)
        if annotation is not None and not isinstance(node, SOp):
            self.fail(annotation, f"{name} is a selector, and a selector has no encoding: leave it out")
        self._name(node, name, statement)

    def _returned(self, statement: ast.Return) -> Expression:
        if statement.value is None:
            self.fail(statement, "found 'return' alone; expected 'return NAME'")
        if isinstance(statement.value, ast.Dict):
            return self._sets(statement.value)
        return self._argument(statement.value, 0)

    def _sets(self, tree: ast.Dict) -> Expression:
        """The output of a program that says for each token whether it may come next."""
        said = []
        for key, value in zip(tree.keys, tree.values, strict=True):
            if key is None:
                self.fail(value, f"found '**'; expected {SETS}")
            said.append((self._literal(key), self._argument(value, 0)))
        node = self.checked(tree, read_sets, [token for token, _ in said], [sop for _, sop in said])
        self._name_anew(node, tree)
        return node

    def _finished(self, output: Expression, where: ast.stmt) -> Statements:
        if not isinstance(output, SOp):
            name = self.names[id(output)]
            self.fail(where, f"the output {name} is a selector; a program's output is an S-op: add 'return NAME'")
        meant = self.meant
        return Statements(
            output,
            tuple(self.nodes.items())[2:],
            meant.get("vocab"),
            meant.get("max_seq_len"),
            meant.get("causal", False),
            meant.get("mlp_exactness", EXACTNESS),
        )

    def _name(self, node: Expression, name: str, where: ast.AST) -> None:
        if len(self.nodes) - 2 >= MOST_OPERATIONS:
            self.fail(where, f"too many operations: at most {MOST_OPERATIONS}")
        self.nodes[name], self.names[id(node)] = node, name

    def _name_anew(self, node: Expression, where: ast.AST) -> None:
        self.unnamed += 1
        while (name := f"v{self.unnamed}") in self.taken or name in self.nodes:
            self.unnamed += 1
        self._name(node, name, where)

    def _argument(self, tree: ast.expr, depth: int) -> Expression:
        """The operation that a variable names, or that a call in its place describes."""
        if isinstance(tree, ast.Call):
            if depth > DEEPEST_CALLS:
                self.fail(tree, f"calls nested deeper than {DEEPEST_CALLS}: give the inner ones names")
            node = self._operation(tree, depth, None)
            self._name_anew(node, tree)
            return node
        if not isinstance(tree, ast.Name):
            self.fail(tree, f"found {self.found(tree)}; expected a variable, such as tokens or v1, or an operation")
        if tree.id not in self.nodes:
            self.fail(tree, unknown_variable(tree.id, [*self.nodes]))
        return self.nodes[tree.id]

    def _operation(self, tree: ast.Call, depth: int, encoding: Encoding | None) -> Expression:
        if not isinstance(tree.func, ast.Name) or tree.func.id not in FORMS:
            self.fail(tree, f"unknown operation {self.found(tree.func)}: {_operations()}")
        form = form_of(tree.func.id)
        for keyword in tree.keywords:
            if form.operation not in (Aggregate, Pick) or keyword.arg != "default":
                self.fail(keyword, f"found '{str(keyword.arg)[:40]}='; expected {form.text}")
        if len(tree.keywords) > 1:
            self.fail(tree.keywords[1], f"a second default: expected {form.text}")
        before = form.text.count(",") + 1 - len(form.reads)
        if len(tree.args) != before + len(form.reads):
            self.fail(tree, f"found {len(tree.args)} arguments in {self.found(tree)}; expected {form.text}")
        detail = self._detail(form, tree)
        children = []
        for place, argument in enumerate(tree.args[before:]):
            child = self._argument(argument, depth + 1)
            self.checked(argument, check_child, form, place, self.names[id(child)], child)
            children.append(child)
        return make(form, children, detail, encoding=encoding)

    def _detail(self, form: Form, tree: ast.Call) -> Any:
        """What an operation has besides what it reads: function, predicate, factors or default."""
        match form.detail:
            case "fn":
                return self._function(form, tree.args[0])
            case "predicate":
                first = tree.args[0]
                if isinstance(first, ast.Name) and first.id not in ("x", "y"):
                    spelling = first.id.removeprefix(PREDICATE)
                    if spelling not in SPELLINGS:
                        known = ", ".join(PREDICATE + name for name in COMPARISONS)
                        self.fail(first, f"unknown predicate {self.found(first)}: there are {known}, and functions")
                    return SPELLINGS[spelling]
                return self._function(form, first)
            case "factors":
                return [self.checked(factor, read_factor, self._literal(factor)) for factor in tree.args[:2]]
            case "which":
                named = tree.args[0]
                which = named.id if isinstance(named, ast.Name) else self._literal(named)
                return self.checked(named, read_which, which), self._default(tree, None)
            case "default":
                return self._default(tree, "usual")
        return "usual"

    def _default(self, tree: ast.Call, usual: Any) -> Any:
        if not tree.keywords:
            return usual
        value = tree.keywords[0].value
        return self.checked(value, read_value, self._literal(value), "a default")

    def _function(self, form: Form, tree: ast.expr) -> Function:
        last = tree.end_lineno or tree.lineno
        size = sum(map(len, self.lines[tree.lineno - 1 : last - 1])) + (tree.end_col_offset or 0) - tree.col_offset
        if size > LONGEST_SOURCE and not isinstance(tree, ast.Dict):
            self.fail(tree, f"a function of {size} characters is too long: at most {LONGEST_SOURCE}")
        return self.checked(tree, check_arity, self.checked(tree, Function.from_tree, tree, form.arity), form)

    def _encoding(self, tree: ast.expr) -> Encoding:
        if not isinstance(tree, ast.Name) or tree.id not in ENCODINGS:
            self.fail(tree, f"found {self.found(tree)}; expected an encoding: {' or '.join(ENCODINGS)}")
        return read_encoding(tree.id)

    def _literal(self, tree: ast.expr) -> Any:
        try:
            return ast.literal_eval(tree)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            self.fail(
                tree, f"found {self.found(tree)}; expected a number, a string, True, False, None or a list of them"
            )


def _operations() -> str:
    return "there are " + ", ".join(form.text for form in FORMS.values())
