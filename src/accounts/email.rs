//! E-mail addresses.

use std::borrow::Cow;
use std::fmt;

use idna::AsciiDenyList;
use idna::uts46::{Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;

use crate::accounts::words::is_word;

/// An e-mail address, which is the same however it was typed.
#[derive(Clone, Debug)]
pub struct Email {
    normal: String,
    /// In lower case, composed, with the domain as it was typed.
    composed: String,
    /// In lower case.
    typed: String,
}

impl Email {
    /// Accepts letters of any script, with their marks; refuses quoted local parts, comments and address literals.
    /// The error is the broken rule; it follows the field's name.
    pub fn parse(text: &str) -> Result<Email, &'static str> {
        const NO_EMAIL: &str = "must be an email";
        let typed = text.to_lowercase();
        let composed: String = typed.nfc().collect();
        if composed.chars().count() > LONGEST {
            return Err("must be shorter than or equal to 254 characters");
        }
        let (local, domain) = composed.rsplit_once('@').ok_or(NO_EMAIL)?;
        let mut atoms = local.split('.');
        if local.chars().count() > 64 || !atoms.all(|atom| is_word(atom, "!#$%&'*+/=?^_`{|}~-")) {
            return Err(NO_EMAIL);
        }
        let (above, top) = domain.rsplit_once('.').ok_or(NO_EMAIL)?;
        let labels = above.split('.').map(|label| normal_label(label, is_label)).chain([normal_label(top, is_top)]);
        let labels = labels.collect::<Option<Vec<_>>>().ok_or(NO_EMAIL)?;
        let normal = format!("{local}@{}", labels.join("."));
        if normal.chars().count() <= LONGEST {
            Ok(Email { normal, composed, typed })
        } else if domain.split('.').all(is_unmarked) {
            Ok(Email { normal: composed.clone(), composed, typed })
        } else {
            Err(NO_EMAIL)
        }
    }

    /// As it is stored and shown: in lower case, composed (NFC), and with the domain in Unicode as UTS 46 maps it.
    pub fn as_str(&self) -> &str {
        &self.normal
    }

    /// The beginning of an address, as addresses are stored.
    pub(crate) fn beginning(text: &str) -> String {
        fold(text)
    }

    /// How accounts with this address may be stored, beginning with what was typed. Those that are older than migration
    /// 0011 have the domain as it was typed, and the oldest also the form of the letters.
    pub fn spellings(&self) -> [&str; 3] {
        [&self.typed, &self.composed, &self.normal]
    }
}

impl PartialEq for Email {
    fn eq(&self, other: &Email) -> bool {
        self.normal == other.normal
    }
}

impl Eq for Email {}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.normal)
    }
}

/// In characters.
const LONGEST: usize = 254;

fn fold(text: &str) -> String {
    text.to_lowercase().nfc().collect()
}

/// The one form of a label that can be written in several ways; `None` if it does not obey the `rule`. A label that the
/// domain name system does not allow, but that is made of letters and digits alone, stays as it is: such addresses have
/// always been accepted.
fn normal_label(label: &str, rule: fn(&str) -> bool) -> Option<Cow<'_, str>> {
    // UTS 46 allows joiners only where words have them. They are stored in Punycode, because nobody sees them.
    if !rule(&label.replace(['\u{200c}', '\u{200d}'], "")) {
        return None;
    }
    if label.is_ascii() && !label.starts_with("xn--") {
        return Some(Cow::Borrowed(label));
    }
    // A label that may not be typed in Unicode, such as a picture, is shown in Punycode.
    let in_unicode = |label: &[char], _: &[char], _: bool| rule(&fold(&label.iter().collect::<String>()));
    let (normal, outcome) =
        Uts46::new().to_user_interface(label.as_bytes(), AsciiDenyList::STD3, Hyphens::Allow, in_unicode);
    // UTS 46 writes Cherokee in upper case.
    let normal = fold(&normal);
    if outcome.is_ok() && rule(&normal) {
        return Some(Cow::Owned(normal));
    }
    is_unmarked(label).then_some(Cow::Borrowed(label))
}

fn is_label(text: &str) -> bool {
    text.chars().count() <= 63 && !text.starts_with('-') && !text.ends_with('-') && is_word(text, "-")
}

fn is_top(text: &str) -> bool {
    is_label(text) && text.chars().count() >= 2 && !text.chars().all(|c| c.is_ascii_digit())
}

/// Whether all of it is letters, digits and hyphens, without marks and signs that belong to letters.
fn is_unmarked(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use idna::uts46::DnsLength;
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> String {
        Email::parse(text).unwrap_or_else(|rule| panic!("{text:?} {rule}")).normal
    }

    #[test]
    fn addresses_are_lower_case() {
        assert_eq!(normal("Ann.O'Hara+keys@Example.CO.uk"), "ann.o'hara+keys@example.co.uk");
        assert_eq!(normal("JÖRG@BÜCHER.example"), "jörg@bücher.example");
    }

    #[test]
    fn a_domain_is_the_same_in_unicode_and_in_punycode() {
        for (shown, others) in [
            (
                "ann@bücher.example",
                &["ann@xn--bcher-kva.example", "ann@XN--BCHER-KVA.EXAMPLE", "ann@bu\u{308}cher.example"][..],
            ),
            ("ann@a.bücher.рф", &["ann@a.xn--bcher-kva.xn--p1ai", "ann@a.bücher.xn--p1ai", "ann@a.xn--bcher-kva.рф"]),
            ("ann@straße.example", &["ann@xn--strae-oqa.example"]),
            ("ann@उदाहरण.परीक्षा", &["ann@xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g"]),
            ("ann@ตัวอย่าง.ไทย", &["ann@xn--72c1a1bt4awk9o.xn--o3cw4h"]),
            // Wide and small letters, and ligatures, are other letters only in front of the @.
            ("ａnn@example.com", &["ａnn@ｅｘａｍｐｌｅ.com"]),
            ("ann@office.example", &["ann@oﬃce.example"]),
            // UTS 46 writes Cherokee in upper case.
            ("ann@ꮳꮃꭹ.example", &["ann@ᏣᎳᎩ.example"]),
            // What nobody may type in Unicode is shown in Punycode.
            ("ann@xn--i-7iq.example", &["ann@XN--I-7IQ.example"]),
            ("ann@xn--la-0ea.example", &["ann@ŀa.example"]),
            // Joiners, which Persian and Sinhala words have.
            ("ann@xn--mgba3gch31f060k.example", &["ann@نامه\u{200c}ای.example"]),
            ("ann@xn--10cl1a0b660p.example", &["ann@ශ්\u{200d}රී.example"]),
        ] {
            for text in others.iter().chain([&shown]) {
                assert_eq!(normal(text), shown, "{text:?}");
            }
        }
    }

    #[test]
    fn a_domain_that_does_not_exist_stays_as_it_is_if_it_was_accepted_before() {
        for text in ["ann@xn--a.example", "ann@xn--.example", "ann@xn--abc-.a", "ann@א1a.example", "ann@⑴.example"] {
            assert_eq!(Email::parse(text).is_ok(), accepted_before(text), "{text:?}");
        }
        assert_eq!(normal("ann@xn--ü.example"), "ann@xn--ü.example");
        // Of nothing, and of letters in upper case, not composed, wide, joined where no word is, and ASCII.
        for label in ["zzzzzzzzz", "cher-fna", "bucher-xyd", "b-yq0i", "ab-m1t", "ab-6da", "bcherx-3ya45413c"] {
            let text = format!("ann@xn--{label}.example");
            assert_eq!(normal(&text), text);
        }
        // In Punycode it would be too long for a label.
        let long = format!("ann@{}.example", "ü漢".repeat(30));
        assert_eq!(normal(&long), long);
    }

    #[test]
    fn letters_of_any_script_may_have_marks() {
        for text in [
            // Devanagari, Bengali, Tamil, Sinhala, Thai, Lao, Khmer, Burmese, Tibetan.
            "संपर्क@डाटामेल.भारत",
            "যোগাযোগ@উদাহরণ.ভারত",
            "தொடர்பு@எடுத்துக்காட்டு.இந்தியா",
            "තොරතුරු@උදාහරණ.ලංකා",
            "ติดต่อ@ตัวอย่าง.ไทย",
            "ຕິດຕໍ່@ຕົວຢ່າງ.ລາວ",
            "ខ្ញុំ@ឧទាហរណ៍.example",
            "ဆက်သွယ်ရန်@ဥပမာ.example",
            "བོད་ཡིག@example.com",
            // Arabic with its vowels, Hebrew with points and a geresh, Persian, Dhivehi.
            "مُحَمَّد@مثال.السعودية",
            "שָׁלוֹם@example.com",
            "ג׳ון@example.com",
            "تماس@مثال.ایران",
            "ދިވެހި@example.com",
            // Yoruba and Lingala have letters that are not composed, Catalan two l with a dot; N'Ko; Kana.
            "ọ̀rọ̀@example.com",
            "mɔ́tɔ@example.com",
            "col·laboració@example.cat",
            "ߒߞߏ߫@example.com",
            "ばーが@example.com",
            "サーバー・ルーム@ブラック・ジャック.jp",
        ] {
            let email = Email::parse(text).unwrap_or_else(|rule| panic!("{text:?} {rule}"));
            assert_eq!(email.as_str(), text.nfc().collect::<String>());
        }
    }

    #[test]
    fn domains_that_cannot_be_are_refused_if_they_have_marks_or_joiners() {
        for text in [
            // A domain that begins with a mark, and one that mixes directions.
            "a@\u{94d}क.example",
            "a@aא\u{591}.example",
            // Joiners that UTS 46 does not allow.
            "ann@exam\u{200d}ple.com",
            "ann@نامه\u{200d}ای.example",
            "ann@\u{200c}.example",
            "ann@example.\u{200d}",
        ] {
            assert_eq!(Email::parse(text), Err("must be an email"), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "a",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b..de",
            ".a@b.de",
            "a.@b.de",
            "a..b@c.de",
            "a@-b.de",
            "a@b-.de",
            "a@b.c",
            "a@1.2.3.44",
            "a@b@c.de",
            "a@b.de\n",
            "a\0@b.de",
            "\u{200b}a@b.de",
            "a@b.de ",
            "\"a b\"@c.de",
            "a@b。de",
            "a@b.de.",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "a@192.0.2.1",
            "a@b.xn--",
            // Small, its first letter is two.
            "İan@example.com",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
        assert!(Email::parse(&format!("{}@b.de", "a".repeat(65))).is_err());
        let long = format!("a@{}.de", vec!["b".repeat(60); 5].join("."));
        assert_eq!(Email::parse(&long).unwrap_err(), "must be shorter than or equal to 254 characters");
    }

    /// What the first versions accepted.
    fn accepted_before(text: &str) -> bool {
        let email: String = text.to_lowercase().nfc().collect();
        let Some((local, domain)) = email.rsplit_once('@') else { return false };
        let is_atom = |atom: &str| {
            !atom.is_empty() && atom.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-".contains(c))
        };
        let is_label = |label: &str| {
            (1..=63).contains(&label.chars().count())
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let top = domain.rsplit('.').next().unwrap();
        email.chars().count() <= 254
            && local.chars().count() <= 64
            && local.split('.').all(is_atom)
            && domain.split('.').all(is_label)
            && domain.contains('.')
            && top.chars().count() >= 2
            && !top.chars().all(|c| c.is_ascii_digit())
    }

    /// Letters of several scripts with their marks, and what a domain maps to something else.
    fn word() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "a",
            "l",
            "·",
            "i",
            "xn--",
            "bcher-kva",
            "-",
            "ü",
            "u\u{308}",
            "ß",
            "Σ",
            "ς",
            "Ｂ",
            "ﬃ",
            "ŀ",
            "İ",
            "K",
            "ꭰ",
            "Ꭰ",
            "क",
            "्",
            "ा",
            "ก",
            "่",
            "א",
            "ְ",
            "׳",
            "1",
            "١",
            "½",
            "漢",
            "㐀",
            "\u{200d}",
            "❤",
            "\u{307}",
            "\u{301}",
            "\u{345}",
            "\u{308}",
            "한",
            "\u{11a8}",
        ];
        prop::collection::vec(prop::sample::select(PIECES), 1..6).prop_map(|pieces| pieces.concat())
    }

    fn address() -> impl Strategy<Value = String> {
        let domain =
            prop::collection::vec(prop_oneof![3 => word(), 1 => "[a-z\\PC]{1,5}", 1 => "xn--[a-z0-9-]{1,12}"], 2..4);
        (word(), domain).prop_map(|(local, labels)| format!("{local}@{}", labels.join(".")))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_accepted_is_accepted_and_found_as_it_was_stored(text in address()) {
            let email = Email::parse(&text);
            if accepted_before(&text) {
                let lower = text.to_lowercase();
                let composed: String = lower.nfc().collect();
                let email = email.unwrap();
                prop_assert_eq!(email.spellings(), [&lower, &composed, email.as_str()]);
            }
        }

        #[test]
        fn read_again_an_address_stays_the_same(text in address()) {
            if let Ok(email) = Email::parse(&text) {
                prop_assert_eq!(normal(&email.normal), &*email.normal);
                for spelling in email.spellings() {
                    prop_assert_eq!(normal(spelling), &*email.normal);
                }
                for other in [text.nfd().collect::<String>(), text.to_lowercase(), text.to_ascii_uppercase()] {
                    prop_assert_eq!(normal(&other), &*email.normal, "{:?}", other);
                }
            }
        }

        #[test]
        fn in_punycode_a_domain_is_the_same(text in address()) {
            let Ok(email) = Email::parse(&text) else { return Ok(()) };
            let (local, domain) = email.normal.rsplit_once('@').unwrap();
            let in_punycode = domain.split('.').map(|label| {
                let name = Uts46::new().to_ascii(label.as_bytes(), AsciiDenyList::STD3, Hyphens::Allow, DnsLength::Ignore);
                name.ok().filter(|name| name.len() <= 63)
            });
            if let Some(labels) = in_punycode.collect::<Option<Vec<_>>>() {
                let in_punycode = format!("{local}@{}", labels.join("."));
                prop_assume!(in_punycode.chars().count() <= LONGEST);
                prop_assert_eq!(normal(&in_punycode), &*email.normal);
            }
        }
    }
}
