"""Docstrings begin with a verb or the thing's own noun, never with a question."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("segment_fetch", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
QUESTION = re.compile(r"(?:What|Whether|How|Why|Which|Where|When)\b")


def texts(path: Path) -> list[str]:
    """Return the docstrings of a file: of the module, its classes, functions and constants."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append(ast.get_docstring(node))
        if isinstance(node, (ast.Module, ast.ClassDef)):
            strings = (each.value for each in node.body if isinstance(each, ast.Expr))
            found += [each.value for each in strings if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return [text for text in found if text]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_docstring_begins_with_a_question(path: Path) -> None:
    assert [text[:60] for text in texts(path) if QUESTION.match(text.strip())] == []
