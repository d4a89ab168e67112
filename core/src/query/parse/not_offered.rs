use sqlparser::tokenizer::Token;
use tarndb_catalog::{Error, Result};

use super::tokens::Tokens;

/// Refuses statements of tarndb's grammar that are not offered yet and that sqlparser would call wrong.
pub(super) fn refuse(tokens: &Tokens) -> Result<()> {
    let mut ahead = tokens.clone();
    let statement = if ahead.accept(&["ALTER", "TABLE"]) {
        ahead.accept(&["IF", "EXISTS"]);
        // A wrong name is told by the parser.
        if ahead.object_name().is_err() {
            return Ok(());
        }
        alteration(&mut ahead)
    } else if ahead.accept(&["COPY"]) {
        is_copy_from(&mut ahead).then_some("COPY … FROM")
    } else if ahead.accept(&["CREATE", "OR", "REPLACE", "TABLE"]) {
        Some("CREATE OR REPLACE TABLE")
    } else if ahead.accept(&["CREATE", "OR", "REPLACE", "VIEW"]) {
        Some("CREATE OR REPLACE VIEW")
    } else if ahead.accept(&["SHOW", "CREATE"]) {
        Some("SHOW CREATE")
    } else if ahead.accept(&["SHOW", "TARNDB"]) || ahead.accept(&["SET", "TARNDB"]) || ahead.accept(&["RESET", "TARNDB"]) {
        Some("a setting of `tarndb`")
    } else {
        None
    };
    match statement {
        Some(statement) => Err(Error::unsupported(format!("{statement} is not supported yet"))),
        None => Ok(()),
    }
}

fn alteration(tokens: &mut Tokens) -> Option<&'static str> {
    const ALTERATIONS: [(&[&str], &str); 9] = [
        (&["WRITE"], "ALTER TABLE … WRITE ORDERED BY"),
        (&["CREATE", "BRANCH"], "ALTER TABLE … CREATE BRANCH"),
        (&["CREATE", "OR", "REPLACE"], "ALTER TABLE … CREATE OR REPLACE"),
        (&["CREATE", "TAG"], "ALTER TABLE … CREATE TAG"),
        (&["REPLACE", "BRANCH"], "ALTER TABLE … REPLACE BRANCH"),
        (&["REPLACE", "TAG"], "ALTER TABLE … REPLACE TAG"),
        (&["DROP", "BRANCH"], "ALTER TABLE … DROP BRANCH"),
        (&["DROP", "TAG"], "ALTER TABLE … DROP TAG"),
        (&["SET", "IDENTIFIER"], "ALTER TABLE … SET IDENTIFIER FIELDS"),
    ];
    ALTERATIONS.into_iter().find(|(words, _)| tokens.accept(words)).map(|(_, name)| name)
}

/// `COPY t [(columns)] FROM`.
fn is_copy_from(tokens: &mut Tokens) -> bool {
    if tokens.object_name().is_err() {
        return false;
    }
    if tokens.accept_token(&Token::LParen) {
        while tokens.take().is_some_and(|token| token != Token::RParen) {}
    }
    tokens.accept(&["FROM"])
}
