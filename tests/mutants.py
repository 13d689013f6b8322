"""Measure what share of random one-token mutants each module's own test catches.

A mutant is a module with one operator, constant, name or statement changed. Docstrings, comments, annotations, `__slots__` and
texts of errors and logs are left alone: such changes break nothing. Mutants are tried in copies of the tree, never in the working
tree; the seed decides which. The exit status is 1 below LEAST_SHARE.

    make mutants MUTANTS="--seed 2 --count 110 --paths gw/call gw/protocol"
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
LEAST_SHARE: Final = 0.95
#: A mutant that hangs is caught. A test file takes seconds.
BOUND_S: Final = 120.0
AT_ONCE: Final = 2

_SWAPS: Final = (
    *(("<", "<="), ("<=", "<"), (">", ">="), (">=", ">"), ("==", "!="), ("!=", "=="), ("<<", ">>"), (">>", "<<")),
    *(("and", "or"), ("or", "and"), ("not in", "in"), ("in", "not in"), ("is not", "is"), ("is", "is not")),
    *(("+", "-"), ("-", "+"), ("*", "//"), ("//", "*"), ("/", "*"), ("%", "+"), ("**", "*"), ("&", "|"), ("|", "&"), ("^", "|")),
    *(("+=", "-="), ("-=", "+="), ("*=", "//="), ("|=", "&="), ("&=", "|="), ("^=", "|="), ("min", "max"), ("max", "min")),
)
_SWAPPED: Final = dict(_SWAPS)
_OPERATOR: Final = re.compile(r"not\s+in\b|is\s+not\b|(?:in|is|and|or)\b|<<|>>|//|\*\*|[<>=!]=|[-+*/%&|^<>]")


class Mutant(NamedTuple):
    """A change of one module: the bytes from `start` to `end` become `text`."""

    path: str
    start: int
    end: int
    text: str

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def diff(self, source: bytes) -> str:
        """Return the changed line, before and after."""
        line = source.count(b"\n", 0, self.start)
        before = source.decode().splitlines()[line].strip()
        after = self.apply(source).decode().splitlines()[line].strip()
        return f"{self.path}:{line + 1}: {before}  ->  {after}"


class _Finder(ast.NodeVisitor):
    """Collects the mutants of one module."""

    def __init__(self, path: str, source: bytes, rng: random.Random) -> None:
        self.path, self.source, self.rng = path, source, rng
        self.mutants: list[Mutant] = []
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._locals: list[str] = []
        self._attributes: list[str] = []
        self._in_message = False

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.mutants.append(Mutant(self.path, *self._span(node), text))

    def _operator(self, start: int, end: int) -> None:
        """Swap the operator between two operands."""
        if found := _OPERATOR.search(self.source[start:end].decode()):
            swapped = _SWAPPED[re.sub(r"\s+", " ", found[0])]
            self.mutants.append(Mutant(self.path, start + found.start(), start + found.end(), swapped))

    def _other(self, name: str, names: list[str]) -> Iterator[str]:
        others = sorted(set(names) - {name, "self", "cls", "_"})
        if name in names and name not in ("self", "cls") and others:
            yield self.rng.choice(others)

    # -- left alone -----------------------------------------------------------------------------------------------------

    def _body(self, body: list[ast.stmt]) -> None:
        for statement in body:
            match statement:
                case ast.Expr(value=ast.Constant()) | ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
                    continue  # a docstring, a log line
                case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
                    self._replace(statement, "pass")
                case ast.Raise() | ast.Continue() | ast.Break() | ast.Delete() | ast.AugAssign():
                    self._replace(statement, "pass")
            self.visit(statement)

    def generic_visit(self, node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            if name in ("body", "orelse", "finalbody") and isinstance(value, list):
                self._body(value)
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._attributes = (
            self._attributes,
            [
                found.attr
                for found in ast.walk(node)
                if isinstance(found, ast.Attribute) and isinstance(found.value, ast.Name) and found.value.id == "self"
                if isinstance(found.ctx, ast.Store)
            ],
        )
        self._body(node.body)
        self._attributes = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._locals = (
            self._locals,
            [arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)]
            + [found.id for found in ast.walk(node) if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store)],
        )
        self.generic_visit(node)
        self._locals = outer

    def visit_Assign(self, node: ast.Assign) -> None:
        if not (isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__slots__"):
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._in_message = True
        self.generic_visit(node)
        self._in_message = False

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Text for people."""

    # -- changed --------------------------------------------------------------------------------------------------------

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not (isinstance(node.value, ast.Name) and node.value.id == "Literal"):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if not (isinstance(node.func, ast.Name) and node.func.id == "TypeVar"):
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right in pairwise(operands):
            self._operator(self._span(left)[1], self._span(right)[0])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in pairwise(node.values):
            self._operator(self._span(left)[1], self._span(right)[0])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        names = [found.id for found in ast.walk(node) if isinstance(found, ast.Name)]
        if isinstance(node.op, ast.BitOr) and any(name.lstrip("_")[:1].isupper() and not name.isupper() for name in names):
            return  # a union of types
        self._operator(self._span(node.left)[1], self._span(node.right)[0])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        start, end = self._span(node.target)[1], self._span(node.value)[0]
        found = re.search(r"\S+=", self.source[start:end].decode())
        if found and found[0] in _SWAPPED:
            self.mutants.append(Mutant(self.path, start + found.start(), start + found.end(), _SWAPPED[found[0]]))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        start, _ = self._span(node)
        length = len("not ") if isinstance(node.op, ast.Not) else 1
        self.mutants.append(Mutant(self.path, start, start + length, ""))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            for other in self._other(node.id, self._locals):
                self._replace(node, other)
            if node.id in ("min", "max"):
                self._replace(node, _SWAPPED[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id == "self" and isinstance(node.ctx, ast.Load):
            for other in self._other(node.attr, self._attributes):
                self._replace(node, f"self.{other}")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        match node.value:
            case bool(value):
                self._replace(node, str(not value))
            case int(value):
                self._replace(node, str(value + 1))
                self._replace(node, f"({value - 1})")
            case float(value):
                self._replace(node, str(value * 2 or 1.0))
            case str(text) if not (self._in_message and " " in text):
                self._replace(node, '""' if text else '"x"')
            case bytes(data):
                self._replace(node, 'b""' if data else 'b"x"')


def test_of(path: Path) -> Path:
    """Return a module's own test file, relative to the repository."""
    return Path("tests", *path.parts[:-1], f"test_{path.name}")


def find(paths: list[str], count: int, seed: int) -> list[Mutant]:
    """Return `count` mutants of the modules below these paths, chosen by the seed."""
    rng = random.Random(seed)
    found: list[Mutant] = []
    files = {file for each in paths for file in ([ROOT / each] if each.endswith(".py") else (ROOT / each).rglob("*.py"))}
    for path in sorted(files):
        if path.name != "__init__.py":
            source = path.read_bytes()
            finder = _Finder(str(path.relative_to(ROOT)), source, rng)
            finder.visit(ast.parse(source))
            found += finder.mutants
    return sorted(rng.sample(found, min(count, len(found))))


def passes(tree: Path, test: Path) -> bool:
    """Run one test file in a copy of the tree. Returns False if it fails or exceeds BOUND_S."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_PROFILE": "first_failure"}
    run = subprocess.Popen(
        [sys.executable, "tests/run.py", str(test), "-x", "-q", "--no-header"],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return run.wait(BOUND_S) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


class Trial:
    """Tries mutants in AT_ONCE copies of the tree."""

    def __init__(self, folder: Path, mutants: list[Mutant]) -> None:
        self._trees: SimpleQueue[Path] = SimpleQueue()
        for n in range(AT_ONCE):
            for name in ("gw", "metrics", "tests", "deploy"):
                shutil.copytree(ROOT / name, folder / str(n) / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
            shutil.copy(ROOT / "pyproject.toml", folder / str(n))
            self._trees.put(folder / str(n))
        self._mutants = mutants
        self._done = 0

    def check_tests(self) -> list[str]:
        """Return the test files that are missing, or fail without a mutant."""
        tests = sorted({test_of(Path(mutant.path)) for mutant in self._mutants})
        tree = self._trees.get()
        bad = [str(test) for test in tests if not (tree / test).is_file() or not passes(tree, test)]
        self._trees.put(tree)
        return bad

    def is_caught(self, mutant: Mutant) -> bool:
        """Change one file of a copy, run its test, and restore the file."""
        tree = self._trees.get()
        file = tree / mutant.path
        source = file.read_bytes()
        try:
            file.write_bytes(mutant.apply(source))
            return not passes(tree, test_of(Path(mutant.path)))
        finally:
            file.write_bytes(source)
            self._trees.put(tree)
            self._done += 1
            if sys.stderr.isatty():
                end = "\n" if self._done == len(self._mutants) else ""
                print(f"\r{self._done} of {len(self._mutants)} mutants", end=end, file=sys.stderr, flush=True)


def try_all(mutants: list[Mutant]) -> list[bool]:
    """Return for each mutant whether its module's test catches it.

    Raises: ValueError for a test file that is missing, or fails without a mutant.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        trial = Trial(Path(folder), mutants)
        if bad := trial.check_tests():
            raise ValueError(f"these test files are missing, or fail without a mutant: {', '.join(bad)}")
        try:
            return list(pool.map(trial.is_caught, mutants))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def main() -> int:
    """Try the mutants, print the survivors and a table. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure what share of random one-token mutants each module's own test catches.")
    parser.add_argument("--paths", nargs="+", default=["gw/call", "gw/protocol"], help="modules or folders")
    parser.add_argument("--count", type=int, default=110, help="number of mutants, by default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="chooses the mutants, by default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    mutants = find(options.paths, options.count, options.seed)
    lines = [mutant.diff((ROOT / mutant.path).read_bytes()) for mutant in mutants]
    try:
        caught = list(zip(mutants, try_all(mutants), strict=True))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    survivors = [line for line, (_, is_caught) in zip(lines, caught, strict=True) if not is_caught]
    n_caught = len(mutants) - len(survivors)
    if options.json:
        print(json.dumps({"seed": options.seed, "mutants": len(mutants), "caught": n_caught, "survivors": survivors}, indent=2))
    else:
        print("".join(f"{line}\n" for line in survivors))
        for path in sorted({mutant.path for mutant in mutants}):
            each = [is_caught for mutant, is_caught in caught if mutant.path == path]
            print(f"{path:36}{sum(each):4} of {len(each):3}")
        print(f"{n_caught} of {len(mutants)} mutants caught; at least {LEAST_SHARE:.0%} are needed")
    return 0 if n_caught >= LEAST_SHARE * len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
