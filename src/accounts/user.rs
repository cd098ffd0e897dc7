//! Users as they are stored.

use serde::Serialize;

use crate::accounts::email::Email;
use crate::base::clock::Timestamp;
use crate::base::id::UserId;
use crate::base::metadata::Metadata;
use crate::keys::grants::Grants;
use crate::tokens::claims::UserClaims;

/// What an operator is told who would give one a password.
pub(crate) const NO_PASSWORD: &str = "A service account has no password: it never logs in";

/// A person's name, as they write it. The error is the broken rule; it follows the field's name.
pub fn parse_name(text: &str) -> Result<String, &'static str> {
    if text.chars().count() > 255 {
        Err("must be shorter than or equal to 255 characters")
    } else {
        Ok(text.to_string())
    }
}

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserKind {
    /// A person.
    User,
    /// It owns keys, and never logs in.
    Service,
}

impl UserKind {
    pub const ALL: [UserKind; 2] = [UserKind::User, UserKind::Service];

    pub fn as_str(self) -> &'static str {
        match self {
            UserKind::User => "user",
            UserKind::Service => "service",
        }
    }

    pub fn parse(text: &str) -> Option<UserKind> {
        UserKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A user as stored, without their password.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub kind: UserKind,
    pub email: String,
    pub email_verified: bool,
    /// Whether the account was made while a verified e-mail was required.
    pub needs_verified_email: bool,
    pub name: Option<String>,
    pub is_active: bool,
    /// What they may do, and what they may hand to their keys.
    pub scopes: Grants,
    pub metadata: Option<Metadata>,
    /// Without one they cannot log in.
    pub has_password: bool,
    /// How many usable keys they may have, if not as many as everybody.
    pub max_keys: Option<u32>,
    pub created_at: Timestamp,
    /// When they last logged in; signing up is no login.
    pub last_login_at: Option<Timestamp>,
}

impl User {
    /// What their access tokens say of them.
    pub(crate) fn claims(self) -> UserClaims {
        let User { id, email, email_verified, name, scopes, .. } = self;
        UserClaims { id, email, email_verified, name, scopes }
    }
}

/// Which users are asked for.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// What their e-mails begin with.
    pub email: Option<String>,
    pub kind: Option<UserKind>,
    pub is_active: Option<bool>,
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

/// A new, active user with a password and these scopes.
pub(crate) fn new_user(email: Email, name: Option<String>, scopes: Grants, now: Timestamp) -> User {
    User {
        id: UserId::new(),
        kind: UserKind::User,
        email: email.to_string(),
        email_verified: false,
        needs_verified_email: false,
        name,
        is_active: true,
        scopes,
        metadata: None,
        has_password: true,
        max_keys: None,
        created_at: now,
        last_login_at: None,
    }
}
