"""tarndb: an embeddable analytics lakehouse. Apache Iceberg tables with SQL, in your own process."""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from ._native import (
    AlreadyExistsError,
    CancelledError,
    CommitConflictError,
    CommitStateUnknownError,
    DataInvalidError,
    Error,
    InternalError,
    InvalidInputError,
    Lakehouse,
    MetadataIndex,
    NotFoundError,
    ObjectContent,
    ResourcesExhaustedError,
    Result,
    Table,
    UnavailableError,
    UnsupportedError,
    __version__,
    _register_extractor,
    connect,
    read_iceberg,
)

__all__ = [
    "AlreadyExistsError",
    "CancelledError",
    "CommitConflictError",
    "CommitStateUnknownError",
    "DataInvalidError",
    "Error",
    "InternalError",
    "InvalidInputError",
    "Lakehouse",
    "MetadataIndex",
    "NotFoundError",
    "ObjectContent",
    "ResourcesExhaustedError",
    "Result",
    "Table",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
    "connect",
    "extractor",
    "read_iceberg",
]


def extractor(function: _Callable[[ObjectContent], _Any] | None = None, /, *, name: str | None = None) -> _Any:
    """Makes a function an extractor, by which metadata indexes learn something from the content of objects.

    An index uses it when its option `extract` names it: by the function's name, unless `name` says another. It gets an
    `ObjectContent`, a binary file that is read as far as the function reads it, and returns a dict of `str`, `bool`, `int`,
    `float` or `None`, or one of these. The table `annotations` has what it returns in the column `attributes`: `attributes['cat']`,
    or `attributes['cat.score']` for a dict; and the message of an exception in `errors['cat']`. It runs on threads of tarndb, on
    several at once, and has to be there in each process that follows such an index.
    """
    if function is None:
        return lambda function: extractor(function, name=name)
    _register_extractor(name or function.__name__, function)
    return function
