//! Passwords: which ones are accepted as new, how they are hashed, and on which threads.

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{self, AtomicU32};
use std::sync::mpsc;

use log::warn;

use crate::base::error::Error;
use crate::base::pool::Pool;

/// bcrypt ignores everything after this many bytes.
const LONGEST_BYTES: usize = 72;

/// Common passwords, which are refused (OWASP ASVS 5.0, 6.2.4): from SecLists' list of the 100,000 most common ones,
/// those of eight characters or more in the first quarter. One a line, sorted by their bytes.
static COMMON: &[u8] = include_bytes!("../../static/common-passwords.txt");

/// The highest cost that `BCRYPT_COST` can be. Refusals are not slowed down to match a stored hash of a higher one.
const HIGHEST_COST: u32 = 15;

/// A new password that obeys the rules. It has no `Debug`, so that no log can show it.
pub struct NewPassword(String);

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

    /// The error is the broken rule; it follows the field's name.
    pub fn judge(&self, text: &str) -> Result<NewPassword, &'static str> {
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
        if is_common(text) {
            return Err("is too common");
        }
        Ok(NewPassword(text.to_string()))
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

/// A bcrypt hash in its usual text form. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
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

    /// Whether the password belongs to the hash. Every refusal takes the same time, also without a hash (no such user).
    ///
    /// Hashes that were made by Keyward's predecessor cut passwords at 72 bytes; verifying does the same.
    pub(crate) fn verify(&self, password: String, hash: Option<&PasswordHash>) -> Result<bool, Error> {
        if let Some(hash) = hash {
            self.note_cost(&hash.0);
        }
        let known = hash.is_some();
        let highest_cost = self.highest_cost.load(atomic::Ordering::Relaxed);
        let hash = hash.map_or_else(|| dummy_hash(highest_cost), |hash| hash.0.clone());
        self.run(move || {
            if bcrypt::verify(&password, &hash)? && known {
                return Ok(true);
            }
            // Each cost step doubles the work, so verifying once at each missing cost adds up to the difference.
            for missing in cost_of(&hash).unwrap_or(highest_cost)..highest_cost {
                bcrypt::verify(&password, &dummy_hash(missing))?;
            }
            Ok(false)
        })?
        .map_err(|error: bcrypt::BcryptError| Error::Internal(format!("verifying a password: {error}")))
    }

    /// A hash of the configured cost, if the stored one has a lower cost. If it cannot be made, the stored one stays
    /// until the next login.
    pub(crate) fn rehash(&self, password: &str, stored: &PasswordHash) -> Option<PasswordHash> {
        let cost = self.cost;
        if cost_of(&stored.0)? >= cost {
            return None;
        }
        // A longer password is cut at 72 bytes, as it was for the stored hash.
        let password = password.to_string();
        let hashed = self.run(move || bcrypt::hash(password, cost));
        hashed
            .inspect_err(|error| warn!("a password could not be hashed again at the configured cost: {error:?}"))
            .ok()?
            .inspect_err(|error| warn!("a password could not be hashed again at the configured cost: {error}"))
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
        assert!(passwords.verify("correct horse".into(), Some(&hash)).unwrap());
        assert!(!passwords.verify("correct horsf".into(), Some(&hash)).unwrap());
    }

    #[test]
    fn without_a_user_the_hash_that_stands_for_one_is_read() {
        // A dummy that bcrypt cannot read would be an error, and return at once.
        assert!(!passwords().verify("anything".into(), None).unwrap());
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
        assert_eq!(passwords.rehash("anything", &stored(10)), None);
        assert_eq!(passwords.rehash("anything", &PasswordHash("nonsense".into())), None);
        // What was cut at 72 bytes stays so.
        let hash = passwords.rehash(&"x".repeat(80), &stored(4)).unwrap();
        assert_eq!(cost_of(&hash.0), Some(10));
        assert!(passwords.verify("x".repeat(80), Some(&hash)).unwrap());
        assert!(passwords.verify("x".repeat(72), Some(&hash)).unwrap());
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
