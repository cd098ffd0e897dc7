//! Users as they are stored.

use crate::accounts::email::Email;
use crate::base::clock::Timestamp;
use crate::base::id::UserId;

/// A person's name, as they write it. The error is the broken rule; it follows the field's name.
pub fn parse_name(text: &str) -> Result<String, &'static str> {
    if text.chars().count() > 255 {
        Err("must be shorter than or equal to 255 characters")
    } else {
        Ok(text.to_string())
    }
}

/// A user as stored, without their password.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: Option<String>,
    pub is_active: bool,
    pub created_at: Timestamp,
    /// When they last logged in; signing up is no login.
    pub last_login_at: Option<Timestamp>,
}

/// How an operator names a user on the command line.
#[derive(Clone, Debug)]
pub enum UserRef {
    Id(UserId),
    Email(Email),
}

impl UserRef {
    pub fn parse(text: &str) -> Option<UserRef> {
        UserId::parse(text).map(UserRef::Id).or_else(|| Email::parse(text).map(UserRef::Email).ok())
    }
}

/// A new, active user.
pub(crate) fn new_user(email: Email, name: Option<String>, now: Timestamp) -> User {
    User { id: UserId::new(), email: email.to_string(), name, is_active: true, created_at: now, last_login_at: None }
}
