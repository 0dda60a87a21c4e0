"""The condition of a sweep: which cells are kept. An expression over a cell's params, evaluated here: it can compute, no more."""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError

NAMES = (*ClipParams.model_fields, "height", "width")
MOST_CHARACTERS = 1000

_SIGNS: dict[type[ast.AST], tuple[str, Callable[[Any], Any]]] = {ast.USub: ("-", operator.neg), ast.UAdd: ("+", operator.pos)}
_ARITHMETIC: dict[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add), ast.Sub: ("-", operator.sub), ast.Mult: ("*", operator.mul), ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv), ast.Mod: ("%", operator.mod),
}  # fmt: skip
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda one, many: one in many, ast.NotIn: lambda one, many: one not in many,
}  # fmt: skip
_ALLOWED: tuple[type[ast.AST], ...] = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.BinOp, ast.Compare, ast.Name, ast.Load, ast.Constant,
    ast.List, ast.Tuple, ast.Set, *_SIGNS, *_ARITHMETIC, *_COMPARISONS,
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
    tree = _parse(text)

    def keep(params: ClipParams) -> bool:
        try:
            return bool(_value(tree, params))
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise SweepError(f"where: {_short(text)} cannot be computed: {error}") from None

    return keep


def _parse(text: str) -> ast.expr:
    if len(text) > MOST_CHARACTERS:
        raise SweepError(f"where: expected at most {MOST_CHARACTERS} characters, got {len(text)}; shorten it, or list the values")
    try:
        tree = ast.parse(text.strip(), "where", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "; write == to compare" if "=" in text and "==" not in text else ""
        raise SweepError(f"where: expected a condition such as guidance_scale > 6 and seed == 1, got {_short(text)}: "
                         f"{getattr(error, 'msg', error)}{hint}") from None  # fmt: skip
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            what = _BETTER.get(type(node), f"{type(node).__name__} is not allowed")
            raise SweepError(f"where: expected comparisons of params with and, or, not, got {_short(text)}: {what}")
        if isinstance(node, ast.Constant) and not isinstance(node.value, (int, float, str, type(None))):
            raise SweepError(f"where: expected numbers and texts, got {node.value!r} in {_short(text)}")
        if isinstance(node, ast.Name) and node.id not in NAMES:
            near = difflib.get_close_matches(node.id, NAMES, n=1)
            raise SweepError(f"where: {node.id}: unknown name; " + (f"did you mean {near[0]}?" if near else
                             f"known: {', '.join(NAMES)}; write a text in quotes"))  # fmt: skip
    return tree.body


def _value(node: ast.expr, params: ClipParams) -> Any:  # noqa: PLR0911 - one for each kind of node
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return getattr(params, node.id)
        case ast.List() | ast.Tuple() | ast.Set():
            return [_value(item, params) for item in node.elts]
        case ast.BoolOp():
            value: Any = None
            for item in node.values:
                value = _value(item, params)
                if bool(value) is isinstance(node.op, ast.Or):
                    break
            return value
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, params)
        case ast.UnaryOp():
            sign, signed = _SIGNS[type(node.op)]
            return signed(_number(node.operand, params, sign))
        case ast.BinOp():
            sign, result = _ARITHMETIC[type(node.op)]
            return result(_number(node.left, params, sign), _number(node.right, params, sign))
        case ast.Compare():
            left = _value(node.left, params)
            for operation, side in zip(node.ops, node.comparators, strict=True):
                right = _value(side, params)
                if not _COMPARISONS[type(operation)](left, right):
                    return False
                left = right
            return True
    raise TypeError(f"{type(node).__name__} is not allowed")


def _number(node: ast.expr, params: ClipParams, sign: str) -> Any:
    value = _value(node, params)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected numbers beside {sign}, got {_short(value)} for {_short(ast.unparse(node))}")
    return value


def _short(value: Any, limit: int = 100) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
