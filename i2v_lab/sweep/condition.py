"""The condition of a sweep: which cells are kept. An expression over a cell's params, evaluated here: it can compute, no more."""

from __future__ import annotations

import ast
from collections.abc import Callable

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError, meant, printable, short
from i2v_lab.sweep.axes import is_number

NAMES = (*ClipParams.model_fields, "height", "width")
NUMBERS = ("height", "width", *filter(is_number, ClipParams.model_fields))
MOST_CHARACTERS = 1000

_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.USub: "-", ast.UAdd: "+"}
_ALLOWED: tuple[type[ast.AST], ...] = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.BinOp, ast.Name, ast.Load, ast.Constant, ast.List,
    ast.Tuple, ast.Set, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, *_SIGNS,
)  # fmt: skip
_BETTER = {ast.BitAnd: "write `and` for &", ast.BitOr: "write `or` for |", ast.Invert: "write `not` for ~",
           ast.Is: "write == for `is`", ast.IsNot: "write != for `is not`"}  # fmt: skip


def condition(text: str) -> Callable[[ClipParams], bool]:
    """A function that says whether a cell is kept.

    Args:
        text: such as `num_inference_steps >= 20 and height * width <= 512 * 512`, or `'running' in prompt`; at most 1,000
            characters. It may hold the fields of ClipParams, height and width in pixels, numbers, texts, lists, comparisons,
            `and`, `or`, `not`, `in`, and `+ - * / // %` between numbers. There are no calls, attributes, powers or other
            names, so a sweep file from a stranger cannot do anything, nor compute for long.

    Raises:
        SweepError: not such an expression; later, from the function, where it cannot be computed.
    """
    # Only nodes of _ALLOWED are in it, and arithmetic is between numbers: evaluated, it reaches nothing and ends at once.
    try:
        code = compile(_parse(text), "where", "eval")
    except (RecursionError, MemoryError):
        raise SweepError(f"where: {short(text)} is nested too deeply; shorten it, or list the values") from None

    def keep(params: ClipParams) -> bool:
        try:
            return bool(eval(code, {"__builtins__": {}}, {name: getattr(params, name) for name in NAMES}))  # noqa: S307
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise SweepError(f"where: {short(text)} cannot be computed: {error}") from None

    return keep


def _parse(text: str) -> ast.Expression:
    if len(text) > MOST_CHARACTERS:
        raise SweepError(f"where: expected at most {MOST_CHARACTERS} characters, got {len(text)}; shorten it, or list the values")
    try:
        tree = ast.parse(text.strip(), "where", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "; write == to compare" if "=" in text and "==" not in text else ""
        raise SweepError(f"where: expected a condition such as guidance_scale > 6 and seed == 1, got {short(text)}: "
                         f"{getattr(error, 'msg', error)}{hint}") from None  # fmt: skip
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            what = _BETTER.get(type(node), f"{type(node).__name__} is not allowed")
            raise SweepError(f"where: expected comparisons of params with and, or, not, got {short(text)}: {what}")
        if isinstance(node, ast.Constant) and not isinstance(node.value, (int, float, str, type(None))):
            raise SweepError(f"where: expected numbers and texts, got {node.value!r} in {short(text)}")
        if isinstance(node, ast.Name) and node.id not in NAMES:
            raise SweepError(f"where: {node.id}: unknown name; {meant(node.id, NAMES)}; write a text in quotes")
    for node in ast.walk(tree):
        if isinstance(node, (ast.BinOp, ast.UnaryOp)) and not isinstance(node.op, ast.Not):
            for side in [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]:
                _check_number(side, _SIGNS[type(node.op)], text)
    return tree


def _check_number(node: ast.expr, sign: str, text: str) -> None:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return
        case ast.Name(id=name) if name in NUMBERS:
            return
        case ast.BinOp() | ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return
    raise SweepError(f"where: expected numbers beside {sign}, got {printable(ast.unparse(node))[:80]} in {short(text)}")
