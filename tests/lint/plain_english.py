"""Check that comments, docstrings, messages and documents read as plain English.

Three rules: no docstring, `#:` comment or help text opens with a question word; the first sentence of a public docstring
has at most MOST_WORDS words; no text contains a phrase of `phrases.txt`. Text between backticks or quotation marks is
skipped, and so is code in documents. A comment `prose: quotation` on a line of a literal or a comment exempts it.

    python tests/lint/plain_english.py [--count] [PATH ...]
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
#: Length of the first sentence of a module's, a class's or a public function's docstring.
MOST_WORDS: Final = 15
EXEMPT: Final = "prose: quotation"

_OPENING: Final = re.compile(r"(What|Who|How|Whether|Where|When|Which)\b")
_HELP: Final = ("help", "short_help", "description")  # arguments of click and msgspec
_SENTENCE: Final = re.compile(r"(.+?[.!?:])(?= |$)")
_QUOTED: Final = re.compile(r"`[^`]*`|\"[^\"]*\"|“[^”]*”|«[^»]*»")
_SQL: Final = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|PRAGMA|CREATE|ALTER|DROP|BEGIN|COMMIT|SET|LOCK|GRANT|SHOW|FLUSH)\b")
_COMMENT_OR_STRING: Final = re.compile(
    r"""\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*""", re.DOTALL
)
#: Values of keys that a person reads in an alert, and comments in files without a parser here.
_YAML_TEXT: Final = re.compile(r"\s*-?\s*(?:summary|description):\s*(?P<text>\S.*)")
_COMMENT: Final = re.compile(r"(?:^|\s)#+\s?(?P<text>\S.*)")
_COMMENTED: Final = (".yml", ".toml", ".cfg", ".sh", ".service", ".socket", "Makefile")


class Text(NamedTuple):
    """A piece of prose: its first line's number and its lines."""

    line: int
    lines: tuple[str, ...]
    is_description: bool = False  # a docstring, a `#:` comment or a help text, whose opening word is checked
    is_public: bool = False  # a docstring whose first sentence has a length limit


class Finding(NamedTuple):
    """A departure from a rule."""

    path: str
    line: int
    rule: str
    words: str
    advice: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: {self.rule} "{self.words}": {self.advice}'


class Phrases:
    """The refused phrases, each with an advice."""

    def __init__(self, listed: str) -> None:
        pairs = [line.split("\t") for line in listed.splitlines() if line and not line.startswith("#")]
        self._advice = [advice for _, advice in pairs]
        self._each = [re.compile(pattern, re.IGNORECASE) for pattern, _ in pairs]
        self._any = re.compile("|".join(f"(?:{pattern})" for pattern, _ in pairs), re.IGNORECASE)

    def find(self, text: str) -> Iterator[tuple[re.Match[str], str]]:
        """Yield each phrase found, with the advice."""
        if not self._any.search(text):
            return
        for pattern, advice in zip(self._each, self._advice, strict=True):
            for found in pattern.finditer(text):
                yield found, advice


def load_phrases(path: Path = ROOT / "tests/lint/phrases.txt") -> Phrases:
    """Read the list of refused phrases."""
    return Phrases(path.read_text())


# -- reading ----------------------------------------------------------------------------------------------------------


def texts_of(path: Path, source: str) -> Iterator[Text]:
    """Yield the prose of a file, by the kind of file. Raises SyntaxError for Python that does not parse."""
    if path.suffix == ".py":
        yield from _python(source, with_messages=path.parts[0] != "tests")
    elif path.suffix == ".md":
        yield from _markdown(source)
    elif path.name.endswith(_COMMENTED):
        for n, line in enumerate(source.splitlines(), 1):
            if EXEMPT not in line and (found := _YAML_TEXT.match(line) or _COMMENT.search(line)):
                yield Text(n, (found["text"],))


def _python(source: str, *, with_messages: bool) -> Iterator[Text]:
    lines = source.splitlines()
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {}
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str()) as constant), *_]:
                    docstrings[constant] = node
    helps = {node.value for node in nodes if isinstance(node, ast.keyword) and node.arg in _HELP}
    inside = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) if name.startswith("test_"):
                yield Text(node.lineno, (name.replace("_", " "),))
                continue
            case ast.Constant(value=str(text)) if node in docstrings:
                owner = docstrings[node]
                public = isinstance(owner, ast.Module) or not owner.name.startswith(("_", "test_"))
                yield Text(node.lineno, tuple(text.splitlines()), is_description=True, is_public=public)
            case ast.Constant(value=str(text)) if node not in inside:
                pass
            case ast.JoinedStr(values=parts):
                text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)
            case _:
                continue
        if not with_messages or node in docstrings or " " not in text.strip() or _SQL.match(text):
            continue
        if not any(EXEMPT in line for line in lines[node.lineno - 1 : node.end_lineno]):
            yield Text(node.lineno, tuple(text.splitlines()), is_description=node in helps)
    yield from _comments(source)


def _comments(source: str) -> Iterator[Text]:
    """Yield each block of whole-line comments, and each comment behind code."""
    block: list[str] = []
    first = last = line = at = 0
    describes = False
    for token in _COMMENT_OR_STRING.finditer(source):
        if token[0][0] != "#" or EXEMPT in token[0]:
            continue
        line += source.count("\n", at, token.start())
        at = token.start()
        whole_line = not source[source.rfind("\n", 0, at) + 1 : at].strip()
        if block and not (whole_line and line == last + 1):
            yield Text(first + 1, tuple(block), is_description=describes)
            block = []
        if not block:
            first, describes = line, token[0].startswith("#:")
        block.append(token[0].lstrip("#: "))
        last = line if whole_line else -1
    if block:
        yield Text(first + 1, tuple(block), is_description=describes)


def _markdown(source: str) -> Iterator[Text]:
    """Yield paragraphs, without fenced code, block quotations and link targets."""
    block: list[str] = []
    first, fence = 1, ""
    for n, line in enumerate([*source.splitlines(), ""], 1):
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            fence = "" if fence else stripped[:3]
            stripped = ""
        elif fence or stripped.startswith(">") or EXEMPT in stripped:
            stripped = ""
        if not stripped:
            if block:
                yield Text(first, tuple(block))
            block = []
            continue
        if not block:
            first = n
        block.append(re.sub(r"\]\([^)]*\)", "]", stripped))


# -- judging ----------------------------------------------------------------------------------------------------------


def check(path: str, text: Text, phrases: Phrases) -> Iterator[Finding]:
    """Yield what a text departs from."""
    lines = [line.strip() for line in text.lines]
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line) + 1
    whole = " ".join(lines)
    blanked = _QUOTED.sub(lambda quoted: "`" + "x" * (len(quoted[0]) - 2) + "`", whole)
    if text.is_description:
        opening = " ".join(lines[: lines.index("")] if "" in lines else lines)
        if found := _OPENING.match(opening):
            yield Finding(path, text.line, "opening", found[0], "open with a verb or a noun phrase")
        if text.is_public:
            found = _SENTENCE.match(_QUOTED.sub("quoted", opening))
            words = len((found[1] if found else opening).split())
            if words > MOST_WORDS:
                yield Finding(path, text.line, "length", f"{words} words", f"at most {MOST_WORDS} in the first sentence")
    for found, advice in phrases.find(blanked):
        yield Finding(path, text.line + bisect_right(starts, found.start()) - 1, "phrase", found[0], advice)


def files(paths: list[str]) -> list[Path]:
    """Return the checked files below these paths, relative to the repository. All by default."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept = []
    for name in sorted(set(listed.stdout.splitlines())):
        path = Path(name)
        if (path.suffix in (".py", ".md") or name.endswith(_COMMENTED)) and (ROOT / path).is_file():
            kept.append(path)
    return kept


def main(arguments: list[str]) -> int:
    """Print the findings and return the exit status: 1 when there is any."""
    paths = [argument for argument in arguments if argument != "--count"]
    phrases = load_phrases()
    findings = [
        finding
        for path in files([str(Path(each).resolve()) for each in paths])
        for text in texts_of(path, (ROOT / path).read_text())
        for finding in check(str(path), text, phrases)
    ]
    if "--count" in arguments:
        folders = Counter("/".join(Path(finding.path).parts[:-1][:3]) or "." for finding in findings)
        for folder, count in sorted(folders.items()):
            print(f"{count:6} {folder}")
    else:
        for finding in findings:
            print(finding)
    by_rule = Counter(finding.rule for finding in findings)
    print(", ".join(f"{by_rule[rule]} {rule}" for rule in sorted(by_rule)) or "plain English: nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
