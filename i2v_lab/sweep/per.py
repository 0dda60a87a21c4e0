"""What single values of an axis set besides: `per: {model: {ltx-video: {num_inference_steps: 30}}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from i2v_lab.errors import SweepError, meant
from i2v_lab.sweep.axes import check_names

LENGTH = frozenset(("seconds", "num_frames"))  # both say how long a clip is


def _texts(given: Any) -> Any:
    """`per` as it was written, with the values of axes as texts: YAML reads some of them as numbers."""
    if not isinstance(given, Mapping):
        return given
    return {
        axis: {str(value): fields for value, fields in values.items()} if isinstance(values, Mapping) else values
        for axis, values in given.items()
    }


Per = Annotated[dict[str, dict[str, dict[str, Any]]], BeforeValidator(_texts)]
"""{axis: {value of it, as a label: {field: value}}}"""


def check(per: Per, labels: Mapping[str, Sequence[str]]) -> None:
    """Check `per` against the axes.

    Args:
        labels: {axis: its values in words}.

    Raises:
        SweepError: one line: an unknown axis, value or field; a field that is an axis, or is set by two axes.
    """
    by: dict[str, str] = {}  # which axis sets a field
    for axis, values in per.items():
        if axis not in labels:
            raise SweepError(f"per: {axis}: expected an axis of this sweep; {meant(axis, labels)}")
        for value, fields in values.items():
            if value not in labels[axis]:
                raise SweepError(f"per: {axis}: {value}: expected a value of this axis; {meant(value, labels[axis])}")
            for field in fields:
                check_names("per", [field])
                if field in labels:
                    raise SweepError(f"per: {field}: is an axis too; drop it from per, or drop the axis")
                if by.setdefault(field, axis) != axis:
                    raise SweepError(f"per: {field}: is set per {by[field]} and per {axis}; keep one of them")


def over(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The base with some fields replaced. Of num_frames and seconds, which both say how long a clip is, the new one stays alone."""
    dropped = LENGTH if LENGTH & fields.keys() else frozenset()
    return {**{name: value for name, value in base.items() if name not in dropped}, **fields}


def given(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a clip is made of: the base with some fields replaced, without those that None leaves open."""
    return {name: value for name, value in over(base, fields).items() if value is not None}


def fields_of(per: Per, labels: Mapping[str, str]) -> dict[str, Any]:
    """What `per` sets for a cell with these values, {axis: value in words}."""
    return {name: value for axis, values in per.items() for name, value in values.get(labels.get(axis, ""), {}).items()}


def changed(per: Per, base: Mapping[str, Any], axes: Mapping[str, Sequence[str]]) -> Per:
    """What stays of `per` once a sweep has another base and other axes.

    Args:
        base: the fields that are set for all cells now.
        axes: {axis: its values in words}, all that the sweep has now.
    """
    gone = {*base, *axes}
    found = {
        axis: {
            value: {name: given for name, given in fields.items() if name not in gone}
            for value, fields in values.items()
            if value in axes[axis]
        }
        for axis, values in per.items()
        if axis in axes
    }
    left = {axis: {value: fields for value, fields in values.items() if fields} for axis, values in found.items()}
    return {axis: values for axis, values in left.items() if values}
