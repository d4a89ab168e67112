//! The statements of metadata indexes: text to what is asked.

use tarndb_core::{Error, Result, Tokens};

use crate::options::IndexOptions;

/// A statement about metadata indexes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Create {
        name: String,
        source: String,
        options: IndexOptions,
        if_not_exists: bool,
    },
    Drop {
        name: String,
        if_exists: bool,
    },
    Show,
    /// `CALL system.sync_metadata_index('name')`, and `reconcile_…`.
    Sync {
        name: String,
    },
    Start {
        name: String,
    },
    Stop {
        name: String,
    },
}

/// Statements longer than this are others: those of indexes are short, and all statements are asked first whether they are one.
const LONGEST: usize = 16 * 1024;

/// The statement when it is one about metadata indexes.
///
/// # Errors
/// `InvalidInput` when it is and is wrong; `Unsupported` for what is not offered.
pub(crate) fn parse(sql: &str) -> Result<Option<Statement>> {
    const WORD: &[u8] = b"metadata";
    if sql.len() > LONGEST || !sql.as_bytes().windows(WORD.len()).any(|window| window.eq_ignore_ascii_case(WORD)) {
        return Ok(None);
    }
    // What is wrong with another statement is told by who runs it.
    let Ok(mut tokens) = Tokens::new(sql) else { return Ok(None) };
    tokens.trim_semicolons();
    let statement = if tokens.accept(&["CREATE", "METADATA", "INDEX"]) {
        create(&mut tokens)?
    } else if tokens.accept(&["DROP", "METADATA", "INDEX"]) {
        let if_exists = tokens.accept(&["IF", "EXISTS"]);
        Statement::Drop { name: index_name(&mut tokens)?, if_exists }
    } else if tokens.accept(&["SHOW", "METADATA", "INDEXES"]) {
        Statement::Show
    } else {
        match call(&mut tokens)? {
            Some(call) => call,
            None => return Ok(None),
        }
    };
    tokens.end()?;
    Ok(Some(statement))
}

/// A name that a namespace of one level can have.
fn index_name(tokens: &mut Tokens) -> Result<String> {
    let name = tokens.name()?;
    check_name(&name)?;
    Ok(name)
}

/// # Errors
/// `InvalidInput` for what cannot be the name of an index.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains('.') || name.chars().any(char::is_control) {
        return Err(Error::invalid_input(format!("`{name}` cannot be the name of a metadata index: it is that of a namespace")));
    }
    Ok(())
}

/// `[IF NOT EXISTS] name ON 'source' [WITH (option = 'value', …)]`.
fn create(tokens: &mut Tokens) -> Result<Statement> {
    let if_not_exists = tokens.accept(&["IF", "NOT", "EXISTS"]);
    let name = index_name(tokens)?;
    if !tokens.accept(&["ON"]) {
        return Err(tokens.expected("ON and the location of what is indexed"));
    }
    let source = tokens.string()?;
    let mut options = IndexOptions::default();
    if tokens.accept(&["WITH"]) {
        if !tokens.accept_symbol("(") {
            return Err(tokens.expected("`(`"));
        }
        loop {
            let option = tokens.name()?;
            if !tokens.accept_symbol("=") {
                return Err(tokens.expected("`=`"));
            }
            options = options.with(&option, &tokens.string()?)?;
            if !tokens.accept_symbol(",") {
                break;
            }
        }
        if !tokens.accept_symbol(")") {
            return Err(tokens.expected("`,` or `)`"));
        }
    }
    Ok(Statement::Create { name, source, options, if_not_exists })
}

fn call(tokens: &mut Tokens) -> Result<Option<Statement>> {
    if !tokens.accept(&["CALL", "system"]) || !tokens.accept_symbol(".") {
        return Ok(None);
    }
    let statement: fn(String) -> Statement = match tokens.name()?.as_str() {
        "sync_metadata_index" | "reconcile_metadata_index" => |name| Statement::Sync { name },
        "start_metadata_index" => |name| Statement::Start { name },
        "stop_metadata_index" => |name| Statement::Stop { name },
        _ => return Ok(None),
    };
    if !tokens.accept_symbol("(") {
        return Err(tokens.expected("`(`"));
    }
    if tokens.accept(&["name"]) && !tokens.accept_symbol("=>") {
        return Err(tokens.expected("`=>`"));
    }
    let name = tokens.string()?;
    if !tokens.accept_symbol(")") {
        return Err(tokens.expected("`)`"));
    }
    Ok(Some(statement(name)))
}

#[cfg(test)]
mod tests {
    use tarndb_core::ErrorKind;

    use super::*;

    #[test]
    fn statements_of_indexes_and_others() {
        let name = || "docs".to_string();
        let create_with = |source: &str, options: IndexOptions| Statement::Create {
            name: name(),
            source: source.to_string(),
            options,
            if_not_exists: false,
        };
        let create = |source: &str| create_with(source, IndexOptions::default());
        let events = || IndexOptions::default().with("events", "sqs://q").unwrap();
        let cases = [
            ("CREATE METADATA INDEX docs ON './a b';", create("./a b")),
            ("-- one\ncreate metadata index Docs on 'it''s'", create("it's")),
            (
                "CREATE METADATA INDEX IF NOT EXISTS \"docs\" ON 'x'",
                Statement::Create {
                    name: name(),
                    source: "x".to_string(),
                    options: IndexOptions::default(),
                    if_not_exists: true,
                },
            ),
            ("CREATE METADATA INDEX docs ON 's3://b' WITH (events = 'sqs://q')", create_with("s3://b", events())),
            (
                "create metadata index docs on 's3://b' with (Events = 'sqs://q', region='eu-west-1')",
                create_with("s3://b", events().with("region", "eu-west-1").unwrap()),
            ),
            ("DROP METADATA INDEX IF EXISTS docs", Statement::Drop { name: name(), if_exists: true }),
            ("show metadata indexes", Statement::Show),
            ("CALL system.sync_metadata_index('docs')", Statement::Sync { name: name() }),
            ("CALL system.reconcile_metadata_index(name => 'docs')", Statement::Sync { name: name() }),
            ("CALL system.start_metadata_index('docs')", Statement::Start { name: name() }),
            ("CALL system.stop_metadata_index('docs')", Statement::Stop { name: name() }),
        ];
        for (sql, expected) in cases {
            assert_eq!(parse(sql).unwrap(), Some(expected), "{sql}");
        }
        for other in [
            "SELECT 'CREATE METADATA INDEX x'",
            "SHOW TABLES",
            "SELECT metadata FROM t",
            "CALL system.metadata('x')",
            "'metadata",
        ] {
            assert_eq!(parse(other).unwrap(), None, "{other}");
        }
        for wrong in [
            "CREATE METADATA INDEX docs",
            "CREATE METADATA INDEX ON 'x'",
            "CREATE METADATA INDEX a.b ON 'x'",
            "CREATE METADATA INDEX \"a.b\" ON 'x'",
            "CREATE METADATA INDEX docs ON 'x' WITH (events)",
            "CREATE METADATA INDEX docs ON 'x' WITH (region = 'x'",
            "CREATE METADATA INDEX docs ON 'x' WITH (events = 'x')",
            "DROP METADATA INDEX docs CASCADE",
            "CALL system.sync_metadata_index(docs)",
        ] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
        let option = parse("CREATE METADATA INDEX docs ON 'x' WITH (extrakt = 'media')").unwrap_err();
        assert_eq!(option.kind(), ErrorKind::Unsupported);
        assert!(option.to_string().contains("extrakt"));
    }
}
