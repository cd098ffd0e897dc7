//! What granting and withdrawing scopes makes of a user's grants.

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
    pub(crate) fn apply(&self, old: &Grants) -> Result<Grants, &'static str> {
        match self {
            ScopeChange::Grant(more) => old.with(more),
            ScopeChange::Withdraw(fewer) => Ok(old.without(fewer)),
        }
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

    fn grants(tokens: &[&str]) -> Grants {
        Grants::parse(tokens).unwrap()
    }

    #[test]
    fn only_what_came_and_went_is_recorded() {
        let old = grants(&["a", "b:*"]);
        for (change, new, recorded) in [
            (ScopeChange::Grant(grants(&["a", "c"])), grants(&["a", "b:*", "c"]), Some((json!(["c"]), json!([])))),
            (ScopeChange::Withdraw(grants(&["b:*", "d"])), grants(&["a"]), Some((json!([]), json!(["b:*"])))),
            (ScopeChange::Grant(grants(&["b:*"])), old.clone(), None),
            (ScopeChange::Withdraw(grants(&["b:c"])), old.clone(), None),
        ] {
            assert_eq!(change.apply(&old), Ok(new.clone()));
            let event = scopes_event(&old, &new, UserId::new(), &By::operator(), Timestamp::EPOCH);
            let details = event.map(|event| (event.details["granted"].clone(), event.details["withdrawn"].clone()));
            assert_eq!(details, recorded);
        }
    }
}
