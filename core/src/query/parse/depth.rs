use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use tarndb_catalog::{Error, Result};

/// How deep the tree of a statement may be; DuckDB stops at a thousand, too. Every level takes stack where the tree is
/// walked, copied, evaluated and freed, four times as much in builds without optimisation, and a stack that overflows ends
/// the whole process.
const MAX_DEPTH: usize = if cfg!(debug_assertions) { 400 } else { 1_000 };

/// The operators of an expression so far, by what binds weakest.
#[derive(Clone, Copy, Default)]
struct Operators {
    or: usize,
    and: usize,
    others: usize,
}

impl Operators {
    fn depth(self) -> usize {
        self.or + self.and + self.others
    }
}

/// A bound on the depth of a statement's tree; refuses statements that could be deeper than the stack allows.
///
/// Parentheses are limited by sqlparser; but a chain, such as `a OR b OR c`, is a level for each of its links. Counted here
/// are the operators above the current token in all open parentheses, and the joins and set operations of the statement.
pub(super) fn depth(tokens: &[TokenWithSpan]) -> Result<usize> {
    let mut relations = 0_usize;
    // What encloses the expression at hand, and the depth of all that.
    let mut open: Vec<Operators> = Vec::new();
    let mut enclosing = 0_usize;
    let mut current = Operators::default();
    let mut deepest = 0_usize;
    let mut after_distinct = false;
    for TokenWithSpan { token, span } in tokens {
        let kind = kind(token);
        match kind {
            Kind::Opens => {
                enclosing += current.depth();
                open.push(std::mem::take(&mut current));
            }
            Kind::Closes => {
                current = open.pop().unwrap_or_default();
                enclosing -= current.depth();
            }
            // `a IS DISTINCT FROM b` goes on.
            Kind::StartsExpression if !after_distinct => current = Operators::default(),
            Kind::Or => current = Operators { or: current.or + 1, ..Operators::default() },
            Kind::And => current = Operators { and: current.and + 1, others: 0, ..current },
            Kind::Operates => current.others += 1,
            Kind::Relates => relations += 1,
            Kind::StartsExpression | Kind::Distinct | Kind::Other => {}
        }
        after_distinct = kind == Kind::Distinct;
        deepest = deepest.max(enclosing + current.depth()).max(relations);
        if deepest > MAX_DEPTH {
            return Err(Error::unsupported(format!(
                "more than {MAX_DEPTH} operators, joins or set operations in one chain, as at {}, are not supported: \
                 use IN (…), or a table of VALUES to join with",
                span.start
            )));
        }
    }
    Ok(deepest)
}

/// What a token means for the depth of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Opens,
    Closes,
    StartsExpression,
    Or,
    And,
    Operates,
    Relates,
    Distinct,
    Other,
}

fn kind(token: &Token) -> Kind {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => Kind::Opens,
        Token::RParen | Token::RBracket | Token::RBrace => Kind::Closes,
        Token::Comma | Token::SemiColon => Kind::StartsExpression,
        Token::Period | Token::Colon | Token::Number(..) | Token::Placeholder(_) | Token::EOF | Token::Whitespace(_) => {
            Kind::Other
        }
        Token::Word(word) => match word.keyword {
            Keyword::CASE => Kind::Opens,
            Keyword::END => Kind::Closes,
            Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::HAVING
            | Keyword::ON
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::VALUES => Kind::StartsExpression,
            Keyword::DISTINCT => Kind::Distinct,
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN => Kind::Relates,
            Keyword::OR | Keyword::XOR => Kind::Or,
            Keyword::AND => Kind::And,
            Keyword::NOT
            | Keyword::IS
            | Keyword::IN
            | Keyword::BETWEEN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::AT
            | Keyword::COLLATE
            | Keyword::DIV => Kind::Operates,
            _ => Kind::Other,
        },
        Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::NationalStringLiteral(_) => Kind::Other,
        // The rest are operators, or stand where one could.
        _ => Kind::Operates,
    }
}

#[cfg(test)]
mod tests {
    use super::MAX_DEPTH;
    use crate::query::parse::{depth, parse};

    #[test]
    fn chains_are_limited_and_lists_are_not() {
        let many = |text: &str, times: usize, between: &str| vec![text; times].join(between);
        for deep in [
            format!("SELECT {}", many("1", 1100, " + ")),
            format!("SELECT * FROM t WHERE {}", many("a = 1", 1100, " OR ")),
            format!("SELECT * FROM t WHERE a IN (SELECT {})", many("1", 20_000, "+")),
            many("SELECT 1", 1100, " UNION ALL "),
            format!("SELECT * FROM {}", many("t", 1100, " CROSS JOIN ")),
            format!("SELECT {}1", "- ".repeat(2000)),
            format!("SELECT 1{}", "::INT".repeat(2000)),
            format!("SELECT {}", many("CASE WHEN a THEN 1 ELSE 2 END", 1100, " + ")),
            format!("SELECT * FROM t WHERE {}", many("a IS DISTINCT FROM b", 1100, " AND ")),
            format!("SELECT {}", many("(SELECT 1)", 1100, " + ")),
        ] {
            let error = depth(&deep).unwrap_err();
            assert!(error.to_string().contains("not supported"), "{error}");
        }
        for flat in [
            format!("SELECT {}", many("1 + 1", 20_000, ", ")),
            format!("SELECT * FROM t WHERE a IN ({})", many("-1", 20_000, ", ")),
            format!("INSERT INTO t VALUES {}", many("(1 + 1, -1, NOT true)", 20_000, ", ")),
            format!("SELECT CASE {} END", many("WHEN a = 1 THEN b + 1", 5_000, " ")),
            format!("SELECT * FROM t WHERE {}", many("a = 1 AND b = 2", 390, " OR ")),
        ] {
            assert!(depth(&flat).unwrap() <= MAX_DEPTH);
            parse(&flat).unwrap();
        }
    }
}
