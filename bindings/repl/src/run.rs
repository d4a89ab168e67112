use std::io::Write;
use std::time::Instant;

use tarndb::{Error, ErrorKind, Lakehouse};

use crate::Failure;
use crate::command::{self, Next};
use crate::format::Format;

/// A session of the shell.
pub(crate) struct Shell {
    pub(crate) lake: Lakehouse,
    pub(crate) format: Format,
    pub(crate) timer: bool,
}

impl Shell {
    pub(crate) fn new(lake: Lakehouse, format: Format, timer: bool) -> Self {
        Self { lake, format, timer }
    }

    /// Runs SQL statements and dot commands, and ends at the first that fails.
    pub(crate) async fn run(&mut self, text: &str) -> Result<(), Failure> {
        let mut sql = String::new();
        for line in text.lines() {
            if line.trim_start().starts_with('.') && sql.trim().is_empty() {
                if let Next::Quit = command::run(self, line.trim()).await? {
                    return Ok(());
                }
            } else {
                sql.push_str(line);
                sql.push('\n');
                if line.contains(';') && tarndb::ends_statement(&sql) {
                    self.statements(&std::mem::take(&mut sql)).await?;
                }
            }
        }
        self.statements(&sql).await
    }

    pub(crate) async fn run_file(&mut self, file: &str) -> Result<(), Failure> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::new(ErrorKind::NotFound, format!("the file `{file}` cannot be read")).with_source(e))?;
        Box::pin(self.run(&text)).await
    }

    async fn statements(&mut self, sql: &str) -> Result<(), Failure> {
        for statement in tarndb::split_statements(sql)? {
            self.statement(&statement).await?;
        }
        Ok(())
    }

    /// Runs one statement; Ctrl-C cancels it.
    pub(crate) async fn statement(&mut self, statement: &str) -> Result<(), Failure> {
        let started = Instant::now();
        let work = async {
            let rows = self.lake.sql(statement).await?;
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            self.format.print(rows, &mut out).await?;
            out.flush()?;
            Ok::<(), Failure>(())
        };
        tokio::select! {
            result = work => result?,
            _ = tokio::signal::ctrl_c() => {
                return Err(Error::new(ErrorKind::Cancelled, "the statement was cancelled").into());
            }
        }
        if self.timer {
            writeln!(std::io::stderr(), "{:.3} s", started.elapsed().as_secs_f64())?;
        }
        Ok(())
    }
}
