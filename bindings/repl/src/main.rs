//! The tarndb SQL shell.

mod command;
mod format;
mod prompt;
mod run;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tarndb::{Error, Lakehouse};

use format::Format;
use run::Shell;

/// SQL over a lake of Apache Iceberg tables.
#[derive(Debug, Parser)]
#[command(name = "tarndb", version, about)]
struct Arguments {
    /// The lake: a folder, or memory://. In memory unless given.
    location: Option<String>,
    /// Runs SQL and leaves. Can be repeated.
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// Runs the SQL of a file and leaves. Can be repeated; runs after -c.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// How rows are printed: table, csv, json, ndjson, markdown or vertical.
    #[arg(long, default_value = "table")]
    format: Format,
    /// Sets a session option before anything runs.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Prints how long each statement took, to stderr.
    #[arg(long)]
    timer: bool,
}

fn main() -> ExitCode {
    tarndb_allocator::set_up();
    // Commands of their own, whose arguments are others.
    if let Some(command) = std::env::args().nth(1).filter(|first| is_command(first)) {
        return refuse(&command);
    }
    let arguments = Arguments::parse();
    if let Some(command) = arguments.location.as_deref().filter(|location| is_command(location)) {
        return refuse(command);
    }
    let runtime = match tarndb_runtime::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&format!("no runtime could be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(start(arguments));
    // A cancelled statement may still be busy; nothing waits for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Error(error)) => {
            report(&error.report());
            ExitCode::FAILURE
        }
    }
}

fn is_command(argument: &str) -> bool {
    matches!(argument, "maintain" | "serve")
}

fn refuse(command: &str) -> ExitCode {
    report(&format!("`tarndb {command}` is not supported yet; a folder of this name is `./{command}`"));
    ExitCode::FAILURE
}

/// Why the shell ends before its work is done.
#[derive(Debug)]
enum Failure {
    Error(Error),
    /// Whoever read the output has left, which is no failure.
    BrokenPipe,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Error(error.into()),
        }
    }
}

fn report(message: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "error: {message}");
}

async fn start(arguments: Arguments) -> Result<(), Failure> {
    let lake: Lakehouse = tarndb::connect(arguments.location.as_deref().unwrap_or("memory://")).await?;
    let mut shell = Shell::new(lake, arguments.format, arguments.timer);
    let done = run(&mut shell, &arguments).await;
    // What works in the background ends what it has under way.
    shell.lake.close().await;
    done
}

async fn run(shell: &mut Shell, arguments: &Arguments) -> Result<(), Failure> {
    for setting in &arguments.settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Error::invalid_input(format!("`--set {setting}` is not of the form key=value")).into());
        };
        shell.run(&format!("SET {} = '{}'", key.trim(), value.trim().replace('\'', "''"))).await?;
    }
    if arguments.commands.is_empty() && arguments.files.is_empty() {
        if std::io::stdin().is_terminal() {
            return prompt::run(shell).await;
        }
        let text = std::io::read_to_string(std::io::stdin())?;
        return shell.run(&text).await;
    }
    for command in &arguments.commands {
        shell.run(command).await?;
    }
    for file in &arguments.files {
        shell.run_file(file).await?;
    }
    Ok(())
}
