"""The condition of a sweep: which cells are kept. A Python expression over a cell's params that can compute and nothing else."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable
from types import CodeType

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import SweepError

NAMES = (*ClipParams.model_fields, "height", "width")

_ALLOWED: tuple[type[ast.AST], ...] = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub, ast.Mult,
    ast.Div, ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
    ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Set,
)  # fmt: skip
_BETTER = {ast.BitAnd: "write `and` for &", ast.BitOr: "write `or` for |", ast.Invert: "write `not` for ~",
           ast.Is: "write == for `is`", ast.IsNot: "write != for `is not`"}  # fmt: skip


def condition(text: str) -> Callable[[ClipParams], bool]:
    """A function that says whether a cell is kept.

    Args:
        text: such as `num_inference_steps >= 20 and height * width <= 512 * 512`, or `'running' in prompt`. Names are
            the fields of ClipParams, and height and width in pixels. There are no calls, attributes or names beside
            these, so a sweep file from a stranger cannot do anything.

    Raises:
        SweepError: not such an expression; later, from the function, where it cannot be computed.
    """
    code, names = _compile(text)

    def keep(params: ClipParams) -> bool:
        try:
            return bool(eval(code, {"__builtins__": {}}, {name: getattr(params, name) for name in names}))  # noqa: S307
        except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
            raise SweepError(f"where: {text!r} cannot be computed: {error}") from None

    return keep


def _compile(text: str) -> tuple[CodeType, list[str]]:
    try:
        tree = ast.parse(text.strip(), "where", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "; write == to compare" if "=" in text and "==" not in text else ""
        raise SweepError(f"where: expected a condition such as guidance_scale > 6 and seed == 1, got {text!r}: "
                         f"{getattr(error, 'msg', error)}{hint}") from None  # fmt: skip
    names = []
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            what = _BETTER.get(type(node), f"a {type(node).__name__} cannot stand there")
            raise SweepError(f"where: expected comparisons of params with and, or, not, got {text!r}: {what}")
        if isinstance(node, ast.Name):
            if node.id not in NAMES:
                near = difflib.get_close_matches(node.id, NAMES, n=1)
                raise SweepError(f"where: {node.id}: unknown name; " + (f"did you mean {near[0]}?" if near else
                                 f"known: {', '.join(NAMES)}; a text stands in quotes"))  # fmt: skip
            names.append(node.id)
        if isinstance(node, ast.BinOp) and any(isinstance(side, ast.Constant) and isinstance(side.value, (str, bytes))
                                               for side in (node.left, node.right)):  # fmt: skip
            raise SweepError(f"where: expected numbers to reckon with, got a text in {text!r}")
    return compile(tree, "where", "eval"), names
