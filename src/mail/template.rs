//! The syntax of texts: `{name}` stands for a value, in the HTML part escaped. Everything else is as it stands, other braces
//! too.

use std::fmt::Write;

/// What is wrong with a text, and in which line of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// `None`: something that is nowhere in it.
    pub line: Option<usize>,
    pub what: String,
}

impl Fault {
    pub(crate) fn at(line: usize, what: impl Into<String>) -> Fault {
        Fault { line: Some(line), what: what.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Placeholder(String),
}

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Link(&'a str),
    List(&'a [String]),
    Html(&'a str),
}

pub(crate) type Values<'a> = [(&'static str, Value<'a>)];

impl Template {
    /// `line`: the number of its first line. Only these placeholders are allowed.
    pub(crate) fn parse(text: &str, line: usize, allowed: &[&str]) -> Result<Template, Fault> {
        let (mut parts, mut rest) = (Vec::new(), text);
        let mut literal = String::new();
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            let name = after.split_once('}').filter(|(name, _)| is_name(name));
            let Some((name, behind)) = name else {
                literal.push('{');
                rest = after;
                continue;
            };
            if !allowed.contains(&name) {
                let line = line + text[..text.len() - after.len()].matches('\n').count();
                let known: Vec<String> = allowed.iter().map(|name| format!("{{{name}}}")).collect();
                let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
                return Err(Fault::at(line, format!("has the placeholder {{{name}}}; here there may be {known}")));
            }
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(Part::Placeholder(name.to_string()));
            rest = behind;
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        parts.retain(|part| *part != Part::Literal(String::new()));
        Ok(Template(parts))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Placeholder(own) if own == name))
    }

    pub(crate) fn plain(&self, values: &Values<'_>) -> String {
        self.render(values, str::to_string, |value| match value {
            Value::Text(text) | Value::Link(text) | Value::Html(text) => text.to_string(),
            Value::List(items) => items.iter().map(|item| format!("- {item}")).collect::<Vec<_>>().join("\n"),
        })
    }

    /// As HTML, where the text itself is none.
    pub(crate) fn escaped(&self, values: &Values<'_>) -> String {
        self.render(values, escape, html)
    }

    /// As HTML, where the text itself is HTML.
    pub(crate) fn html(&self, values: &Values<'_>) -> String {
        self.render(values, str::to_string, html)
    }

    fn render(
        &self,
        values: &Values<'_>,
        literal: impl Fn(&str) -> String,
        value: impl Fn(Value<'_>) -> String,
    ) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(text) => literal(text),
            Part::Placeholder(name) => {
                values.iter().find(|(own, _)| own == name).map(|(_, of)| value(*of)).unwrap_or_default()
            }
        });
        parts.collect()
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

fn html(value: Value<'_>) -> String {
    match value {
        Value::Text(text) => escape(text),
        Value::Html(html) => html.to_string(),
        Value::Link(url) => format!("<a href=\"{0}\">{0}</a>", escape(url)),
        Value::List(items) => items.iter().map(|item| escape(item)).collect::<Vec<_>>().join("<br>\n"),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' | '\'' => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_and_other_braces_stay() {
        let template = Template::parse("p { x: {a}; } {b}{", 1, &["a", "b"]).unwrap();
        let values = [("a", Value::Text("{b} <i>")), ("b", Value::Link("https://a.example/?a=1&b='"))];
        assert_eq!(template.plain(&values), "p { x: {b} <i>; } https://a.example/?a=1&b='{");
        let link = "https://a.example/?a=1&amp;b=&#39;";
        assert_eq!(template.html(&values), format!("p {{ x: {{b}} &lt;i&gt;; }} <a href=\"{link}\">{link}</a>{{"));
        assert!(template.has("a") && !template.has("x"));
        let list = ["<b>".to_string(), "c".to_string()];
        let template = Template::parse("<: {a}", 1, &["a"]).unwrap();
        assert_eq!(template.plain(&[("a", Value::List(&list))]), "<: - <b>\n- c");
        assert_eq!(template.escaped(&[("a", Value::List(&list))]), "&lt;: &lt;b&gt;<br>\nc");
    }

    #[test]
    fn an_unknown_placeholder_is_told_with_its_line() {
        let fault = Template::parse("a\nb {nme}\n{name}", 3, &["name", "link"]).unwrap_err();
        assert_eq!(fault, Fault::at(4, "has the placeholder {nme}; here there may be {name}, {link}"));
    }
}
