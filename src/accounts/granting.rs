//! What granting and withdrawing scopes makes of a user's grants.

use crate::accounts::operators::ADMIN;
use crate::accounts::user::{User, UserKind};
use crate::audit::event::{By, Event, Kind};
use crate::base::clock::Timestamp;
use crate::base::id::UserId;
use crate::keys::grants::Grants;

/// What an operator does to a user's grants.
#[derive(Clone, Debug)]
pub enum ScopeChange {
    Grant(Grants),
    Withdraw(Grants),
}

impl ScopeChange {
    /// The grants after the change. Granting what is there and withdrawing what is not changes nothing. The error is the
    /// rule that all grants together break; it follows the field's name.
    pub(crate) fn apply(&self, user: &User) -> Result<Grants, &'static str> {
        match self {
            ScopeChange::Grant(more) => {
                let new = user.scopes.with(more)?;
                may_have(user.kind, &new).map(|()| new)
            }
            ScopeChange::Withdraw(fewer) => Ok(user.scopes.without(fewer)),
        }
    }
}

/// Whether such a user may have these scopes. The error is the rule; it follows the field's name.
pub(crate) fn may_have(kind: UserKind, scopes: &Grants) -> Result<(), &'static str> {
    match kind {
        UserKind::Service if scopes.covers(ADMIN) => {
            Err("must not hold keyward:admin for a service account: operators are people")
        }
        _ => Ok(()),
    }
}

/// What is recorded of a change: the scopes that came and those that went. `None`: it changed nothing.
pub(crate) fn scopes_event(old: &Grants, new: &Grants, user: UserId, by: &By, at: Timestamp) -> Option<Event> {
    if old == new {
        return None;
    }
    let only_in = |these: &Grants, others: &Grants| these.without(others).iter().map(String::from).collect::<Vec<_>>();
    let event = Event::new(Kind::UserScopesChanged, user, by, at);
    Some(event.with("granted", only_in(new, old)).with("withdrawn", only_in(old, new)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::accounts::email::Email;
    use crate::accounts::user::new_user;

    fn grants(tokens: &[&str]) -> Grants {
        Grants::parse(tokens).unwrap()
    }

    #[test]
    fn only_what_came_and_went_is_recorded() {
        let email = Email::parse("ann@example.com").unwrap();
        let ann = new_user(email, None, grants(&["a", "b:*"]), Timestamp::EPOCH);
        let old = ann.scopes.clone();
        for (change, new, recorded) in [
            (ScopeChange::Grant(grants(&["a", "c"])), grants(&["a", "b:*", "c"]), Some((json!(["c"]), json!([])))),
            (ScopeChange::Withdraw(grants(&["b:*", "d"])), grants(&["a"]), Some((json!([]), json!(["b:*"])))),
            (ScopeChange::Grant(grants(&["b:*"])), old.clone(), None),
            (ScopeChange::Withdraw(grants(&["b:c"])), old.clone(), None),
        ] {
            assert_eq!(change.apply(&ann), Ok(new.clone()));
            let event = scopes_event(&old, &new, UserId::new(), &By::operator(), Timestamp::EPOCH);
            let details = event.map(|event| (event.details["granted"].clone(), event.details["withdrawn"].clone()));
            assert_eq!(details, recorded);
        }
    }

    #[test]
    fn a_service_account_is_no_operator() {
        let all = grants(&["*", "keys:verify"]);
        assert_eq!(may_have(UserKind::Service, &all), Ok(()));
        let all = all.with(&grants(&[ADMIN])).unwrap();
        assert!(may_have(UserKind::Service, &all).is_err());
        assert_eq!(may_have(UserKind::User, &all), Ok(()));
    }
}
