//! Passwords: what is accepted where one is set, how they are hashed, and on which threads.

use std::fmt;
use std::sync::mpsc;

use crate::error::Error;
use crate::pool::Pool;

/// The fewest characters of a new password (OWASP ASVS 5.0, 6.2.1).
const SHORTEST: usize = 8;
/// bcrypt reads no further than this many bytes.
const LONGEST_BYTES: usize = 72;

/// A password that someone sets. Printing it shows nothing.
pub struct NewPassword(String);

impl NewPassword {
    /// The error is the rule it breaks, to be put behind the field's name.
    pub fn parse(text: &str) -> Result<NewPassword, &'static str> {
        if text.chars().count() < SHORTEST {
            return Err("must be longer than or equal to 8 characters");
        }
        // bcrypt would cut it silently, and any password with the same beginning would do.
        if text.len() > LONGEST_BYTES {
            return Err("must be shorter than or equal to 72 bytes");
        }
        // C implementations of bcrypt stop at it.
        if text.contains('\0') {
            return Err("must not contain NUL characters");
        }
        Ok(NewPassword(text.to_string()))
    }
}

/// A bcrypt hash in its usual text form. Printing it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    pub fn from_stored(text: String) -> PasswordHash {
        PasswordHash(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(password hash)")
    }
}

/// Hashes and verifies, as many at once as there are cores, on threads that yield to everything else.
pub struct Passwords {
    pool: Pool,
    cost: u32,
}

impl Passwords {
    /// `waiting`: how many callers may wait for a core.
    pub fn new(cost: u32, cores: usize, waiting: usize) -> Passwords {
        Passwords { pool: Pool::yielding("hash", cores, waiting), cost }
    }

    pub fn hash(&self, password: NewPassword) -> Result<PasswordHash, Error> {
        let cost = self.cost;
        self.run(move || bcrypt::non_truncating_hash(password.0, cost))?
            .map(PasswordHash)
            .map_err(|error| Error::Internal(format!("hashing a password: {error}")))
    }

    /// Whether the password belongs to the hash. Without a hash (no such user) it takes as long, and is false.
    ///
    /// Hashes of the service before this one cut passwords at 72 bytes; verifying does the same.
    pub fn verify(&self, password: String, hash: Option<&PasswordHash>) -> Result<bool, Error> {
        let known = hash.is_some();
        let cost = self.cost;
        let hash = hash.map_or_else(|| dummy_hash(cost), |hash| hash.0.clone());
        let matches = self
            .run(move || {
                let matches = bcrypt::verify(&password, &hash)?;
                // A hash of a lower cost took less work than is done where there is none. Each cost doubles it, so one
                // of each that is missing makes up for the difference.
                for missing in cost_of(&hash).unwrap_or(cost)..cost {
                    bcrypt::verify(&password, &dummy_hash(missing))?;
                }
                Ok(matches)
            })?
            .map_err(|error: bcrypt::BcryptError| Error::Internal(format!("verifying a password: {error}")))?;
        Ok(matches && known)
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.pool
            .submit(Box::new(move || {
                let _ = answer.send(work());
            }))
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
        let hash = passwords.hash(NewPassword::parse("correct horse").ok().unwrap()).ok().unwrap();
        assert!(passwords.verify("correct horse".into(), Some(&hash)).unwrap());
        assert!(!passwords.verify("correct horsf".into(), Some(&hash)).unwrap());
    }

    #[test]
    fn without_a_user_the_work_is_done_all_the_same() {
        // A dummy that bcrypt cannot read would be an error, and return at once.
        assert!(!passwords().verify("anything".into(), None).unwrap());
    }

    #[test]
    fn the_cost_is_read_from_a_hash() {
        assert_eq!((cost_of(&dummy_hash(10)), cost_of("nonsense")), (Some(10), None));
    }

    #[test]
    fn length_is_counted_in_characters_below_and_in_bytes_above() {
        assert!(NewPassword::parse("äöüäöüä").is_err());
        assert!(NewPassword::parse("äöüäöüäö").is_ok());
        assert!(NewPassword::parse(&"x".repeat(72)).is_ok());
        assert!(NewPassword::parse(&"x".repeat(73)).is_err());
        assert!(NewPassword::parse(&"ä".repeat(37)).is_err());
    }
}
