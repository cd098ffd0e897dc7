//! What an operator creates users from.

use crate::accounts::email::Email;
use crate::accounts::granting::may_have;
use crate::accounts::passwords::NewPassword;
use crate::accounts::user::{User, UserKind, new_user};
use crate::base::clock::Timestamp;
use crate::base::metadata::Metadata;
use crate::keys::grants::Grants;

pub struct UserDraft {
    pub kind: UserKind,
    pub email: Email,
    /// `None`: a person is invited, and sets one with a one-time token. A service account never has one.
    pub password: Option<NewPassword>,
    pub name: Option<String>,
    /// `None`: what every new user gets.
    pub scopes: Option<Grants>,
    pub metadata: Option<Metadata>,
    pub email_verified: bool,
    pub max_keys: Option<u32>,
}

impl UserDraft {
    /// A person without a password.
    pub fn invited(email: Email) -> UserDraft {
        UserDraft {
            kind: UserKind::User,
            email,
            password: None,
            name: None,
            scopes: None,
            metadata: None,
            email_verified: false,
            max_keys: None,
        }
    }

    /// The user, active, and their password. `usual`: what every new user gets. The error is the broken rules.
    pub(crate) fn judge(self, usual: &Grants, now: Timestamp) -> Result<(User, Option<NewPassword>), Vec<String>> {
        let UserDraft { kind, email, password, name, scopes, metadata, email_verified, max_keys } = self;
        let mut broken = Vec::new();
        if kind == UserKind::Service && password.is_some() {
            broken.push("password must not be given for a service account: it never logs in".to_string());
        }
        let scopes = scopes.unwrap_or_else(|| usual.clone());
        broken.extend(may_have(kind, &scopes).err().map(|rule| format!("scopes {rule}")));
        let user = new_user(email, name, scopes, now);
        let user = User { kind, metadata, email_verified, max_keys, has_password: password.is_some(), ..user };
        if broken.is_empty() { Ok((user, password)) } else { Err(broken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::passwords::PasswordRules;

    fn draft(kind: UserKind, has_password: bool, scopes: Option<&[&str]>) -> UserDraft {
        let draft = UserDraft::invited(Email::parse("ann@example.com").unwrap());
        let password = has_password.then(|| PasswordRules::new(8).judge("correct horse").ok().unwrap());
        UserDraft { kind, password, scopes: scopes.map(|scopes| Grants::parse(scopes).unwrap()), ..draft }
    }

    #[test]
    fn a_service_account_has_no_password_and_is_no_operator() {
        use UserKind::{Service, User};
        let usual = Grants::parse(&["a"]).unwrap();
        for (kind, has_password, scopes, expected) in [
            (User, true, None, Ok("a")),
            (User, false, Some(&["keyward:admin"][..]), Ok("keyward:admin")),
            (Service, false, None, Ok("a")),
            (Service, false, Some(&[]), Ok("")),
            (Service, true, Some(&["keyward:admin"]), Err(2)),
        ] {
            let judged = draft(kind, has_password, scopes).judge(&usual, Timestamp::EPOCH);
            let judged = judged.as_ref().map(|(user, _)| user.scopes.as_str()).map_err(Vec::len);
            assert_eq!(judged, expected);
        }
    }
}
