use std::io::Write;

use clap::ValueEnum;
use tarndb::Error;

use crate::Failure;
use crate::format::Format;
use crate::run::Shell;

/// What follows a dot command.
pub(crate) enum Next {
    Continue,
    Quit,
}

const HELP: &str = "\
.help                 this text
.tables               all tables
.schema [TABLE]       the columns of a table, or of all
.snapshots TABLE      the snapshots of a table
.files TABLE          the files of a table
.format NAME          table, csv, json, ndjson, markdown or vertical
.timer on|off         how long each statement takes
.read FILE            runs the SQL of a file
.open LOCATION        opens another lake
.quit                 leaves
";

/// Runs a line that begins with a dot.
pub(crate) async fn run(shell: &mut Shell, line: &str) -> Result<Next, Failure> {
    let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let needed = || {
        if argument.is_empty() {
            return Err(Error::invalid_input(format!("{command} needs an argument: see .help")));
        }
        Ok(argument)
    };
    match command {
        ".help" => std::io::stdout().write_all(HELP.as_bytes())?,
        ".tables" => shell.statement("SHOW TABLES").await?,
        ".schema" if argument.is_empty() => {
            for table in shell.lake.tables(None).await? {
                writeln!(std::io::stdout(), "{table}")?;
                shell.statement(&format!("DESCRIBE {table}")).await?;
            }
        }
        ".schema" => shell.statement(&format!("DESCRIBE {argument}")).await?,
        ".snapshots" => shell.statement(&metadata_query(needed()?, "snapshots")).await?,
        ".files" => shell.statement(&metadata_query(needed()?, "files")).await?,
        ".format" => {
            let name = needed()?;
            shell.format = Format::from_str(name, true).map_err(|_| {
                Error::invalid_input(format!("`{name}` is not a format: use table, csv, json, ndjson, markdown or vertical"))
            })?;
        }
        ".timer" => match needed()? {
            "on" => shell.timer = true,
            "off" => shell.timer = false,
            other => return Err(Error::invalid_input(format!("`.timer {other}`: use on or off")).into()),
        },
        ".read" => Box::pin(shell.run_file(needed()?)).await?,
        ".open" => {
            let lake = tarndb::connect(needed()?).await?;
            std::mem::replace(&mut shell.lake, lake).close().await;
        }
        ".quit" | ".exit" => return Ok(Next::Quit),
        ".maintain" => return Err(Error::unsupported(".maintain is not supported yet: use OPTIMIZE and VACUUM").into()),
        other => return Err(Error::invalid_input(format!("`{other}` is not a command: see .help")).into()),
    }
    Ok(Next::Continue)
}

/// A query of a metadata table. The last part of a name carries the suffix.
fn metadata_query(table: &str, metadata: &str) -> String {
    let (namespace, name) = match table.rsplit_once('.') {
        Some((namespace, name)) => (format!("{namespace}."), name),
        None => (String::new(), table),
    };
    format!("SELECT * FROM {namespace}\"{}${metadata}\"", name.trim_matches('"'))
}
