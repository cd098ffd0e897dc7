//! A mail as it is sent: headers, a plain text and the same in HTML.

use std::time::{Duration, SystemTime};

use lettre::Address;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::mail::addresses::Sender;
use crate::mail::texts::Written;

/// `id`: the same at each try, so that a server or reader that gets it twice can tell.
pub(crate) fn letter(
    from: &Sender,
    to: &Address,
    written: &Written,
    id: Uuid,
    at: Timestamp,
) -> Result<Vec<u8>, Error> {
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.seconds()).unwrap_or(0));
    // RFC 3834: nobody's holiday notice answers it.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let message = Message::builder()
        .from(from.mailbox().clone())
        .to(Mailbox::new(None, to.clone()))
        .subject(&written.subject)
        .date(date)
        .message_id(Some(format!("<{id}@{}>", from.domain())))
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_string()))
        .multipart(MultiPart::alternative_plain_html(written.plain.clone(), written.html.clone()));
    message
        .map(|message| message.formatted())
        .map_err(|error| Error::Internal(format!("a mail cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::addresses::address_of;

    #[test]
    fn a_letter_has_the_headers_of_automatic_mail_and_both_parts_in_ascii() {
        let from = Sender::parse("Żółw, Inc. <auth@żółw.example>").unwrap();
        let written =
            Written {
                subject: "Grüße\r\nBcc: b@example.com".into(), plain: "Grüße\n".into(), html: "<p>ü</p>".into()
            };
        let at = Timestamp::parse("2026-11-27T19:30:00Z").unwrap();
        let letter = letter(&from, &address_of("ann@example.com").unwrap(), &written, Uuid::nil(), at).unwrap();
        let text = String::from_utf8(letter).unwrap();
        assert!(text.is_ascii());
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "To: ann@example.com",
            "Date: Fri, 27 Nov 2026 19:30:00 +0000",
            "Message-ID: <00000000-0000-0000-0000-000000000000@xn--w-uga1v8h.example>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
        ] {
            assert!(head.lines().any(|own| own == line), "{line} is not in {head}");
        }
        let names: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split(':').next())
            .collect();
        assert!(!names.contains(&"Bcc") && names.len() == 8, "{head}");
        assert!(head.contains("<auth@xn--w-uga1v8h.example>") && head.contains("multipart/alternative"), "{head}");
        assert!(body.contains("text/plain; charset=utf-8") && body.contains("text/html; charset=utf-8"), "{body}");
    }
}
