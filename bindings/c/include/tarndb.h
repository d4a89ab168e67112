#ifndef TARNDB_H
#define TARNDB_H

#include <stdint.h>

/* The Arrow C stream interface, as Arrow's specification gives it. */
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};

#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

struct ArrowArrayStream {
  int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
  int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
  const char *(*get_last_error)(struct ArrowArrayStream *);
  void (*release)(struct ArrowArrayStream *);
  void *private_data;
};

#endif


/**
 * What the caller can do about an error.
 */
typedef enum {
  /**
   * The request is wrong: change it.
   */
  TARNDB_INVALID_INPUT = 1,
  /**
   * The named thing does not exist.
   */
  TARNDB_NOT_FOUND = 2,
  /**
   * The named thing exists already.
   */
  TARNDB_ALREADY_EXISTS = 3,
  /**
   * Another writer changed what this depends on: run it again.
   */
  TARNDB_COMMIT_CONFLICT = 4,
  /**
   * Whether the commit took effect is not known: look before trying again.
   */
  TARNDB_COMMIT_STATE_UNKNOWN = 5,
  /**
   * Storage or catalog could not be reached: try again later.
   */
  TARNDB_UNAVAILABLE = 6,
  /**
   * A limit was met: free some disk, memory or time.
   */
  TARNDB_RESOURCES_EXHAUSTED = 7,
  /**
   * tarndb does not offer this.
   */
  TARNDB_UNSUPPORTED = 8,
  /**
   * Stored data is missing or damaged.
   */
  TARNDB_DATA_INVALID = 9,
  /**
   * The caller cancelled the operation.
   */
  TARNDB_CANCELLED = 10,
  /**
   * A defect in tarndb.
   */
  TARNDB_INTERNAL = 11,
} tarndb_error_kind;

/**
 * An error: a kind and a message.
 */
typedef struct tarndb_error tarndb_error;

/**
 * An open lake.
 */
typedef struct tarndb_lakehouse tarndb_lakehouse;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, a static string.
 */
const char *tarndb_version(void);

/**
 * Opens the lake at `location` (a folder, file:///dir or memory://) and creates it when there is none.
 *
 * # Safety
 * `location` is a NUL-terminated string, `out` points at a place for the handle.
 */
tarndb_error *tarndb_lakehouse_connect(const char *location,
                                       tarndb_lakehouse **out);

/**
 * Runs one SQL statement. Its rows come through `out`, an uninitialised or released stream, which the caller releases;
 * `out` may be NULL when the rows are not wanted.
 *
 * # Safety
 * `lake` is an open handle, `sql` a NUL-terminated string, `out` NULL or a place for a stream.
 */
tarndb_error *tarndb_lakehouse_sql(const tarndb_lakehouse *lake,
                                   const char *sql,
                                   struct ArrowArrayStream *out);

/**
 * Closes a lake. Streams that it gave stay usable.
 *
 * # Safety
 * `lake` is NULL or a handle that is not used any more.
 */
void tarndb_lakehouse_free(tarndb_lakehouse *lake);

/**
 * The kind of an error.
 *
 * # Safety
 * `error` is an error of this library.
 */
tarndb_error_kind tarndb_error_get_kind(const tarndb_error *error);

/**
 * The message of an error, which lives as long as the error.
 *
 * # Safety
 * `error` is an error of this library.
 */
const char *tarndb_error_get_message(const tarndb_error *error);

/**
 * Frees an error.
 *
 * # Safety
 * `error` is NULL or an error that is not used any more.
 */
void tarndb_error_free(tarndb_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TARNDB_H */
