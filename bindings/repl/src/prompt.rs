use std::io::Write;
use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tarndb::Error;

use crate::command::{self, Next};
use crate::run::Shell;
use crate::{Failure, report};

/// Where the history of the prompt is kept between sessions.
fn history_file() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".tarndb_history"))
}

/// Reads statements from a terminal until Ctrl-D or `.quit`. A statement ends with `;` and may have several lines; one that
/// fails is reported, and the prompt goes on.
pub(crate) async fn run(shell: &mut Shell) -> Result<(), Failure> {
    let unusable = |e: ReadlineError| Error::new(tarndb::ErrorKind::Unavailable, "the terminal cannot be used").with_source(e);
    let mut editor = DefaultEditor::new().map_err(unusable)?;
    let history = history_file();
    if let Some(history) = &history {
        // The first session has none.
        let _ = editor.load_history(history);
    }
    writeln!(
        std::io::stdout(),
        "tarndb {}, {}. Statements end with `;`, .help helps.",
        env!("CARGO_PKG_VERSION"),
        shell.lake.location()
    )?;
    let mut sql = String::new();
    loop {
        match editor.readline(if sql.is_empty() { "tarndb> " } else { "     -> " }) {
            Ok(line) if sql.is_empty() && line.trim().is_empty() => {}
            Ok(line) if sql.is_empty() && line.trim_start().starts_with('.') => {
                let _ = editor.add_history_entry(&line);
                match command::run(shell, line.trim()).await {
                    Ok(Next::Quit) => break,
                    other => shown(other.map(|_| ()))?,
                }
            }
            Ok(line) => {
                sql.push_str(&line);
                sql.push('\n');
                if tarndb::ends_statement(&sql) {
                    let text = std::mem::take(&mut sql);
                    let _ = editor.add_history_entry(text.trim());
                    shown(shell.run(&text).await)?;
                }
            }
            Err(ReadlineError::Interrupted) => sql.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(unusable(error).into()),
        }
    }
    if let Some(history) = &history {
        let _ = editor.save_history(history);
    }
    Ok(())
}

fn shown(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(Failure::Error(error)) => {
            report(&error.report());
            Ok(())
        }
        other => other,
    }
}
