/* Makes a lake in the folder that is given, fills a table and reads it back. */
#include <stdio.h>
#include <string.h>

#include "tarndb.h"

static int failed(tarndb_error *error) {
  if (error == NULL) return 0;
  fprintf(stderr, "error %d: %s\n", (int)tarndb_error_get_kind(error), tarndb_error_get_message(error));
  tarndb_error_free(error);
  return 1;
}

int main(int argc, char **argv) {
  tarndb_lakehouse *lake = NULL;
  struct ArrowArrayStream rows;
  struct ArrowArray batch;
  int64_t sum = 0;
  tarndb_error *error;

  if (argc != 2) return 2;
  if (failed(tarndb_lakehouse_connect(argv[1], &lake))) return 1;
  if (failed(tarndb_lakehouse_sql(lake, "CREATE TABLE numbers (n BIGINT NOT NULL)", NULL))) return 1;
  if (failed(tarndb_lakehouse_sql(lake, "INSERT INTO numbers VALUES (1), (2), (39)", NULL))) return 1;
  if (failed(tarndb_lakehouse_sql(lake, "SELECT n FROM numbers", &rows))) return 1;
  for (;;) {
    if (rows.get_next(&rows, &batch) != 0) {
      fprintf(stderr, "%s\n", rows.get_last_error(&rows));
      return 1;
    }
    if (batch.release == NULL) break;
    {
      const int64_t *values = (const int64_t *)batch.children[0]->buffers[1] + batch.children[0]->offset;
      int64_t i;
      for (i = 0; i < batch.length; i++) sum += values[i];
    }
    batch.release(&batch);
  }
  rows.release(&rows);
  printf("sum %d\n", (int)sum);

  error = tarndb_lakehouse_sql(lake, "SELECT * FROM missing", &rows);
  if (error == NULL || tarndb_error_get_kind(error) != TARNDB_NOT_FOUND) return 1;
  printf("kind %d: %s\n", (int)tarndb_error_get_kind(error),
         strstr(tarndb_error_get_message(error), "missing") ? "it names the table" : "it does not name the table");
  tarndb_error_free(error);
  tarndb_error_free(NULL);
  tarndb_lakehouse_free(lake);
  tarndb_lakehouse_free(NULL);
  printf("version %s\n", tarndb_version());
  return 0;
}
