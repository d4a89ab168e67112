use std::collections::BTreeMap;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

fn keyword(token: &TokenWithSpan) -> Option<Keyword> {
    match &token.token {
        Token::Word(word) => Some(word.keyword),
        _ => None,
    }
}

/// Puts parentheses around `a IS [NOT] DISTINCT FROM b` where a logical operator follows: sqlparser takes all of `b AND c`
/// for what is compared in `a IS DISTINCT FROM b AND c`.
pub(super) fn with_parentheses(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    // How many parentheses open and close before each token.
    let mut opening: BTreeMap<usize, usize> = BTreeMap::new();
    let mut closing: BTreeMap<usize, usize> = BTreeMap::new();
    for index in 0..tokens.len() {
        if let Some(is) = start_of_comparison(&tokens, index)
            && let Some(end) = end_of_operand(&tokens, index + 1)
        {
            *opening.entry(start_of_operand(&tokens, is)).or_default() += 1;
            *closing.entry(end).or_default() += 1;
        }
    }
    if opening.is_empty() {
        return tokens;
    }
    let mut result: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 2 * opening.len());
    for (index, token) in tokens.into_iter().enumerate() {
        let times = |of: &BTreeMap<usize, usize>| of.get(&index).copied().unwrap_or(0);
        let parenthesis = |token: Token, span: Span| TokenWithSpan { token, span };
        result.extend((0..times(&closing)).map(|_| parenthesis(Token::RParen, token.span)));
        result.extend((0..times(&opening)).map(|_| parenthesis(Token::LParen, token.span)));
        result.push(token);
    }
    result
}

/// Where `IS` is, if the token is the last of `IS [NOT] DISTINCT FROM`.
fn start_of_comparison(tokens: &[TokenWithSpan], index: usize) -> Option<usize> {
    let is = |back: usize, word: Keyword| index.checked_sub(back).and_then(|at| tokens.get(at)).and_then(keyword) == Some(word);
    if !is(0, Keyword::FROM) || !is(1, Keyword::DISTINCT) {
        return None;
    }
    if is(2, Keyword::IS) {
        return index.checked_sub(2);
    }
    if is(2, Keyword::NOT) && is(3, Keyword::IS) { index.checked_sub(3) } else { None }
}

/// Where the operand that ends before `end` starts: after the last token that binds weaker than `IS` or is no part of an
/// expression.
fn start_of_operand(tokens: &[TokenWithSpan], end: usize) -> usize {
    let mut open = 0_usize;
    let mut in_between = false;
    for index in (0..end).rev() {
        let Some(token) = tokens.get(index) else { continue };
        match (&token.token, keyword(token)) {
            (Token::RParen | Token::RBracket | Token::RBrace, _) | (_, Some(Keyword::END)) => open += 1,
            (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, Some(Keyword::CASE)) => {
                if open == 0 {
                    return index + 1;
                }
                open -= 1;
            }
            _ if open > 0 => {}
            (_, Some(Keyword::BETWEEN)) => in_between = false,
            (_, Some(Keyword::AND)) if !in_between && belongs_to_between(tokens, index) => in_between = true,
            (Token::Comma | Token::SemiColon, _)
            | (
                _,
                Some(
                    Keyword::AND
                    | Keyword::OR
                    | Keyword::XOR
                    | Keyword::NOT
                    | Keyword::SELECT
                    | Keyword::ALL
                    | Keyword::WHERE
                    | Keyword::ON
                    | Keyword::HAVING
                    | Keyword::QUALIFY
                    | Keyword::BY
                    | Keyword::WHEN
                    | Keyword::THEN
                    | Keyword::ELSE
                    | Keyword::VALUES,
                ),
            ) if !in_between => return index + 1,
            _ => {}
        }
    }
    0
}

/// Whether the `AND` at `index` is that of a `BETWEEN`.
fn belongs_to_between(tokens: &[TokenWithSpan], index: usize) -> bool {
    let mut open = 0_usize;
    for token in tokens.get(..index).unwrap_or_default().iter().rev() {
        match (&token.token, keyword(token)) {
            (Token::RParen | Token::RBracket | Token::RBrace, _) | (_, Some(Keyword::END)) => open += 1,
            (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, Some(Keyword::CASE)) if open == 0 => return false,
            (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, Some(Keyword::CASE)) => open -= 1,
            _ if open > 0 => {}
            (_, Some(Keyword::BETWEEN)) => return true,
            (_, Some(Keyword::AND | Keyword::OR | Keyword::XOR | Keyword::WHERE | Keyword::SELECT | Keyword::ON)) => {
                return false;
            }
            _ => {}
        }
    }
    false
}

/// Where the operand that starts at `start` ends, if it does so at an operator that binds weaker than `IS`.
fn end_of_operand(tokens: &[TokenWithSpan], start: usize) -> Option<usize> {
    let mut open = 0_usize;
    let mut between = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(start) {
        match (&token.token, keyword(token)) {
            (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, Some(Keyword::CASE)) => open += 1,
            (Token::RParen | Token::RBracket | Token::RBrace, _) | (_, Some(Keyword::END)) => open = open.checked_sub(1)?,
            _ if open > 0 => {}
            (Token::Comma | Token::SemiColon, _) => return None,
            (_, Some(Keyword::BETWEEN)) => between += 1,
            (_, Some(Keyword::AND)) if between > 0 => between -= 1,
            (_, Some(Keyword::AND | Keyword::OR | Keyword::XOR | Keyword::IS)) => return Some(index),
            // What follows belongs to another part of the statement.
            (
                _,
                Some(
                    Keyword::AS
                    | Keyword::FROM
                    | Keyword::WHERE
                    | Keyword::GROUP
                    | Keyword::HAVING
                    | Keyword::QUALIFY
                    | Keyword::WINDOW
                    | Keyword::ORDER
                    | Keyword::LIMIT
                    | Keyword::OFFSET
                    | Keyword::FETCH
                    | Keyword::UNION
                    | Keyword::EXCEPT
                    | Keyword::INTERSECT
                    | Keyword::THEN
                    | Keyword::WHEN
                    | Keyword::ELSE
                    | Keyword::JOIN
                    | Keyword::INNER
                    | Keyword::CROSS
                    | Keyword::NATURAL
                    | Keyword::ASC
                    | Keyword::DESC
                    | Keyword::NULLS,
                ),
            ) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::query::parse::tokens::Tokens;

    #[test]
    fn what_is_compared_ends_at_a_logical_operator() {
        let text = |sql: &str| Tokens::new(sql).unwrap().expression().unwrap();
        for (sql, meant) in [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b + 1 OR c", "(a IS NOT DISTINCT FROM b + 1) OR c"),
            ("x AND f(a, d) IS DISTINCT FROM f(b, c) AND y", "x AND (f(a, d) IS DISTINCT FROM f(b, c)) AND y"),
            ("a IS DISTINCT FROM b BETWEEN 1 AND 2 AND c", "(a IS DISTINCT FROM b BETWEEN 1 AND 2) AND c"),
            ("a BETWEEN 1 AND 2 IS DISTINCT FROM b AND c", "(a BETWEEN 1 AND 2 IS DISTINCT FROM b) AND c"),
            ("a IS DISTINCT FROM CASE WHEN b AND c THEN 1 END OR d", "(a IS DISTINCT FROM CASE WHEN b AND c THEN 1 END) OR d"),
            ("a IS DISTINCT FROM b", "a IS DISTINCT FROM b"),
            ("(a IS DISTINCT FROM b) AND c", "(a IS DISTINCT FROM b) AND c"),
            ("NOT a IS DISTINCT FROM b AND c", "NOT (a IS DISTINCT FROM b) AND c"),
            ("a IS DISTINCT FROM b AND c IS DISTINCT FROM d OR e", "(a IS DISTINCT FROM b) AND (c IS DISTINCT FROM d) OR e"),
        ] {
            assert_eq!(text(sql), meant);
        }
    }
}
