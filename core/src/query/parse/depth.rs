use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use tarndb_catalog::{Error, Result};

/// How deep the tree of a statement may be; DuckDB stops at a thousand, too. Every level takes stack where the tree is
/// walked, copied, evaluated and freed, four times as much in builds without optimisation, and a stack that overflows ends
/// the whole process.
const MAX_DEPTH: usize = if cfg!(debug_assertions) { 400 } else { 1_000 };

/// Periods in the longest name of a column: `catalog.namespace.table.column.field`, and some more.
const LONGEST_NAME: usize = 16;

/// What is known of the tree between an opening parenthesis, or the statement's start, and the current token. Of the
/// operators, `OR` binds weakest: each is a level above all `AND`s around it, and those above all other operators.
#[derive(Clone, Copy, Default)]
struct Frame {
    or: usize,
    and: usize,
    others: usize,
    /// The deepest of the parentheses that closed since the last `AND` or `OR`.
    closed: usize,
    /// The deepest operand of the `AND`s at hand.
    below_and: usize,
    /// The deepest operand of the `OR`s at hand.
    below_or: usize,
    /// The deepest of the expressions before the one at hand.
    earlier: usize,
    /// Joins, set operations and common table expressions.
    relations: usize,
    /// Commas join tables here, or separate common table expressions.
    commas_relate: bool,
}

impl Frame {
    fn below_and(self) -> usize {
        self.below_and.max(self.others + self.closed)
    }

    fn below_or(self) -> usize {
        self.below_or.max(self.and + self.below_and())
    }

    fn height(self) -> usize {
        self.relations + self.earlier.max(self.or + self.below_or())
    }

    fn read(&mut self, kind: Kind) {
        match kind {
            Kind::Or => {
                *self = Self { or: self.or + 1, and: 0, others: 0, closed: 0, below_and: 0, below_or: self.below_or(), ..*self };
            }
            Kind::And => *self = Self { and: self.and + 1, others: 0, closed: 0, below_and: self.below_and(), ..*self },
            Kind::Operates | Kind::Subscript => self.others += 1,
            Kind::Comma => {
                self.relations += usize::from(self.commas_relate);
                self.start();
            }
            Kind::Relates => {
                self.relations += 1;
                self.start();
            }
            Kind::StartsExpression { commas_relate } => {
                self.start();
                self.commas_relate = commas_relate;
            }
            Kind::EndsRelations => self.commas_relate = false,
            Kind::Opens | Kind::Closes | Kind::Distinct | Kind::Period | Kind::Other => {}
        }
    }

    fn start(&mut self) {
        let earlier = self.earlier.max(self.or + self.below_or());
        *self = Self { earlier, relations: self.relations, commas_relate: self.commas_relate, ..Self::default() };
    }
}

/// A bound on the depth of a statement's tree; refuses statements that could be deeper than the stack allows.
///
/// sqlparser limits how deep parentheses are nested; but a chain, such as `a OR b OR c` or `a[1][2][3]`, is a level for each
/// of its links, and what is in parentheses is below all that follows.
pub(super) fn depth(tokens: &[TokenWithSpan]) -> Result<usize> {
    let mut open: Vec<Frame> = Vec::new();
    let mut current = Frame::default();
    let mut deepest = 0;
    let mut previous = Kind::Other;
    let mut periods = 0_usize;
    for TokenWithSpan { token, span } in tokens {
        let kind = kind(token);
        periods = match kind {
            Kind::Period => periods + 1,
            Kind::Other => periods,
            _ => 0,
        };
        match kind {
            Kind::Subscript => {
                current.read(kind);
                open.push(std::mem::take(&mut current));
            }
            Kind::Opens => open.push(std::mem::take(&mut current)),
            Kind::Closes => {
                let closed = current.height() + 1;
                current = open.pop().unwrap_or_default();
                current.closed = current.closed.max(closed);
            }
            // `a IS DISTINCT FROM b` goes on.
            Kind::StartsExpression { .. } if previous == Kind::Distinct => {}
            // The parts of a name are few; what goes on is a path into a value.
            Kind::Period if periods > LONGEST_NAME => current.read(Kind::Operates),
            _ => current.read(kind),
        }
        previous = kind;
        deepest = deepest.max(current.height());
        if deepest > MAX_DEPTH {
            return Err(Error::unsupported(format!(
                "more than {MAX_DEPTH} operators, joins or set operations below each other, as{}, are not supported: \
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
    Subscript,
    Closes,
    Comma,
    StartsExpression { commas_relate: bool },
    EndsRelations,
    Or,
    And,
    Operates,
    Relates,
    Distinct,
    Period,
    Other,
}

fn kind(token: &Token) -> Kind {
    match token {
        Token::LParen | Token::LBrace => Kind::Opens,
        Token::LBracket => Kind::Subscript,
        Token::RParen | Token::RBracket | Token::RBrace => Kind::Closes,
        Token::Comma => Kind::Comma,
        Token::SemiColon => Kind::StartsExpression { commas_relate: false },
        Token::Period => Kind::Period,
        Token::Number(..) | Token::Placeholder(_) | Token::EOF | Token::Whitespace(_) => Kind::Other,
        Token::Word(word) => match word.keyword {
            Keyword::CASE => Kind::Opens,
            Keyword::END => Kind::Closes,
            Keyword::FROM | Keyword::WITH => Kind::StartsExpression { commas_relate: true },
            Keyword::SELECT
            | Keyword::WHERE
            | Keyword::HAVING
            | Keyword::ON
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::VALUES => Kind::StartsExpression { commas_relate: false },
            Keyword::GROUP | Keyword::ORDER => Kind::EndsRelations,
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
            format!("SELECT a{} FROM t", "['b']".repeat(1100)),
            format!("SELECT a{} FROM t", ":b".repeat(1100)),
            format!("SELECT a{} FROM t", ".b".repeat(1100)),
            format!("SELECT {}a{}", "(".repeat(20), format!("{})", " + 1".repeat(90)).repeat(20)),
            format!("SELECT {} = 1 {} {}", many("1", 350, " + "), "AND a ".repeat(350), "OR b ".repeat(350)),
            format!("SELECT * FROM {}", many("t", 1100, ", ")),
            format!("WITH {} SELECT 1", (0..1100).map(|i| format!("t{i} AS (SELECT 1)")).collect::<Vec<_>>().join(", ")),
        ] {
            let error = depth(&deep).unwrap_err();
            assert!(error.to_string().contains("not supported"), "{error}");
        }
        for flat in [
            format!("SELECT {}", many("1 + 1", 20_000, ", ")),
            format!("SELECT * FROM t WHERE a IN ({})", many("-1", 20_000, ", ")),
            format!("INSERT INTO t VALUES {}", many("(1 + 1, -1, NOT true)", 20_000, ", ")),
            format!("SELECT CASE {} END", many("WHEN a = 1 THEN b + 1", 5_000, " ")),
            format!("SELECT * FROM t WHERE {}", many("t.a = 1 AND t.b = 2", 390, " OR ")),
            format!("SELECT * FROM t GROUP BY {}", many("a", 1100, ", ")),
            format!("SELECT [{}]", many("1", 5000, ", ")),
            many("SELECT a FROM t WHERE a + 1 IN (SELECT a FROM t) GROUP BY a", 100, " UNION ALL "),
        ] {
            assert!(depth(&flat).unwrap() <= MAX_DEPTH);
            parse(&flat).unwrap();
        }
    }
}
