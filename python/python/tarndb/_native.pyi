from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any

from typing_extensions import Buffer

import pandas
import polars
import pyarrow

__version__: str

def connect(
    location: str | PathLike[str], *, settings: Mapping[str, str] | None = None, storage: Mapping[str, str] | None = None
) -> Lakehouse:
    """Opens the lake at `location` (a folder, `file:///dir` or `memory://`) and creates it when there is none."""

def read_iceberg(location: str | PathLike[str]) -> Result:
    """The rows of a table of someone else, without a catalog: `location` is the table's folder or one of its metadata files.
    Files that were moved with the folder are found."""

class Lakehouse:
    """An open lake. Also a context manager, which closes it."""

    location: str
    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Result:
        """Runs one SQL statement. `params` are the values of `$1`, `$2`, … or of `$name`."""
    def create_namespace(self, name: str) -> None: ...
    def namespaces(self) -> list[str]: ...
    def tables(self, namespace: str | None = None) -> list[str]:
        """The tables of a namespace, or of all, as `namespace.table`."""
    def drop_table(self, name: str, purge: bool = False) -> None:
        """Removes a table; with `purge`, its files too."""
    def create_table(
        self,
        name: str,
        schema_or_data: Any,
        partition_by: Sequence[str] | None = None,
        sort_by: Sequence[str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Table:
        """Creates a table with the columns of an Arrow schema, or of Arrow data or a list of dicts, which it then holds."""
    def table(self, name: str, version: int | str | None = None, timestamp: datetime | str | None = None) -> Table:
        """A table now, or as a snapshot id, a branch or tag, or a time says."""
    def create_metadata_index(
        self,
        name: str,
        source: str,
        events: str | None = None,
        extract: str | Sequence[str] | None = None,
        *,
        options: Mapping[str, str] | None = None,
    ) -> MetadataIndex:
        """Keeps the tables `name.journal` and `name.inventory` true to the files of the folder, or the objects of the bucket, `source`.
        What is there is in the inventory when this returns, and what happens is followed until the lake is closed. `events` says
        where the bucket's events come from, and `extract` what is learnt from contents, for the table `name.annotations`: `media`,
        `parquet`, `text` and names of functions that are extractors. `options` are the others of `CREATE METADATA INDEX … WITH`."""
    def metadata_index(self, name: str) -> MetadataIndex:
        """The metadata index of this name."""
    def close(self) -> None: ...
    def __enter__(self) -> Lakehouse: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class ObjectContent:
    """The content of an object, as an extractor gets it: a binary file, of which only what is read is fetched."""

    key: str
    version_id: str | None
    size: int
    media_type: str | None
    """What it is by its first bytes, such as `image/png`."""
    closed: bool
    def read(self, size: int | None = None) -> bytes: ...
    def readinto(self, buffer: Buffer) -> int: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...
    def readable(self) -> bool: ...
    def seekable(self) -> bool: ...
    def writable(self) -> bool: ...
    def __enter__(self) -> ObjectContent: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

def _register_extractor(name: str, function: Callable[[ObjectContent], Any]) -> None: ...

class MetadataIndex:
    """A metadata index of a lake: what happens to the files of a folder, or the objects of a bucket, as tables."""

    def start(self) -> None:
        """Follows the source from now on; what happened before is in the tables when this returns."""
    def stop(self) -> None:
        """Ends following, after what is under way is committed. The tables stay."""
    def push(self, event_json: str | bytes | Mapping[str, Any] | Sequence[Any]) -> dict[str, int]:
        """Takes a message about objects of the bucket as its store sends it; how many events were `received`, `applied`, `late`,
        `duplicates`, `ignored` and `dead`. When this returns, they are in the tables."""
    def sync(self) -> dict[str, int]:
        """Brings the tables up to the source now; how many objects were `created`, `overwritten` and `deleted`."""
    def reconcile(self) -> dict[str, int]:
        """Lists the source, and adds the rows to the journal that make the inventory true again."""
    def status(self) -> dict[str, Any]:
        """`name`, `source`, `state` (`Backfilling`, `Active`, `Stopped`, `Failed`), `objects`, `changes`, `annotated`, `listed`,
        `events` (counts), `lag_ms`, `last_error`."""

class Table:
    """A table of a lake. Each call sees the last commit of anyone, unless the table was opened at a version."""

    name: str
    schema: pyarrow.Schema
    properties: dict[str, str]
    current_snapshot_id: int | None
    location: str
    metadata_location: str
    def append(self, data: Any) -> dict[str, int | None]:
        """Adds rows in one commit: anything with `__arrow_c_stream__` or `__arrow_c_array__`, or a list of dicts."""
    def delete(self, where: str) -> dict[str, int]:
        """Deletes the rows for which the SQL condition is true."""
    def scan(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        version: int | str | None = None,
    ) -> Result: ...
    def snapshots(self) -> Result: ...
    def history(self) -> Result: ...
    def files(self) -> Result: ...
    def refs(self) -> Result: ...
    def rewrite_data_files(
        self, strategy: str = "auto", where: str | None = None, progress: None = None, **options: float
    ) -> dict[str, int]:
        """Replaces small and much-deleted files by larger ones, deletes applied. Options are Spark's."""
    def expire_snapshots(
        self, older_than: datetime | str | None = None, retain_last: int | None = None
    ) -> dict[str, int]:
        """Forgets old snapshots and deletes the files that only they used."""
    def remove_orphan_files(
        self, older_than: datetime | str | None = None, dry_run: bool = True, force: bool = False
    ) -> list[str]:
        """Deletes, or only lists, files of the table's folder that nothing refers to."""

class Result:
    """The rows of a statement. Reading them as a stream takes each once; all other ways keep them."""

    schema: pyarrow.Schema
    def arrow(self) -> pyarrow.Table: ...
    def pandas(self) -> pandas.DataFrame: ...
    def polars(self) -> polars.DataFrame: ...
    def fetchall(self) -> list[tuple[Any, ...]]: ...
    def fetchone(self) -> tuple[Any, ...] | None: ...
    def fetch_batches(self) -> pyarrow.RecordBatchReader:
        """The rows as a stream, which is not held in memory."""
    def show(self, limit: int = 20) -> None:
        """Prints the first rows."""
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...
    def __len__(self) -> int: ...

class Error(Exception):
    """The base of all errors of tarndb."""

class InvalidInputError(Error): ...
class NotFoundError(Error): ...
class AlreadyExistsError(Error): ...
class CommitConflictError(Error): ...
class CommitStateUnknownError(Error): ...
class UnavailableError(Error): ...
class ResourcesExhaustedError(Error): ...
class UnsupportedError(Error): ...
class DataInvalidError(Error): ...
class CancelledError(Error): ...
class InternalError(Error): ...
