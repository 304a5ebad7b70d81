"""Errors in input, said so that a person can mend them: which field, what it holds, what is wrong, what to give."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one field of an input."""

    field: str
    value: Any
    problem: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """The form in which HTTP answers carry it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.field}: {self.problem} (got {self.value!r}). {self.fix}"


class InputError(Exception):
    """An input was refused; `problems` says why, one by one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Turn pydantic's errors into ours; the fix comes from the field's own description and example."""
    return [_problem(dict(item), model) for item in error.errors(include_url=False, include_context=False)]


def _problem(item: dict[str, Any], model: type[BaseModel]) -> Problem:
    location = item["loc"]
    field = ".".join(str(part) for part in location) or "(whole input)"
    if item["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = sorted(_fields(_model_at(model, location[:-1])))
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        fix = f"Did you mean {close[0]!r}?" if close else f"Remove it; known here: {', '.join(known)}."
        return Problem(field, _short(item["input"]), "is not known", fix)
    if item["type"] == "missing":
        return Problem(field, None, "is missing", _fix(model, location))
    message = item["msg"].removeprefix("Value error, ")
    return Problem(field, _short(item["input"]), message[:1].lower() + message[1:], _fix(model, location))


def _fix(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    described = [info for info in _fields_along(model, location) if info.description]
    if not described:
        return "See the documentation of this input."
    info = described[-1]
    example = f", for example {info.examples[0]!r}" if info.examples else ""
    return f"Give {info.description}{example}."


def _fields_along(model: type[BaseModel], location: Sequence[int | str]) -> Iterator[FieldInfo]:
    current: type[Any] | None = model
    for part in location:
        if current is not None and part in _fields(current):
            info = _fields(current)[str(part)]
            yield info
            current = _model_in(info.annotation)


def _fields(model: type[Any]) -> dict[str, FieldInfo]:
    """The fields of a model or of a pydantic dataclass."""
    fields: dict[str, FieldInfo] = model.__pydantic_fields__
    return fields


def _model_at(model: type[Any], location: Sequence[int | str]) -> type[Any]:
    for info in _fields_along(model, location):
        model = _model_in(info.annotation) or model
    return model


def _model_in(annotation: Any) -> type[Any] | None:
    """The model inside an annotation such as `Model`, `list[Model]`, `dict[str, Model]` or `Model | None`."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_pydantic_dataclass(annotation)):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)


def _short(value: Any) -> Any:
    """Keep an error readable when the wrong value is long."""
    return value if len(text := repr(value)) <= 200 else f"{text[:200]}…"
