"""tarndb: an embeddable analytics lakehouse. Apache Iceberg tables with SQL, in your own process."""

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
    NotFoundError,
    ResourcesExhaustedError,
    Result,
    Table,
    UnavailableError,
    UnsupportedError,
    __version__,
    connect,
)


def read_iceberg(location: str) -> Result:
    """A table of someone else, without a catalog: not supported yet."""
    raise UnsupportedError(f"read_iceberg, of {location!r}, is not supported yet")


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
    "NotFoundError",
    "ResourcesExhaustedError",
    "Result",
    "Table",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
    "connect",
    "read_iceberg",
]
