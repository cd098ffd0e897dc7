//! What an operator changes of a user.

use crate::accounts::email::Email;
use crate::accounts::user::User;
use crate::base::metadata::Metadata;

/// The fields to change; `None`: as it is. `Some(None)`: nothing from now on.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    pub email: Option<Email>,
    pub name: Option<Option<String>>,
    pub is_active: Option<bool>,
    pub email_verified: Option<bool>,
    pub metadata: Option<Option<Metadata>>,
    pub max_keys: Option<Option<u32>>,
}

impl UserChange {
    /// The user after the change. A new e-mail is not verified, unless the change says so.
    pub(crate) fn apply(&self, old: &User) -> User {
        let mut new = old.clone();
        if let Some(email) = self.email.as_ref().filter(|email| email.as_str() != old.email) {
            new.email = email.to_string();
            new.email_verified = false;
        }
        new.email_verified = self.email_verified.unwrap_or(new.email_verified);
        if let Some(name) = &self.name {
            new.name.clone_from(name);
        }
        new.is_active = self.is_active.unwrap_or(new.is_active);
        if let Some(metadata) = &self.metadata {
            new.metadata.clone_from(metadata);
        }
        new.max_keys = self.max_keys.unwrap_or(new.max_keys);
        new
    }
}

/// The names of the fields that differ. Whether the user is active is not among them: it has events of its own.
pub(crate) fn changed_fields(old: &User, new: &User) -> Vec<&'static str> {
    let text = |metadata: &Option<Metadata>| metadata.as_ref().map(|metadata| metadata.as_str().to_string());
    let fields = [
        ("email", old.email != new.email),
        ("name", old.name != new.name),
        ("emailVerified", old.email_verified != new.email_verified),
        ("metadata", text(&old.metadata) != text(&new.metadata)),
        ("maxKeys", old.max_keys != new.max_keys),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::user::new_user;
    use crate::base::clock::Timestamp;
    use crate::keys::grants::Grants;

    #[test]
    fn what_is_given_changes_and_a_new_e_mail_is_not_verified() {
        let email = |text: &str| Email::parse(text).unwrap();
        let ann = new_user(email("ann@example.com"), Some("Ann".into()), Grants::default(), Timestamp::EPOCH);
        let ann = User { email_verified: true, max_keys: Some(5), ..ann };
        let other = Some(email("ann@example.org"));
        for (change, fields, verified) in [
            (UserChange::default(), &[][..], true),
            (UserChange { email: Some(email("ANN@example.com")), ..UserChange::default() }, &[], true),
            (UserChange { email: other.clone(), ..UserChange::default() }, &["email", "emailVerified"], false),
            (UserChange { email: other, email_verified: Some(true), ..UserChange::default() }, &["email"], true),
            (UserChange { email_verified: Some(false), ..UserChange::default() }, &["emailVerified"], false),
            (UserChange { name: Some(None), ..UserChange::default() }, &["name"], true),
            (UserChange { max_keys: Some(None), ..UserChange::default() }, &["maxKeys"], true),
            (UserChange { max_keys: Some(Some(5)), is_active: Some(false), ..UserChange::default() }, &[], true),
        ] {
            let new = change.apply(&ann);
            assert_eq!((&*changed_fields(&ann, &new), new.email_verified), (fields, verified), "{change:?}");
            assert_eq!(new.is_active, change.is_active.unwrap_or(true));
        }
    }
}
