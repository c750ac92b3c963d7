"""What the checks of shapes cost where there is no shape to check.

jaxtyping wraps every function of the packages that pytest's settings name, and binds and checks its arguments twice: tens
of microseconds a call, which is half of what a tiny model's run takes. Where no annotation names a shape, beartype alone
checks the same types in a microsecond.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping

whole_check = jaxtyping.jaxtyped


def names_a_shape(annotation: Any) -> bool:
    """Whether jaxtyping has something to say of it; of what is text still, that cannot be told."""
    if isinstance(annotation, list | tuple):
        return any(map(names_a_shape, annotation))
    if isinstance(annotation, str):
        return True
    is_shaped = isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray)
    return is_shaped or names_a_shape(get_args(annotation))


def jaxtyped(fn: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """`jaxtyping.jaxtyped`, save that functions and data classes without a shape are left to the type checker."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(fn):
        if dataclasses.is_dataclass(fn) and "__init__" in vars(fn):
            fn.__init__ = jaxtyped(fn.__init__, typechecker=typechecker)
        return fn
    if not inspect.isfunction(fn) or inspect.isgeneratorfunction(fn) or names_a_shape([*fn.__annotations__.values()]):
        return whole_check(fn, typechecker=typechecker)
    checked = typechecker(fn)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs) if jaxtyping.config.jaxtyping_disable else checked(*args, **kwargs)

    return call


def install() -> None:
    """For every module that is imported from here on."""
    jaxtyping.jaxtyped = jaxtyped
