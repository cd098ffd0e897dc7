//! What people write about themselves: e-mail addresses, names and passwords.
#![no_main]

use std::collections::HashSet;
use std::sync::LazyLock;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use keyward::accounts::email::Email;
use keyward::accounts::passwords::PasswordRules;
use keyward::accounts::user::{UserRef, parse_name};
use keyward::base::id::UserId;
use libfuzzer_sys::fuzz_target;
use unicode_normalization::UnicodeNormalization;

static COMMON: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("../../static/common-passwords.txt").lines().collect());
static RULES: LazyLock<PasswordRules> = LazyLock::new(|| PasswordRules::new(8));

/// If the domain can be written so.
fn in_punycode(email: &str) -> Option<String> {
    let (local, domain) = email.rsplit_once('@')?;
    let labels = domain.split('.').map(|label| {
        let name = Uts46::new().to_ascii(label.as_bytes(), AsciiDenyList::STD3, Hyphens::Allow, DnsLength::Ignore);
        name.ok().filter(|name| name.len() <= 63)
    });
    let email = format!("{local}@{}", labels.collect::<Option<Vec<_>>>()?.join("."));
    (email.chars().count() <= 254).then_some(email)
}

fuzz_target!(|text: &str| {
    let length = text.chars().count();
    if let Ok(email) = Email::parse(text) {
        let kept = email.as_str();
        // Read again, it is the same: equal addresses are equal texts, however often they were stored and read. It is so
        // as older accounts have it, and in the other form of Unicode, and in Punycode.
        let mut others = vec![kept.to_string(), text.to_ascii_uppercase()];
        others.extend(email.spellings().map(str::to_string));
        others.extend([text.nfd().collect(), text.nfc().collect(), in_punycode(kept).unwrap_or_default()]);
        for other in others.iter().filter(|other| !other.is_empty()) {
            let read = Email::parse(other).map(|email| email.to_string());
            assert_eq!(read.as_deref(), Ok(kept), "{text:?} as {other:?}");
        }
        assert!(kept.chars().count() <= 254 && kept.matches('@').count() == 1, "{kept:?}");
        // It goes into logs, headers and lists: nothing in it ends a line, separates or cannot be seen.
        assert!(!kept.chars().any(|c| c.is_control() || c.is_whitespace() || ",;<>()[]\\\"".contains(c)), "{kept:?}");
        assert!(matches!(UserRef::parse(text), Some(UserRef::Email(found)) if found == email), "{text:?}");
    } else if let Some(user) = UserRef::parse(text) {
        assert!(matches!(user, UserRef::Id(id) if UserId::parse(text) == Some(id)), "{text:?}");
    }
    assert_eq!(parse_name(text).ok().as_deref(), (length <= 255).then_some(text));
    let composed: String = text.nfc().collect();
    let is_good = composed.chars().count() >= 8
        && composed.len() <= 72
        && !composed.contains('\0')
        && !COMMON.contains(composed.as_str());
    assert_eq!(RULES.judge(text).is_ok(), is_good, "{text:?}");
});
