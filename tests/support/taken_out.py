"""One check taken out of the product while it runs: an entry of a list of checks, or one statement of a function."""

import __future__

import ast
import dataclasses
import inspect
from functools import cached_property
from types import CodeType, ModuleType


@dataclasses.dataclass(frozen=True)
class Listed:
    """A check in a list of a module."""

    module: ModuleType
    list: str
    check: str

    def __str__(self):
        return self.check.strip("_")

    def take_out(self, monkeypatch):
        whole = getattr(self.module, self.list)
        left = tuple(one for one in whole if one.__name__ != self.check)
        assert len(left) == len(whole) - 1
        monkeypatch.setattr(self.module, self.list, left)


@dataclasses.dataclass(frozen=True)
class Statement:
    """The n-th statement of a function or method whose first line is `text`."""

    module: ModuleType
    function: str
    text: str
    nth: int = 1

    def __str__(self):
        return f"{self.module.__name__.rpartition('.')[2]}.{self.function}: {self.text} {self.nth}".replace("\\", "")

    def take_out(self, monkeypatch):
        """The function goes on behind the statement. Whoever holds the function has it so: its code is exchanged."""
        node = next(found for name, found in functions(self.module) if name == self.function)
        taken = _Taken(self)
        taken.visit(node)
        assert taken.left <= 0, f"{self} is not in the code"
        node.decorator_list = []
        compiled = compile(
            ast.fix_missing_locations(ast.Module([node], [])), self.module.__file__, "exec", __future__.annotations.compiler_flag
        )  # fmt: skip
        [code] = [const for const in compiled.co_consts if isinstance(const, CodeType)]
        monkeypatch.setattr(_found(self.module, self.function), "__code__", code)


class _Taken(ast.NodeTransformer):
    def __init__(self, wanted):
        self.wanted, self.left = wanted, wanted.nth

    def visit(self, node):
        if isinstance(node, ast.stmt) and _first_line(node) == self.wanted.text:
            self.left -= 1
            if self.left == 0:
                return ast.Pass()
        return self.generic_visit(node)


def _first_line(node):
    return ast.unparse(node).partition("\n")[0]


def _found(module, name):
    found = module
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    return found.func if isinstance(found, cached_property) else found


def functions(module):
    """Every function and method of a module: its name, and its syntax tree."""
    tree = ast.parse(inspect.getsource(module))
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for one in inner:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{node.name}.{one.name}" if isinstance(node, ast.ClassDef) else one.name, one


def raises(module):
    """Every place where a module refuses something, in the order of its code."""
    for name, node in functions(module):
        seen = {}
        for text in _refusals(node):
            seen[text] = seen.get(text, 0) + 1
            yield Statement(module, name, text, seen[text])


def _refusals(node):
    if isinstance(node, ast.Raise):
        yield _first_line(node)
    for inner in ast.iter_child_nodes(node):
        yield from _refusals(inner)
