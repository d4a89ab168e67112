//! The shell as a user runs it: as a process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // these are tests

mod cli;
mod processes;

use std::path::Path;
use std::process::{Command, Output};

fn tarndb() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tarndb"))
}

fn run(lake: &Path, sql: &[&str]) -> Output {
    let mut command = tarndb();
    command.arg(lake).args(["--format", "csv"]);
    for statement in sql {
        command.args(["-c", statement]);
    }
    command.output().unwrap()
}

/// The last line that a statement prints.
fn value(lake: &Path, sql: &str) -> String {
    let output = run(lake, &[sql]);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_string()
}
