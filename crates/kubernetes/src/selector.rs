//! Label selectors as kubectl writes them: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// Reads a label selector, or says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Selector, String> {
    let mut expressions = Vec::new();
    for part in split(text) {
        expressions.push(expression(part.trim()).ok_or_else(|| {
            format!(
                "`{}` is not a requirement on a label; write key=value, key!=value, key in (a,b), \
                 key notin (a,b), key or !key",
                part.trim()
            )
        })?);
    }
    Ok(expressions.into_iter().collect())
}

/// The parts between commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = text.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    parts.collect()
}

fn expression(part: &str) -> Option<Expression> {
    if let Some(absent) = part.strip_prefix('!') {
        return Some(Expression::DoesNotExist(key(absent)?));
    }
    if let Some(rest) = part.strip_suffix(')') {
        let (head, values) = rest.split_once('(')?;
        let mut words = head.split_whitespace();
        let (name, operator) = (key(words.next()?)?, words.next()?);
        let values: BTreeSet<String> = values.split(',').map(value).collect::<Option<_>>()?;
        return match (operator, words.next()) {
            ("in", None) => Some(Expression::In(name, values)),
            ("notin", None) => Some(Expression::NotIn(name, values)),
            _ => None,
        };
    }
    if let Some((name, other)) = part.split_once("!=") {
        return Some(Expression::NotEqual(key(name)?, value(other)?));
    }
    match part.split_once('=') {
        Some((name, same)) => {
            Some(Expression::Equal(key(name)?, value(same.strip_prefix('=').unwrap_or(same))?))
        }
        None => Some(Expression::Exists(key(part)?)),
    }
}

fn key(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.chars().all(|c| is_label(c) || c == '/')).then(|| text.to_owned())
}

/// An empty value is one, too.
fn value(text: &str) -> Option<String> {
    let text = text.trim();
    text.chars().all(is_label).then(|| text.to_owned())
}

fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use kube::core::SelectorExt;

    use super::*;

    #[test]
    fn selectors_match_as_kubectl_does() {
        let labels = [("pool", "web"), ("example.com/spot", "true"), ("empty", "")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let check = |text: &str, expect: bool| {
            assert_eq!(parse(text).unwrap().matches(&labels), expect, "{text}");
        };
        check("pool=web", true);
        check("pool==web", true);
        check("pool = api", false);
        check("pool!=api", true);
        check("pool in (web, api), example.com/spot", true);
        check("pool in (api)", false);
        check("pool notin (api,batch)", true);
        check("!pool", false);
        check("!other,empty=", true);
    }

    #[test]
    fn what_is_not_a_selector_is_refused() {
        for text in
            ["", "a=b,", "a in b", "a in (b", "a isin (b)", "=b", "a=b c", "a=b=c", "a>3", "a in (b) c"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
