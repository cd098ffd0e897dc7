//! `search_path`: which schema of the database the tables are in.
//!
//! A `search_path` among the `options` of a URL is not sent when connecting, where poolers refuse it. It is set
//! afterwards: once for a direct connection, through a pooler in each transaction.

/// Schemas, in order. Tables are made in the first that exists and that the role may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchPath(Vec<String>);

/// Stands for the schema with the role's own name.
const OWN: &str = "$user";

impl SearchPath {
    /// Splits the `options` of a URL into the `search_path` in them and the others. The error says what is wrong.
    pub(crate) fn of_options(options: &str) -> Result<(Option<SearchPath>, Option<String>), String> {
        let (mut path, mut others) = (None, Vec::new());
        let mut words = words(options).into_iter();
        while let Some(word) = words.next() {
            // `-c name=value`, `-cname=value` or `--name=value`.
            let given = match word.as_str() {
                "-c" => words.next().map(|setting| format!("-c{setting}")).unwrap_or(word),
                _ => word,
            };
            let setting = given.strip_prefix("--").or(given.strip_prefix("-c")).and_then(|text| text.split_once('='));
            match setting {
                Some((name, list)) if name.replace('-', "_").eq_ignore_ascii_case("search_path") => {
                    let known = SearchPath::parse(list).filter(|path| path.first().is_some());
                    path = Some(known.ok_or("has a search_path that does not name a schema")?);
                }
                _ => others.push(given.replace('\\', "\\\\").replace(' ', "\\ ")),
            }
        }
        Ok((path, (!others.is_empty()).then(|| others.join(" "))))
    }

    /// As PostgreSQL writes and reads it: names are separated by commas, and only what is in double quotes keeps its
    /// capitals and may have other characters. `None`: it cannot be read.
    pub(crate) fn parse(list: &str) -> Option<SearchPath> {
        let mut names = Vec::new();
        let mut rest = list.trim();
        while !rest.is_empty() {
            let name;
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = end_of_quoted(quoted)?;
                name = quoted[..end].replace("\"\"", "\"");
                rest = quoted[end + 1..].trim_start();
            } else {
                let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
                name = rest[..end].to_ascii_lowercase();
                rest = rest[end..].trim_start();
            }
            if name.is_empty() || name.contains('\0') {
                return None;
            }
            names.push(name);
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix(',')?.trim_start();
            if rest.is_empty() {
                return None;
            }
        }
        Some(SearchPath(names))
    }

    /// The schema that it is about, whether or not it exists.
    pub(crate) fn first(&self) -> Option<&str> {
        self.0.iter().map(String::as_str).find(|name| *name != OWN)
    }

    /// Whether it means this schema for a role of this name, and not only if the schemas before it are missing.
    pub(crate) fn means(&self, schema: &str, role: &str) -> bool {
        let is_own_first = self.0.first().is_some_and(|name| name == OWN);
        self.first() == Some(schema) || (is_own_first && schema == role)
    }

    /// For SET.
    pub(crate) fn statement_list(&self) -> String {
        self.0.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
    }
}

/// A name in a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where the closing quote is; two quotes stand for one within.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let quote = from + text.get(from..)?.find('"')?;
        if !text[quote + 1..].starts_with('"') {
            return Some(quote);
        }
        from = quote + 2;
    }
}

/// The words of `options`: a backslash takes what follows it as it is, a space too.
fn words(options: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (character, Some(word)) if !character.is_whitespace() => word.push(character),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str]) -> SearchPath {
        SearchPath(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn lists_are_read_as_postgresql_reads_them() {
        for (list, expected) in [
            ("keyward", Some(&["keyward"][..])),
            ("Keyward", Some(&["keyward"])),
            ("\"$user\", public", Some(&["$user", "public"])),
            ("$user,public", Some(&["$user", "public"])),
            (" \"Key \"\"Ward\" ,b", Some(&["Key \"Ward", "b"])),
            ("\"a,b\"", Some(&["a,b"])),
            ("\"\u{fc}\"", Some(&["\u{fc}"])),
            ("", Some(&[])),
            ("\"\"", None),
            ("a,", None),
            (",a", None),
            ("a b", None),
            ("\"a", None),
            ("\"a\"b", None),
            ("\"a\"\"", None),
        ] {
            assert_eq!(SearchPath::parse(list), expected.map(path), "{list}");
        }
        assert_eq!(path(&["a\"b", "$user"]).statement_list(), "\"a\"\"b\", \"$user\"");
    }

    #[test]
    fn the_path_is_taken_out_of_options_however_it_is_written() {
        for (options, names, others) in [
            ("-csearch_path=keyward", Some(&["keyward"][..]), None),
            ("-c search_path=keyward", Some(&["keyward"]), None),
            ("--search_path=keyward", Some(&["keyward"]), None),
            ("--search-path=a,b", Some(&["a", "b"]), None),
            ("-cSearch_Path=\"a\\ b\"", Some(&["a b"]), None),
            ("-c search_path=a -c geqo=off -c search_path=b", Some(&["b"]), Some("-cgeqo=off")),
            ("-c statement_timeout=5s  --geqo=off", None, Some("-cstatement_timeout=5s --geqo=off")),
            ("-c application_name=a\\ b\\\\c", None, Some("-capplication_name=a\\ b\\\\c")),
            ("-d 5 -c", None, Some("-d 5 -c")),
            ("", None, None),
        ] {
            let (path_of, others_of) = SearchPath::of_options(options).unwrap();
            assert_eq!((path_of, others_of.as_deref()), (names.map(path), others), "{options}");
        }
        for options in ["-csearch_path=", "-csearch_path=a,", "-csearch_path=$user", "--search_path=\"a"] {
            assert!(SearchPath::of_options(options).is_err(), "{options}");
        }
    }

    #[test]
    fn it_means_its_first_schema_or_that_of_the_role() {
        for (names, schema, expected) in [
            (&["keyward"][..], "keyward", true),
            (&["keyward", "public"], "public", false),
            (&["$user", "public"], "public", true),
            (&["$user", "public"], "ann", true),
            (&["public", "$user"], "ann", false),
        ] {
            assert_eq!(path(names).means(schema, "ann"), expected, "{names:?} {schema}");
        }
    }
}
