//! What mails say: our texts, and in place of each the operator's if they have one. All are checked when they are read.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::mail::kinds::MailKind;
use crate::mail::template::{Fault, Template, Value, Values};

/// Of one file, in bytes.
const LARGEST: u64 = 64 * 1024;

const SENTENCES_FILE: &str = "sentences.txt";
const LAYOUT_FILE: &str = "layout.html";
const TEST_FILE: &str = "test.txt";

/// Our own texts, by their files' names.
static OWN: [(&str, &str); 10] = [
    ("verification.txt", include_str!("../../static/mail/verification.txt")),
    ("reset.txt", include_str!("../../static/mail/reset.txt")),
    ("invitation.txt", include_str!("../../static/mail/invitation.txt")),
    ("address-change.txt", include_str!("../../static/mail/address-change.txt")),
    ("address-change-notice.txt", include_str!("../../static/mail/address-change-notice.txt")),
    ("address-changed.txt", include_str!("../../static/mail/address-changed.txt")),
    ("notices.txt", include_str!("../../static/mail/notices.txt")),
    (TEST_FILE, include_str!("../../static/mail/test.txt")),
    (SENTENCES_FILE, include_str!("../../static/mail/sentences.txt")),
    (LAYOUT_FILE, include_str!("../../static/mail/layout.html")),
];

/// The sentences, each with its placeholders beside `{service}`.
const SENTENCES: [(&str, &[&str]); 26] = [
    ("nobody", &[]),
    ("from-address", &["address"]),
    ("by-operator", &[]),
    ("by-itself", &[]),
    ("password-changed", &[]),
    ("password-set", &[]),
    ("password-reset", &[]),
    ("factor-enabled", &[]),
    ("factor-disabled", &[]),
    ("recovery-code-used", &[]),
    ("codes-rest", &["time"]),
    ("new-address", &[]),
    ("session-reused", &[]),
    ("key-created", &["key"]),
    ("key-rotated", &["key"]),
    ("key-expiring", &["key", "time"]),
    ("webhook-created", &["webhook"]),
    ("webhook-moved", &["webhook"]),
    ("webhook-disabled", &["webhook"]),
    ("more", &[]),
    ("day", &[]),
    ("days", &["count"]),
    ("hour", &[]),
    ("hours", &["count"]),
    ("minute", &[]),
    ("minutes", &["count"]),
];

/// A mail that is written, but not addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub subject: String,
    pub plain: String,
    pub html: String,
}

/// One mail's text.
#[derive(Debug)]
struct Text {
    subject: Template,
    paragraphs: Vec<Template>,
}

impl Text {
    /// The first line is `Subject: …`, a blank line follows, and then paragraphs with blank lines between them.
    fn parse(text: &str, allowed: &[&str], required: Option<&str>) -> Result<Text, Fault> {
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let subject = first.strip_prefix("Subject:").map(str::trim).filter(|subject| !subject.is_empty());
        let subject = subject.ok_or_else(|| Fault::at(1, "does not begin with Subject: and what the mail is about"))?;
        let subject = Template::parse(subject, 1, &["service"])?;
        if rest.lines().next().is_some_and(|line| !line.trim().is_empty()) {
            return Err(Fault::at(2, "is not blank, as the line after the subject is"));
        }
        let mut paragraphs = Vec::new();
        let (mut paragraph, mut begins) = (String::new(), 0);
        for (number, line) in rest.lines().chain([""]).enumerate() {
            if !line.trim().is_empty() {
                if paragraph.is_empty() {
                    begins = number + 2;
                } else {
                    paragraph.push('\n');
                }
                paragraph.push_str(line.trim_end());
            } else if !paragraph.is_empty() {
                paragraphs.push(Template::parse(&std::mem::take(&mut paragraph), begins, allowed)?);
            }
        }
        if paragraphs.is_empty() {
            return Err(Fault { line: None, what: "has nothing after the subject".to_string() });
        }
        if let Some(required) = required.filter(|required| !paragraphs.iter().any(|part| part.has(required))) {
            return Err(Fault { line: None, what: format!("has no {{{required}}}") });
        }
        Ok(Text { subject, paragraphs })
    }
}

#[derive(Debug)]
pub struct Texts {
    mails: HashMap<&'static str, Text>,
    sentences: HashMap<String, Template>,
    layout: Template,
}

impl Texts {
    /// Reads the operator's texts from a folder. The error is one line for the operator.
    pub fn load(folder: Option<&Path>) -> Result<Texts, String> {
        let mut files: HashMap<&'static str, (String, String)> =
            OWN.iter().map(|(name, text)| (*name, (name.to_string(), text.to_string()))).collect();
        if let Some(folder) = folder {
            let unreadable = |error| format!("MAIL_TEMPLATES: {} cannot be read: {error}", folder.display());
            for entry in folder.read_dir().map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if let Some((own, _)) = OWN.iter().find(|(own, _)| *own == name) {
                    files.insert(own, (path.display().to_string(), read(&path)?));
                } else if !name.starts_with('.') && (name.ends_with(".txt") || name.ends_with(".html")) {
                    let names: Vec<&str> = OWN.iter().map(|(name, _)| *name).collect();
                    let path = path.display();
                    return Err(format!("MAIL_TEMPLATES: {path} is no mail's text; there are {}", names.join(", ")));
                }
            }
        }
        Texts::parse(&files)
    }

    fn parse(files: &HashMap<&'static str, (String, String)>) -> Result<Texts, String> {
        let told = |name: &str, fault: Fault| {
            let path = files.get(name).map_or(name, |(path, _)| path.as_str());
            match fault.line {
                Some(line) => format!("MAIL_TEMPLATES: {path}:{line} {}", fault.what),
                None => format!("MAIL_TEMPLATES: {path} {}", fault.what),
            }
        };
        let text = |name: &str| files.get(name).map_or("", |(_, text)| text.as_str());
        let mut mails = HashMap::new();
        for (name, _) in OWN.iter().filter(|(name, _)| ![SENTENCES_FILE, LAYOUT_FILE].contains(name)) {
            let kind = name.strip_suffix(".txt").and_then(MailKind::parse);
            let (allowed, required): (&[&str], Option<&str>) = match kind {
                Some(MailKind::Notices) => (&["name", "service", "notices"], Some("notices")),
                Some(MailKind::AddressChangeNotice | MailKind::AddressChanged) | None => (&["name", "service"], None),
                Some(_) => (&["name", "service", "link", "lifetime"], Some("link")),
            };
            let key = kind.map_or(TEST_FILE, MailKind::as_str);
            mails.insert(key, Text::parse(text(name), allowed, required).map_err(|fault| told(name, fault))?);
        }
        let sentences = parse_sentences(text(SENTENCES_FILE)).map_err(|fault| told(SENTENCES_FILE, fault))?;
        let layout = Template::parse(text(LAYOUT_FILE), 1, &["subject", "content"]);
        let layout = layout.and_then(|layout| match layout.has("content") {
            true => Ok(layout),
            false => Err(Fault { line: None, what: "has no {content}".to_string() }),
        });
        Ok(Texts { mails, sentences, layout: layout.map_err(|fault| told(LAYOUT_FILE, fault))? })
    }

    /// The mail of this kind; `None`: the test. Values of which the text has no placeholder are passed over.
    pub(crate) fn write(&self, kind: Option<MailKind>, values: &Values<'_>) -> Written {
        let kind = kind.map(|kind| if kind.lists_notices() { MailKind::Notices } else { kind });
        let Some(text) = self.mails.get(kind.map_or(TEST_FILE, MailKind::as_str)) else {
            return Written { subject: String::new(), plain: String::new(), html: String::new() };
        };
        let subject = text.subject.plain(values);
        let plain: Vec<String> = text.paragraphs.iter().map(|paragraph| paragraph.plain(values)).collect();
        let content: Vec<String> =
            text.paragraphs.iter().map(|paragraph| format!("<p>{}</p>", paragraph.escaped(values))).collect();
        let content = content.join("\n");
        let html = self.layout.html(&[("subject", Value::Text(&subject)), ("content", Value::Html(&content))]);
        Written { subject, plain: plain.join("\n\n") + "\n", html }
    }

    pub(crate) fn sentence(&self, name: &str, values: &Values<'_>) -> String {
        self.sentences.get(name).map(|sentence| sentence.plain(values)).unwrap_or_default()
    }
}

/// The error is one line for the operator.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    let path = path.display();
    read.map_err(|error| format!("MAIL_TEMPLATES: {path} cannot be read: {error}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("MAIL_TEMPLATES: {path} has more than {LARGEST} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("MAIL_TEMPLATES: {path} is not UTF-8"))
}

fn parse_sentences(text: &str) -> Result<HashMap<String, Template>, Fault> {
    let mut sentences = HashMap::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, sentence) = line.split_once('=').ok_or_else(|| Fault::at(number, "is not NAME = SENTENCE"))?;
        let (name, sentence) = (name.trim(), sentence.trim());
        let Some((_, own)) = SENTENCES.iter().find(|(known, _)| *known == name) else {
            return Err(Fault::at(number, format!("names the sentence {name:?}, which there is not")));
        };
        let allowed: Vec<&str> = own.iter().copied().chain(["service"]).collect();
        let sentence = Template::parse(sentence, number, &allowed)?;
        if sentences.insert(name.to_string(), sentence).is_some() {
            return Err(Fault::at(number, format!("names the sentence {name} again")));
        }
    }
    match SENTENCES.iter().find(|(name, _)| !sentences.contains_key(*name)) {
        Some((name, _)) => Err(Fault { line: None, what: format!("lacks the sentence {name}") }),
        None => Ok(sentences),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::notices::Notice;

    fn own() -> HashMap<&'static str, (String, String)> {
        OWN.iter().map(|(name, text)| (*name, (format!("/t/{name}"), text.to_string()))).collect()
    }

    fn with(name: &'static str, text: &str) -> Result<Texts, String> {
        let mut files = own();
        files.insert(name, (format!("/t/{name}"), text.to_string()));
        Texts::parse(&files)
    }

    #[test]
    fn our_texts_say_what_every_kind_of_mail_needs() {
        let texts = Texts::load(None).unwrap();
        let notices = ["a".to_string(), "b".to_string()];
        let values = [
            ("name", Value::Text("Ann <b>")),
            ("service", Value::Text("Example")),
            ("link", Value::Link("https://a.example/#1")),
            ("lifetime", Value::Text("1 hour")),
            ("notices", Value::List(&notices)),
        ];
        for kind in MailKind::ALL.into_iter().map(Some).chain([None]) {
            let Written { subject, plain, html } = texts.write(kind, &values);
            assert!(subject.contains("Example") && plain.starts_with("Hello Ann <b>,\n\n"), "{plain}");
            assert!(
                html.contains("<p>Hello Ann &lt;b&gt;,</p>") && html.contains(&format!("<title>{subject}</title>"))
            );
            assert!(!plain.contains('{') && !html.contains('{'), "{html}");
        }
        let reset = texts.write(Some(MailKind::Reset), &values);
        assert!(reset.plain.contains("\n\nhttps://a.example/#1\n\n"));
        assert!(reset.html.contains("<p><a href=\"https://a.example/#1\">https://a.example/#1</a></p>"));
        assert!(texts.write(Some(MailKind::Notices), &values).plain.contains("\n\n- a\n- b\n\n"));
    }

    #[test]
    fn every_notice_of_the_gathered_ones_has_its_sentence() {
        for notice in Notice::ALL.into_iter().filter(|notice| notice.mail().lists_notices()) {
            assert!(SENTENCES.iter().any(|(name, _)| *name == notice.as_str()), "{notice:?}");
        }
    }

    #[test]
    fn a_fault_is_told_with_file_and_line() {
        let sentences = own()[SENTENCES_FILE].1.clone();
        for (name, text, told) in [
            ("reset.txt", "Hello", "/t/reset.txt:1 does not begin with Subject: and what the mail is about"),
            ("reset.txt", "Subject: a\nb", "/t/reset.txt:2 is not blank, as the line after the subject is"),
            ("reset.txt", "Subject: a\n\n", "/t/reset.txt has nothing after the subject"),
            ("reset.txt", "Subject: a\n\nb {name}", "/t/reset.txt has no {link}"),
            (
                "reset.txt",
                "Subject: a\n\nb\nc\n\n{link}\n{token}",
                "/t/reset.txt:7 has the placeholder {token}; here there may be {name}, {service}, {link}, {lifetime}",
            ),
            (
                "reset.txt",
                "Subject: for {name}\n\n{link}",
                "/t/reset.txt:1 has the placeholder {name}; here there may be {service}",
            ),
            ("notices.txt", "Subject: a\n\nb", "/t/notices.txt has no {notices}"),
            ("layout.html", "<p>", "/t/layout.html has no {content}"),
            ("sentences.txt", "# a\n\nmore", "/t/sentences.txt:3 is not NAME = SENTENCE"),
            ("sentences.txt", "less = a", "/t/sentences.txt:1 names the sentence \"less\", which there is not"),
            ("sentences.txt", "more = a\nmore = a", "/t/sentences.txt:2 names the sentence more again"),
            ("sentences.txt", "more = a", "/t/sentences.txt lacks the sentence nobody"),
            (
                "sentences.txt",
                "more = {count}",
                "/t/sentences.txt:1 has the placeholder {count}; here there may be {service}",
            ),
        ] {
            assert_eq!(with(name, text).unwrap_err(), format!("MAIL_TEMPLATES: {told}"), "{text}");
        }
        assert!(with(SENTENCES_FILE, &sentences.replace("Your password was changed.", "Neues Passwort.")).is_ok());
        // As some editors write them.
        assert!(with("reset.txt", "Subject: a\r\n\r\nb\r\n\r\n{link}\r\n").is_ok());
    }
}
