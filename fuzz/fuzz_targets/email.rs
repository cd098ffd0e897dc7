//! What people write about themselves: e-mail addresses, names and passwords.
#![no_main]

use std::collections::HashSet;
use std::sync::LazyLock;

use keyward::accounts::email::Email;
use keyward::accounts::passwords::PasswordRules;
use keyward::accounts::user::{UserRef, parse_name};
use keyward::base::id::UserId;
use libfuzzer_sys::fuzz_target;
use unicode_normalization::UnicodeNormalization;

static COMMON: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("../../static/common-passwords.txt").lines().collect());
static RULES: LazyLock<PasswordRules> = LazyLock::new(|| PasswordRules::new(8));

fuzz_target!(|text: &str| {
    let length = text.chars().count();
    if let Ok(email) = Email::parse(text) {
        let kept = email.as_str();
        // Read again, it is the same: equal addresses are equal texts, however often they were stored and read.
        assert_eq!(Email::parse(kept), Ok(email.clone()), "{text:?}");
        assert_eq!(Email::parse(&text.to_ascii_uppercase()), Ok(email.clone()), "{text:?}");
        // Typed in the other form of Unicode, it is the same.
        for other in [text.nfd().collect::<String>(), text.nfc().collect()] {
            assert_eq!(Email::parse(&other), Ok(email.clone()), "{text:?} as {other:?}");
        }
        assert!(kept.chars().count() <= 254 && kept.matches('@').count() == 1, "{kept:?}");
        // It goes into logs, headers and lists: nothing in it ends a line, separates or cannot be seen.
        assert!(!kept.chars().any(|c| c.is_control() || c.is_whitespace() || ",;<>()[]\\\"".contains(c)), "{kept:?}");
        assert!(matches!(UserRef::parse(text), Some(UserRef::Email(found)) if found == email), "{text:?}");
    } else if let Some(user) = UserRef::parse(text) {
        assert!(matches!(user, UserRef::Id(id) if UserId::parse(text) == Some(id)), "{text:?}");
    }
    assert_eq!(parse_name(text).ok().as_deref(), (length <= 255).then_some(text));
    let is_good = length >= 8 && text.len() <= 72 && !text.contains('\0') && !COMMON.contains(text);
    assert_eq!(RULES.judge(text).is_ok(), is_good, "{text:?}");
});
