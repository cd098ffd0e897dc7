//! Passwords: which ones are accepted as new, how they are hashed, and on which threads.

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{self, AtomicU32};
use std::sync::mpsc;

use log::warn;
use unicode_normalization::UnicodeNormalization;

use crate::base::error::Error;
use crate::base::pool::Pool;

/// bcrypt ignores everything after this many bytes.
const LONGEST_BYTES: usize = 72;

/// Common passwords, which are refused (OWASP ASVS 5.0, 6.2.4): from SecLists' list of the 100,000 most common ones,
/// those of eight characters or more in the first quarter. One a line, sorted by their bytes.
static COMMON: &[u8] = include_bytes!("../../static/common-passwords.txt");

/// The highest cost that `BCRYPT_COST` can be. Refusals are not slowed down to match a stored hash of a higher one.
const HIGHEST_COST: u32 = 15;

/// A new password that obeys the rules, composed. It has no `Debug`, so that no log can show it.
pub struct NewPassword(String);

/// As Unicode composes it (NFC). Keyboards and systems differ in this, and the person who types cannot see it.
fn composed(password: &str) -> String {
    password.nfc().collect()
}

/// Whether two texts are one password.
pub fn is_same(one: &str, other: &str) -> bool {
    one.nfc().eq(other.nfc())
}

/// How a right password was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// As it is hashed.
    AsHashed,
    /// In another form: only its composed form is what is hashed.
    Otherwise,
}

/// The rules for new passwords. There are no composition rules: they make passwords worse (ASVS 6.2.5).
#[derive(Clone, Copy, Debug)]
pub struct PasswordRules {
    /// In characters.
    shortest: usize,
    too_short: &'static str,
}

impl PasswordRules {
    pub fn new(shortest: usize) -> PasswordRules {
        let too_short = format!("must be longer than or equal to {shortest} characters");
        // Rules are made once a process, so the text is leaked once.
        PasswordRules { shortest, too_short: too_short.leak() }
    }

    /// Judges the composed form, which is what is hashed. The error is the broken rule; it follows the field's name.
    pub fn judge(&self, text: &str) -> Result<NewPassword, &'static str> {
        let text = composed(text);
        if text.chars().count() < self.shortest {
            return Err(self.too_short);
        }
        // bcrypt would cut it silently, and accept every password with the same first 72 bytes.
        if text.len() > LONGEST_BYTES {
            return Err("must be shorter than or equal to 72 bytes");
        }
        // bcrypt in C ends a password at the first NUL.
        if text.contains('\0') {
            return Err("must not contain NUL characters");
        }
        if is_common(&text) {
            return Err("is too common");
        }
        Ok(NewPassword(text))
    }
}

/// Binary search in the list's text.
fn is_common(password: &str) -> bool {
    let mut rest = COMMON;
    while !rest.is_empty() {
        let start = rest[..rest.len() / 2].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = rest[start..].iter().position(|byte| *byte == b'\n').map_or(rest.len(), |length| start + length);
        match rest[start..end].cmp(password.as_bytes()) {
            Ordering::Equal => return true,
            Ordering::Less => rest = rest.get(end + 1..).unwrap_or_default(),
            Ordering::Greater => rest = &rest[..start],
        }
    }
    false
}

/// A bcrypt hash in its usual text form, or empty: no password is right. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Of somebody who has no password.
    pub(crate) fn none() -> PasswordHash {
        PasswordHash(String::new())
    }

    pub(crate) fn from_stored(text: String) -> PasswordHash {
        PasswordHash(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(password hash)")
    }
}

/// Hashes and verifies passwords: one at a time on each core, on threads of low priority.
pub(crate) struct Passwords {
    pool: Pool,
    /// Of new hashes.
    cost: u32,
    /// The highest known cost of a stored hash. Every refusal takes as long as verifying a hash of this cost.
    highest_cost: AtomicU32,
}

impl Passwords {
    /// `waiting`: how many callers may wait for a free core.
    pub(crate) fn new(cost: u32, cores: usize, waiting: usize) -> Passwords {
        Passwords { pool: Pool::yielding("hash", cores, waiting), cost, highest_cost: AtomicU32::new(cost) }
    }

    /// Notes the cost of a stored hash; its beginning is enough.
    pub(crate) fn note_cost(&self, hash: &str) {
        if let Some(cost) = cost_of(hash) {
            self.highest_cost.fetch_max(cost.min(HIGHEST_COST), atomic::Ordering::Relaxed);
        }
    }

    pub(crate) fn hash(&self, password: NewPassword) -> Result<PasswordHash, Error> {
        let cost = self.cost;
        // The rules allow at most 72 bytes, so nothing is cut. `bcrypt::non_truncating_hash` would refuse all 72.
        self.run(move || bcrypt::hash(password.0, cost))?
            .map(PasswordHash)
            .map_err(|error| Error::Internal(format!("hashing a password: {error}")))
    }

    /// Whether the password belongs to the hash: as it was typed, or else composed. `None`: it does not.
    ///
    /// Every refusal takes the same time, also without a hash (no such user) or with that of no password. A password that is not composed takes twice
    /// as long, whatever the hash is. Hashes that were made by Keyward's predecessor cut passwords at 72 bytes; verifying
    /// does the same.
    pub(crate) fn verify(&self, password: String, hash: Option<&PasswordHash>) -> Result<Option<Typed>, Error> {
        let hash = hash.filter(|hash| **hash != PasswordHash::none());
        if let Some(hash) = hash {
            self.note_cost(&hash.0);
        }
        let known = hash.is_some();
        let highest_cost = self.highest_cost.load(atomic::Ordering::Relaxed);
        let hash = hash.map_or_else(|| dummy_hash(highest_cost), |hash| hash.0.clone());
        let composed = Some(composed(&password)).filter(|composed| *composed != password);
        let forms: Vec<_> = [(password, Typed::AsHashed)]
            .into_iter()
            .chain(composed.map(|composed| (composed, Typed::Otherwise)))
            .collect();
        self.run(move || {
            for (form, typed) in &forms {
                if bcrypt::verify(form, &hash)? && known {
                    return Ok(Some(*typed));
                }
            }
            // Each cost step doubles the work, so verifying once at each missing cost adds up to the difference.
            for missing in cost_of(&hash).unwrap_or(highest_cost)..highest_cost {
                for (form, _) in &forms {
                    bcrypt::verify(form, &dummy_hash(missing))?;
                }
            }
            Ok(None)
        })?
        .map_err(|error: bcrypt::BcryptError| Error::Internal(format!("verifying a password: {error}")))
    }

    /// A new hash of the right password, if the stored one has a lower cost than the configured one, or is of a form that
    /// is not composed, as earlier versions made it. If it cannot be made, the stored one stays until the next login.
    pub(crate) fn rehash(&self, password: &str, typed: Typed, stored: &PasswordHash) -> Option<PasswordHash> {
        let cost = self.cost;
        let stored_cost = cost_of(&stored.0)?;
        let composed = composed(password);
        // A longer password is cut at 72 bytes, as it was for the stored hash. Composed, it would be cut elsewhere.
        let is_cut = password.len().max(composed.len()) > LONGEST_BYTES;
        let is_of_another_form = typed == Typed::AsHashed && composed != password && !is_cut;
        if stored_cost >= cost && !is_of_another_form {
            return None;
        }
        let cost = cost.max(stored_cost);
        let password = if is_cut && typed == Typed::AsHashed { password.to_string() } else { composed };
        let hashed = self.run(move || bcrypt::hash(password, cost));
        hashed
            .inspect_err(|error| warn!("a password could not be hashed again: {error:?}"))
            .ok()?
            .inspect_err(|error| warn!("a password could not be hashed again: {error}"))
            .ok()
            .map(PasswordHash)
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.pool
            .submit(
                None,
                Box::new(move || {
                    let _ = answer.send(work());
                }),
            )
            .map_err(|_| Error::Unavailable("too many passwords wait to be hashed".to_string()))?;
        answered.recv().map_err(|_| Error::Internal("the hashing thread gave no answer".to_string()))
    }
}

/// `$2b$10$…` → 10.
fn cost_of(hash: &str) -> Option<u32> {
    hash.split('$').nth(2)?.parse().ok()
}

/// A well-formed hash that no password is known for.
fn dummy_hash(cost: u32) -> String {
    format!("$2b${cost:02}$KeywardKeywardKeywarduu1fJ0l8Yd4nWQbX5rTz6cE3vH2gSa7i")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(10, 1, 8)
    }

    #[test]
    fn a_hash_verifies_its_own_password_only() {
        let passwords = passwords();
        let hash = passwords.hash(PasswordRules::new(8).judge("correct horse").ok().unwrap()).ok().unwrap();
        assert_eq!(passwords.verify("correct horse".into(), Some(&hash)).unwrap(), Some(Typed::AsHashed));
        assert_eq!(passwords.verify("correct horsf".into(), Some(&hash)).unwrap(), None);
    }

    #[test]
    fn a_password_is_verified_as_it_was_typed_and_then_composed() {
        let passwords = passwords();
        let (composed, other) = ("gr\u{fc}ne \u{c5}pfel", "gru\u{308}ne A\u{30a}pfel");
        let new = passwords.hash(PasswordRules::new(8).judge(other).ok().unwrap()).ok().unwrap();
        assert_eq!(passwords.verify(composed.into(), Some(&new)).unwrap(), Some(Typed::AsHashed));
        assert_eq!(passwords.verify(other.into(), Some(&new)).unwrap(), Some(Typed::Otherwise));
        // As earlier versions hashed it.
        let old = PasswordHash(bcrypt::hash(other, 10).unwrap());
        assert_eq!(passwords.verify(other.into(), Some(&old)).unwrap(), Some(Typed::AsHashed));
        assert_eq!(passwords.verify(composed.into(), Some(&old)).unwrap(), None);
        // Unicode's other equivalence is another password.
        assert_eq!(passwords.verify("gr\u{fc}ne \u{ff21}\u{30a}pfel".into(), Some(&new)).unwrap(), None);
        assert!(is_same(composed, other) && !is_same("\u{fb01}", "fi"));
    }

    #[test]
    fn a_hash_of_a_form_that_is_not_composed_is_replaced() {
        let passwords = passwords();
        let (composed, other) = ("gr\u{fc}n", "gru\u{308}n");
        for cost in [4, 10, 11] {
            let old = PasswordHash(bcrypt::hash(other, cost).unwrap());
            let new = passwords.rehash(other, Typed::AsHashed, &old).unwrap();
            assert_eq!(cost_of(&new.0), Some(cost.max(10)));
            assert!(bcrypt::verify(composed, &new.0).unwrap());
        }
        let new = PasswordHash(bcrypt::hash(composed, 10).unwrap());
        assert_eq!(passwords.rehash(other, Typed::Otherwise, &new), None);
        assert_eq!(passwords.rehash(composed, Typed::AsHashed, &new), None);
        // Composed it would be cut elsewhere, so what was cut keeps its form.
        let long = other.repeat(20);
        let old = PasswordHash(bcrypt::hash(&long, 10).unwrap());
        assert_eq!(passwords.rehash(&long, Typed::AsHashed, &old), None);
        let old = PasswordHash(bcrypt::hash(&long, 4).unwrap());
        let new = passwords.rehash(&long, Typed::AsHashed, &old).unwrap();
        assert!(bcrypt::verify(&long, &new.0).unwrap());
    }

    #[test]
    fn without_a_user_the_hash_that_stands_for_one_is_read() {
        // A dummy that bcrypt cannot read would be an error, and return at once.
        assert_eq!(passwords().verify("anything".into(), None).unwrap(), None);
        assert_eq!(passwords().verify("u\u{308}".into(), None).unwrap(), None);
        for password in ["anything", ""] {
            assert_eq!(passwords().verify(password.into(), Some(&PasswordHash::none())).unwrap(), None);
        }
    }

    #[test]
    fn the_cost_is_read_from_a_hash() {
        assert_eq!((cost_of(&dummy_hash(10)), cost_of("nonsense")), (Some(10), None));
    }

    #[test]
    fn a_hash_of_a_higher_cost_raises_the_work_for_all_up_to_a_limit() {
        let passwords = passwords();
        let work = || passwords.highest_cost.load(atomic::Ordering::Relaxed);
        for (hash, expected) in [("$2b$08$", 10), ("$2a$12$", 12), ("$2b$11$", 12), ("nonsense", 12), ("$2b$31$", 15)] {
            passwords.note_cost(hash);
            assert_eq!(work(), expected, "{hash}");
        }
    }

    #[test]
    fn only_a_hash_of_a_lower_cost_is_replaced() {
        let passwords = passwords();
        let stored = |cost| PasswordHash(bcrypt::hash("x".repeat(80), cost).unwrap());
        assert_eq!(passwords.rehash("anything", Typed::AsHashed, &stored(10)), None);
        assert_eq!(passwords.rehash("anything", Typed::AsHashed, &PasswordHash("nonsense".into())), None);
        // What was cut at 72 bytes stays so.
        let hash = passwords.rehash(&"x".repeat(80), Typed::AsHashed, &stored(4)).unwrap();
        assert_eq!(cost_of(&hash.0), Some(10));
        for length in [72, 80] {
            assert_eq!(passwords.verify("x".repeat(length), Some(&hash)).unwrap(), Some(Typed::AsHashed));
        }
    }

    #[test]
    fn length_is_counted_in_characters_below_and_in_bytes_above() {
        let rules = PasswordRules::new(8);
        let short = Some("must be longer than or equal to 8 characters");
        assert_eq!(rules.judge("äöüäöüä").err(), short);
        assert!(rules.judge("äöüäöüäö").is_ok());
        assert!(rules.judge(&"x".repeat(72)).is_ok());
        assert!(rules.judge(&"x".repeat(73)).is_err());
        assert!(rules.judge(&"ä".repeat(37)).is_err());
        // Composed it has four characters, or 72 bytes, or is longer than it was typed.
        assert_eq!(rules.judge(&"a\u{308}".repeat(4)).err(), short);
        assert!(rules.judge(&"a\u{308}".repeat(36)).is_ok());
        assert!(rules.judge(&"a\u{308}".repeat(37)).is_err());
        assert!(rules.judge(&"\u{958}".repeat(12)).is_ok());
        assert_eq!(rules.judge(&"\u{958}".repeat(13)).err(), Some("must be shorter than or equal to 72 bytes"));
        let rules = PasswordRules::new(15);
        assert_eq!(rules.judge("fourteen chars").err(), Some("must be longer than or equal to 15 characters"));
        assert!(rules.judge("fifteen  chars!").is_ok());
    }

    #[test]
    fn the_list_of_common_passwords_is_what_the_search_needs() {
        let list = std::str::from_utf8(COMMON).unwrap();
        let lines: Vec<&str> = list.lines().collect();
        assert!(lines.len() >= 3000 && list.ends_with('\n'));
        assert!(lines.is_sorted_by(|one, next| one < next));
        for line in lines {
            assert!(line.chars().count() >= 8 && is_common(line), "{line}");
        }
    }

    #[test]
    fn common_passwords_are_refused_as_they_are_written() {
        let rules = PasswordRules::new(8);
        for common in ["password", "12345678", "Password1", "qwertyuiop", "iloveyou1"] {
            assert_eq!(rules.judge(common).err(), Some("is too common"), "{common}");
        }
        for fine in [
            "Password123!",
            "Test123!",
            "PASSWORD1!",
            "correct horse",
            "zzzzzzzzzzz~",
            "\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}",
        ] {
            assert!(rules.judge(fine).is_ok(), "{fine}");
        }
    }
}
