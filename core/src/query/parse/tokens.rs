use std::ops::{ControlFlow, Range};

use iceberg::{NamespaceIdent, TableIdent};
use sqlparser::ast::{Expr, Ident, ObjectName, Value, visit_expressions_mut};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::RESERVED_FOR_TABLE_ALIAS;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use tarndb_catalog::{Error, Result};

use super::{depth, distinct, names, wrong};
use crate::query::relation::{self, Suffix};
use crate::table::Version;

/// A statement's tokens, without white space, and a place among them: for statements of tarndb's own, and of extensions.
#[derive(Debug, Clone)]
pub struct Tokens {
    tokens: Vec<TokenWithSpan>,
    next: usize,
}

/// Cuts SQL text at its semicolons. Empty statements are left out; comments stay with the statement that follows.
///
/// # Errors
/// `InvalidInput` for text that cannot be tokenised, such as an open quote.
pub fn split_statements(sql: &str) -> Result<Vec<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().map_err(wrong)?;
    let mut statements = Vec::new();
    let mut current: Vec<&TokenWithSpan> = Vec::new();
    let mut flush = |current: &mut Vec<&TokenWithSpan>| {
        if current.iter().any(|t| !matches!(t.token, Token::Whitespace(_))) {
            statements.push(text_of(sql, current));
        }
        current.clear();
    };
    for token in &tokens {
        match token.token {
            Token::SemiColon | Token::EOF => flush(&mut current),
            _ => current.push(token),
        }
    }
    flush(&mut current);
    Ok(statements)
}

/// Whether the text ends with a semicolon, but for white space and comments. Text in an open quote does not.
pub fn ends_statement(sql: &str) -> bool {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let last = |tokens: Vec<Token>| tokens.into_iter().rfind(|token| !matches!(token, Token::Whitespace(_) | Token::EOF));
    tokens.ok().and_then(last) == Some(Token::SemiColon)
}

/// The source text from the first to the last of the tokens.
fn text_of(sql: &str, tokens: &[&TokenWithSpan]) -> String {
    let range = || -> Option<Range<usize>> {
        let (first, last) = (tokens.first()?, tokens.last()?);
        Some(offset(sql, first.span.start)?..offset(sql, last.span.end)?)
    };
    let text = range().and_then(|range| sql.get(range));
    text.map_or_else(|| tokens.iter().map(|t| t.token.to_string()).collect(), |text| text.trim().to_string())
}

/// The byte offset of a line and column, which count from 1 and in characters.
fn offset(sql: &str, location: sqlparser::tokenizer::Location) -> Option<usize> {
    let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
    let start: usize = sql.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = sql.get(start..)?;
    Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(index, _)| index))
}

impl Tokens {
    /// Those of one statement; a semicolon at the end is left out by [`Tokens::trim_semicolons`].
    ///
    /// # Errors
    /// `InvalidInput` for text that cannot be tokenised, such as an open quote.
    pub fn new(sql: &str) -> Result<Self> {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().map_err(wrong)?;
        let tokens = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
        Ok(Self { tokens: distinct::with_parentheses(tokens), next: 0 })
    }

    pub(super) fn depth(&self) -> Result<usize> {
        depth::depth(&self.tokens)
    }

    /// Leaves out semicolons at the end.
    pub fn trim_semicolons(&mut self) {
        while self.tokens.last().is_some_and(|t| t.token == Token::SemiColon) {
            self.tokens.pop();
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.next >= self.tokens.len()
    }

    pub(super) fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.next + ahead).map(|t| &t.token)
    }

    pub(super) fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).map(|t| t.token.clone());
        self.next += 1;
        token
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek(ahead), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    }

    /// Takes these words when they come next.
    pub fn accept(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(ahead, word)| self.is_word(ahead, word));
        if all {
            self.next += words.len();
        }
        all
    }

    /// Takes a symbol, such as `(`, `,` or `=>`, when it comes next.
    pub fn accept_symbol(&mut self, symbol: &str) -> bool {
        let is_next = self.peek(0).is_some_and(|token| !matches!(token, Token::Word(_)) && token.to_string() == symbol);
        self.next += usize::from(is_next);
        is_next
    }

    pub(super) fn accept_token(&mut self, token: &Token) -> bool {
        let is_next = self.peek(0) == Some(token);
        if is_next {
            self.next += 1;
        }
        is_next
    }

    pub(super) fn expect(&mut self, token: &Token) -> Result<()> {
        if self.accept_token(token) { Ok(()) } else { Err(self.expected(&format!("`{token}`"))) }
    }

    /// An error that says what should have come, what comes, and where.
    pub fn expected(&self, what: &str) -> Error {
        match self.tokens.get(self.next) {
            Some(found) => wrong(format!("expected {what}, found `{}`{}", found.token, found.span.start)),
            None => wrong(format!("expected {what}, found the end")),
        }
    }

    /// Nothing is left, or an error.
    ///
    /// # Errors
    /// `InvalidInput`, naming what is left.
    pub fn end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// `DESCRIBE t` and `DESC t`, but not `DESCRIBE SELECT …`, which explains.
    pub(super) fn peek_describe(&self) -> bool {
        let describe = self.is_word(0, "DESCRIBE") || self.is_word(0, "DESC");
        let query = ["SELECT", "WITH", "VALUES", "ANALYZE", "INSERT", "DELETE"].iter().any(|word| self.is_word(1, word));
        describe && !query
    }

    pub(super) fn word(&mut self) -> Result<Ident> {
        match self.peek(0) {
            Some(Token::Word(word)) => {
                let ident =
                    Ident { value: word.value.clone(), quote_style: word.quote_style, span: sqlparser::tokenizer::Span::empty() };
                self.next += 1;
                Ok(ident)
            }
            _ => Err(self.expected("a name")),
        }
    }

    /// A name of one part, in lower case unless it is quoted.
    ///
    /// # Errors
    /// `InvalidInput` when something else comes.
    pub fn name(&mut self) -> Result<String> {
        Ok(names::normalize(&self.word()?))
    }

    pub(super) fn object_name(&mut self) -> Result<ObjectName> {
        let mut parts = vec![self.word()?];
        while self.accept_token(&Token::Period) {
            parts.push(self.word()?);
        }
        Ok(ObjectName::from(parts))
    }

    pub(super) fn table(&mut self) -> Result<TableIdent> {
        names::table_ident(&self.object_name()?)
    }

    pub(super) fn namespace(&mut self) -> Result<NamespaceIdent> {
        names::namespace_ident(&self.object_name()?)
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let parsed = match self.peek(0) {
            Some(Token::Number(digits, _)) => digits.parse().ok(),
            _ => None,
        };
        match parsed {
            Some(number) => {
                self.next += 1;
                Ok(number)
            }
            None => Err(self.expected(what)),
        }
    }

    /// A text in single quotes.
    ///
    /// # Errors
    /// `InvalidInput` when something else comes.
    pub fn string(&mut self) -> Result<String> {
        match self.peek(0) {
            Some(Token::SingleQuotedString(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.expected("a string in single quotes")),
        }
    }

    /// `>>` closes two types; makes it two tokens.
    pub(super) fn split_shift_right(&mut self) {
        if let Some(token) = self.tokens.get_mut(self.next)
            && token.token == Token::ShiftRight
        {
            token.token = Token::Gt;
            let second = token.clone();
            self.tokens.insert(self.next, second);
        }
    }

    /// An expression, as SQL text.
    pub(super) fn expression(&mut self) -> Result<String> {
        let rest = self.tokens.get(self.next..).unwrap_or_default().to_vec();
        let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(rest);
        let mut expression = parser.parse_expr().map_err(|e| wrong(e.to_string().trim_start_matches("sql parser error: ")))?;
        // As it is written, two quotes in a text would be taken for one that is escaped already.
        let _ = visit_expressions_mut(&mut expression, |part| {
            if let Expr::Value(value) = part
                && let Value::SingleQuotedString(text) = &value.value
                && text.contains('\'')
            {
                value.value = Value::EscapedStringLiteral(text.clone());
            }
            ControlFlow::<()>::Continue(())
        });
        self.next += parser.index();
        Ok(expression.to_string())
    }

    /// All tokens that are left, for another parser.
    pub(super) fn rest(&mut self) -> Tokens {
        let tokens = self.tokens.split_off(self.next.min(self.tokens.len()));
        Tokens { tokens, next: 0 }
    }

    /// The tokens with `t [FOR] VERSION|TIMESTAMP AS OF literal` written as a name that carries the version, under the
    /// alias `t` unless the statement gives one.
    pub(super) fn with_versions_in_names(mut self) -> Result<Vec<TokenWithSpan>> {
        let mut result: Vec<TokenWithSpan> = Vec::with_capacity(self.tokens.len());
        while let Some(token) = self.tokens.get(self.next).cloned() {
            let Some(version) = self.version()? else {
                self.next += 1;
                result.push(token);
                continue;
            };
            let Some(TokenWithSpan { token: Token::Word(table), span }) = result.pop() else {
                return Err(wrong(format!("a version{} follows no table", token.span.start)));
            };
            let original = Ident { value: table.value, quote_style: table.quote_style, span };
            let encoded = relation::encode(&names::normalize(&original), &Suffix::Version(version));
            result.push(TokenWithSpan { token: Token::make_word(&encoded, Some('"')), span });
            if !self.alias_follows() {
                result.push(TokenWithSpan { token: Token::make_keyword("AS"), span });
                result.push(TokenWithSpan { token: Token::make_word(&original.value, original.quote_style), span });
            }
        }
        Ok(result)
    }

    fn alias_follows(&self) -> bool {
        match self.peek(0) {
            Some(Token::Word(word)) => word.quote_style.is_some() || !RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword),
            _ => false,
        }
    }

    /// Takes `[FOR] VERSION|TIMESTAMP AS OF literal` when it comes next.
    fn version(&mut self) -> Result<Option<Version>> {
        let start = self.next;
        self.accept(&["FOR"]);
        let version = if self.accept(&["VERSION", "AS", "OF"]) {
            let negative = self.accept_token(&Token::Minus);
            match self.take() {
                Some(Token::Number(digits, _)) => {
                    let id =
                        digits.parse::<i64>().map_err(|_| Error::invalid_input(format!("`{digits}` is not a snapshot id")))?;
                    Version::Snapshot(if negative { -id } else { id })
                }
                Some(Token::SingleQuotedString(name)) if !negative => match name.parse() {
                    Ok(id) => Version::Snapshot(id),
                    Err(_) => Version::Ref(name),
                },
                _ => {
                    self.next -= 1;
                    return Err(self.expected("a snapshot id, or the name of a branch or tag in quotes"));
                }
            }
        } else if self.accept(&["TIMESTAMP", "AS", "OF"]) {
            self.accept(&["TIMESTAMP"]);
            let text = self.string()?;
            let time = arrow::compute::kernels::cast_utils::string_to_datetime(&chrono::Utc, &text).map_err(|e| {
                Error::invalid_input(format!("`{text}` is not a time: write it as '2026-01-31 12:00:00'")).with_source(e)
            })?;
            Version::TimestampMs(time.timestamp_millis())
        } else {
            self.next = start;
            return Ok(None);
        };
        Ok(Some(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_expressions_keep_their_quotes() {
        for text in ["a''b", "a'b", "\\'", "''", "a\\''\n'b", "\\n", "plain"] {
            let sql = format!("s = '{}'", text.replace('\'', "''"));
            // Twice, as conditions of statements are.
            let once = Tokens::new(&sql).unwrap().expression().unwrap();
            let twice = Tokens::new(&once).unwrap().expression().unwrap();
            for written in [once, twice] {
                let mut tokens = Tokens::new(&written).unwrap();
                let found = (tokens.take(), tokens.take(), tokens.take()).2.unwrap();
                assert!(
                    found == Token::SingleQuotedString(text.to_string())
                        || found == Token::EscapedStringLiteral(text.to_string()),
                    "{text}: {written}"
                );
            }
        }
    }

    #[test]
    fn statements_are_cut_at_semicolons_outside_quotes() {
        let found = split_statements("SELECT ';' -- one; \n;; INSERT INTO t VALUES ('a\nb'); \n").unwrap();
        assert_eq!(found, vec!["SELECT ';' -- one;".to_string(), "INSERT INTO t VALUES ('a\nb')".to_string()]);
        assert!(split_statements("SELECT 'open").is_err());
        assert!(ends_statement("SELECT 1; -- said\n") && ends_statement("SELECT ';';"));
        assert!(!ends_statement("SELECT 1") && !ends_statement("SELECT ';") && !ends_statement("SELECT 1 -- ;\n"));
    }
}
