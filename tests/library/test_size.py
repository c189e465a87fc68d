"""Functions stay short, and Algorithm 1 on one page."""

import ast
import inspect
import io
import pathlib
import textwrap
import tokenize

import pytest

import lookbehind_optax
from lookbehind_optax import _climb

CORE = sorted(pathlib.Path(lookbehind_optax.__file__).parent.glob("*.py"))
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def docstrings(tree):
    """Lines of docstrings, and of strings that stand alone."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }


def code_lines(source):
    """The numbers of lines with code on them."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {
        line
        for token in tokens
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return lines - docstrings(ast.parse(source))


def own_lines(source):
    """The code lines of each function, without those of the functions inside it."""
    lines = code_lines(source)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)

    def span(node):
        return set(range(node.lineno, (node.end_lineno or 0) + 1))

    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, functions):
            own = span(node) & lines
            for inner in ast.walk(node):
                if isinstance(inner, functions) and inner is not node:
                    own -= span(inner)
            found[node.name, node.lineno] = len(own)
    return found


def test_the_counting():
    source = textwrap.dedent(
        '''
        """A module."""

        # A comment.
        def outer(x):
            """A function.

            With a docstring.
            """
            text = """of
            two"""

            def inner(y):  # 2 lines
                return y

            return inner(x), text
        '''
    )
    assert len(code_lines(source)) == 6
    assert own_lines(source) == {("outer", 5): 4, ("inner", 13): 2}


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_no_function_is_long(path):
    long = {name: n for name, n in own_lines(path.read_text()).items() if n > 40}
    assert not long


def test_algorithm_1_fits_a_page_and_asks_for_no_method():
    """Whatever the direction and the descent are makes no difference to it."""
    source = textwrap.dedent(inspect.getsource(_climb._algorithm_1))
    assert len(code_lines(source)) < 45
    tests = [
        ast.unparse(node.test)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.If, ast.IfExp))
    ]
    assert set(tests) <= {"reuse_gradients", "value is None"}
