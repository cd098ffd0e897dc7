//! Operators: users who may use `/admin`. The installation must not lose its last one by a request.

use crate::accounts::user::{User, UserKind};
use crate::audit::event::{Actor, By};

/// The grant that makes an active user an operator.
pub(crate) const ADMIN: &str = "keyward:admin";

/// What a request that would take away the last operator is told.
pub(crate) const LAST_OPERATOR: &str = "This is the last operator: grant keyward:admin to another user first";

pub(crate) fn is_operator(user: &User) -> bool {
    user.kind == UserKind::User && user.is_active && user.scopes.covers(ADMIN)
}

/// Whether another operator must stay when `old` becomes `new`, or is deleted. Somebody on the command line can always
/// make another one.
pub(crate) fn needs_another(old: &User, new: Option<&User>, by: &By) -> bool {
    by.actor != Actor::Operator && is_operator(old) && !new.is_some_and(is_operator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::email::Email;
    use crate::accounts::user::new_user;
    use crate::base::clock::Timestamp;
    use crate::base::id::SessionId;
    use crate::keys::grants::Grants;

    #[test]
    fn an_operator_is_an_active_person_with_exactly_this_grant() {
        let user = |kind, is_active, scopes: &[&str]| {
            let email = Email::parse("ann@example.com").unwrap();
            let user = new_user(email, None, Grants::parse(scopes).unwrap(), Timestamp::EPOCH);
            User { kind, is_active, ..user }
        };
        let ann = user(UserKind::User, true, &["a", ADMIN]);
        assert!(is_operator(&ann));
        let others = [
            user(UserKind::Service, true, &[ADMIN]),
            user(UserKind::User, false, &[ADMIN]),
            user(UserKind::User, true, &["*", "keyward*", "keyward:admins"]),
        ];
        let over_http = By { actor: Actor::User { session_id: SessionId::new() }, origin: None };
        for other in &others {
            assert!(!is_operator(other));
            assert!(needs_another(&ann, Some(other), &over_http));
            assert!(!needs_another(other, None, &over_http));
        }
        assert!(!needs_another(&ann, Some(&ann), &over_http));
        assert!(needs_another(&ann, None, &over_http));
        assert!(!needs_another(&ann, None, &By::operator()));
    }
}
