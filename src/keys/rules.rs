//! What an owner may do with their keys: make one, change one, rotate one; and which keys a listing shows. Plain data
//! in, a decision out; the store asks inside its transaction and writes what is decided.
//!
//! Counting an owner's keys costs a statement, so a rule is given a way to count and uses it only where the number
//! matters. No rule needs to know more than that there are `most`, so the count may stop there.

use crate::audit::event::{By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, UserId};
use crate::keys::grants::Grants;
use crate::keys::key::{ApiKey, KeyChange, KeyDraft, KeyRefusal};
use crate::keys::scopes::Scopes;

/// What a rotation makes.
#[derive(Clone, Debug)]
pub struct Replacement {
    pub key: ApiKey,
    /// When the old key expires.
    pub old_expires_at: Timestamp,
}

/// What matters of a key's owner.
#[derive(Clone, Debug)]
pub(crate) struct KeyOwner {
    pub scopes: Grants,
    /// How many keys they may have that are neither revoked nor expired.
    pub most: u32,
}

impl KeyOwner {
    fn may_hand_out(&self, scopes: &Scopes) -> Result<(), KeyRefusal> {
        let lacking = self.scopes.lacking(scopes);
        if lacking.as_str().is_empty() { Ok(()) } else { Err(KeyRefusal::NotGranted(lacking)) }
    }

    fn has_room(&self, count: u64) -> Result<(), KeyRefusal> {
        if count < u64::from(self.most) { Ok(()) } else { Err(KeyRefusal::TooMany(self.most)) }
    }
}

/// Whether the owner may make a key with these scopes. `usable`: how many of their keys are neither revoked nor expired.
pub(crate) fn create<E>(
    owner: &KeyOwner,
    scopes: &Scopes,
    usable: impl FnOnce() -> Result<u64, E>,
) -> Result<Result<(), KeyRefusal>, E> {
    if let Err(refusal) = owner.may_hand_out(scopes) {
        return Ok(Err(refusal));
    }
    Ok(owner.has_room(usable()?))
}

/// The key after the change. A revoked key stays as it is. A replaced key may only expire earlier. A key that has
/// expired may become usable again if its owner may make another key. New scopes must be the owner's; a change that
/// names none asks nothing of them.
pub(crate) fn change<E>(
    old: &ApiKey,
    change: &KeyChange,
    now: Timestamp,
    owner: &KeyOwner,
    usable: impl FnOnce() -> Result<u64, E>,
) -> Result<Result<ApiKey, KeyRefusal>, E> {
    if old.revoked_at.is_some() {
        return Ok(Err(KeyRefusal::Revoked(old.replaced_by)));
    }
    if let Err(refusal) = change.scopes.as_ref().map_or(Ok(()), |scopes| owner.may_hand_out(scopes)) {
        return Ok(Err(refusal));
    }
    let mut new = old.clone();
    change.apply(&mut new);
    if let Some(successor) = old.replaced_by
        && new.expires_at.is_none_or(|end| Some(end) > old.expires_at)
    {
        return Ok(Err(KeyRefusal::Replaced(successor)));
    }
    if old.has_expired(now) && new.is_usable(now) {
        return Ok(owner.has_room(usable()?).map(|()| new));
    }
    Ok(Ok(new))
}

/// Makes a new key with the settings of `old`. The old key then expires at `grace_end`, or at its own expiry if that is
/// earlier. A key is rotated once.
///
/// The new key takes the place of the old one, so that an owner at their limit can rotate too. But at most as many
/// replaced keys may be in their grace, or rotating again and again would gather any number of keys that work.
pub(crate) fn rotate<E>(
    old: &ApiKey,
    draft: &KeyDraft,
    grace_end: Timestamp,
    owner: &KeyOwner,
    in_grace: impl FnOnce() -> Result<u64, E>,
) -> Result<Result<Replacement, KeyRefusal>, E> {
    let now = draft.created_at;
    if old.revoked_at.is_some() {
        return Ok(Err(KeyRefusal::Revoked(old.replaced_by)));
    }
    if let Some(successor) = old.replaced_by {
        return Ok(Err(KeyRefusal::Replaced(successor)));
    }
    if old.has_expired(now) {
        return Ok(Err(KeyRefusal::Expired));
    }
    if grace_end > now
        && let Err(refusal) = owner.has_room(in_grace()?)
    {
        return Ok(Err(refusal));
    }
    let key = ApiKey { id: draft.id, hint: draft.hint.clone(), created_at: now, last_used_at: None, ..old.clone() };
    let old_expires_at = old.expires_at.map_or(grace_end, |expires_at| expires_at.min(grace_end));
    Ok(Ok(Replacement { key, old_expires_at }))
}

/// Which keys a listing of up to `limit` shows: the usable ones first, then those that have ended, each from the newest
/// on. `newest`: the owner's newest keys up to `limit`, and whether each is usable. `usable`: reads the newest usable
/// ones, up to `limit`; needed only if the owner may have more keys than are in `newest`.
pub(crate) fn listed<E>(
    newest: &[(KeyId, bool)],
    limit: usize,
    usable: impl FnOnce() -> Result<Vec<KeyId>, E>,
) -> Result<Vec<KeyId>, E> {
    let of_newest = |wanted: bool| newest.iter().filter(move |(_, usable)| *usable == wanted).map(|(id, _)| *id);
    let mut listed = if newest.len() < limit { of_newest(true).collect() } else { usable()? };
    let room = limit.saturating_sub(listed.len());
    listed.extend(of_newest(false).take(room));
    Ok(listed)
}

/// What is recorded of a change: the names of the changed settings. A change that names none records nothing.
pub(crate) fn change_event(change: &KeyChange, key: KeyId, owner: UserId, by: &By, at: Timestamp) -> Option<Event> {
    let settings = change.names();
    let event = Event::new(Kind::KeyChanged, owner, by, at).on(Subject::Key(key));
    (!settings.is_empty()).then(|| event.with("settings", settings))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::keys::allowed_ips::AllowedIps;
    use crate::keys::key::KeyHash;
    use crate::keys::scopes::Scopes;
    use crate::memory::limiter::Rate;

    const MOST: u32 = 3;
    const NOW: u64 = 1000;
    const SUCCESSOR: KeyId = KeyId(Uuid::max());

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(seconds))
    }

    fn owner() -> KeyOwner {
        KeyOwner { scopes: Grants::parse(&["read", "orders:*"]).unwrap(), most: MOST }
    }

    #[test]
    fn an_owner_hands_out_only_scopes_that_they_have() {
        let lacking = |scopes: &str| Err(KeyRefusal::NotGranted(Scopes::from_stored(scopes.to_string())));
        let old = ApiKey { scopes: Scopes::from_stored("once".to_string()), ..key() };
        for (scopes, expected) in [
            ("", Ok(())),
            ("read orders:a", Ok(())),
            ("read write", lacking("write")),
            ("keyward:admin write", lacking("keyward:admin write")),
        ] {
            let scopes = Scopes::from_stored(scopes.to_string());
            let Ok(made) = create(&owner(), &scopes, known(0));
            assert_eq!(made, expected);
            let Ok(changed) = change(
                &old,
                &KeyChange { scopes: Some(scopes), ..KeyChange::default() },
                at(NOW),
                &owner(),
                not_needed,
            );
            assert_eq!(changed.map(drop), expected);
        }
        // What a key was given before is nobody's question until somebody names scopes again.
        let renamed = KeyChange { name: Some("ci 2".to_string()), ..KeyChange::default() };
        assert!(matches!(change(&old, &renamed, at(NOW), &owner(), not_needed), Ok(Ok(_))));
        assert!(matches!(rotate(&old, &draft(), at(NOW), &owner(), not_needed), Ok(Ok(_))));
    }

    /// A key that is good for ever.
    fn key() -> ApiKey {
        ApiKey {
            id: KeyId::new(),
            owner: UserId::new(),
            name: "ci".to_string(),
            hint: "sk_0123…cdef".to_string(),
            is_active: true,
            expires_at: None,
            scopes: Scopes::from_stored("read".to_string()),
            rate_limit: Some(Rate { limit: 10, window: Duration::from_secs(60) }),
            external_id: Some("customer-7".to_string()),
            metadata: None,
            allowed_ips: AllowedIps::parse(&["10.0.0.0/8"]).ok(),
            last_used_at: Some(at(900)),
            created_at: at(0),
            revoked_at: None,
            replaced_by: None,
        }
    }

    /// Expires at this time, in seconds.
    fn until(seconds: u64) -> ApiKey {
        ApiKey { expires_at: Some(at(seconds)), ..key() }
    }

    fn revoked(key: ApiKey) -> ApiKey {
        ApiKey { is_active: false, revoked_at: Some(at(500)), ..key }
    }

    fn replaced(key: ApiKey) -> ApiKey {
        ApiKey { replaced_by: Some(SUCCESSOR), ..key }
    }

    fn expiry(seconds: Option<u64>) -> KeyChange {
        KeyChange { expires_at: Some(seconds.map(at)), ..KeyChange::default() }
    }

    fn known(count: u64) -> impl FnOnce() -> Result<u64, Infallible> {
        move || Ok(count)
    }

    fn not_needed() -> Result<u64, Infallible> {
        panic!("the count is read, which costs a statement")
    }

    /// The expiry after the change, or why not. `None` for `usable`: the rule must not count.
    fn changed(old: &ApiKey, by: &KeyChange, usable: Option<u64>) -> Result<Option<Timestamp>, KeyRefusal> {
        let Ok(outcome) = match usable {
            Some(count) => change(old, by, at(NOW), &owner(), known(count)),
            None => change(old, by, at(NOW), &owner(), not_needed),
        };
        outcome.map(|key| key.expires_at)
    }

    #[test]
    fn a_key_is_made_below_the_limit() {
        let made = |owner: &KeyOwner, usable: u64| {
            let Ok(outcome) = create(owner, &Scopes::default(), known(usable));
            outcome
        };
        let too_many = || Err(KeyRefusal::TooMany(MOST));
        assert_eq!([0, 2, 3, 4].map(|usable| made(&owner(), usable)), [Ok(()), Ok(()), too_many(), too_many()]);
        assert_eq!(made(&KeyOwner { most: 0, ..owner() }, 0), Err(KeyRefusal::TooMany(0)));
    }

    #[test]
    fn what_may_be_changed_of_which_key() {
        use KeyRefusal::{Replaced, Revoked, TooMany};
        let name = KeyChange { name: Some("other".to_string()), ..KeyChange::default() };
        for (case, old, change, usable, expected) in [
            ("a good key", key(), &name, None, Ok(None)),
            ("a good key", key(), &expiry(Some(NOW + 1)), None, Ok(Some(at(NOW + 1)))),
            ("a good key ends at once", key(), &expiry(Some(NOW)), None, Ok(Some(at(NOW)))),
            ("a good key lives longer", until(NOW + 1), &expiry(None), None, Ok(None)),
            ("revoked", revoked(key()), &name, None, Err(Revoked(None))),
            ("revoked and expired", revoked(until(10)), &expiry(None), None, Err(Revoked(None))),
            (
                "revoked and replaced",
                revoked(replaced(until(NOW + 9))),
                &expiry(Some(NOW + 1)),
                None,
                Err(Revoked(Some(SUCCESSOR))),
            ),
            ("replaced", replaced(until(NOW + 9)), &name, None, Ok(Some(at(NOW + 9)))),
            ("replaced, earlier", replaced(until(NOW + 9)), &expiry(Some(NOW + 8)), None, Ok(Some(at(NOW + 8)))),
            ("replaced, the same", replaced(until(NOW + 9)), &expiry(Some(NOW + 9)), None, Ok(Some(at(NOW + 9)))),
            ("replaced, later", replaced(until(NOW + 9)), &expiry(Some(NOW + 10)), None, Err(Replaced(SUCCESSOR))),
            ("replaced, for ever", replaced(until(NOW + 9)), &expiry(None), None, Err(Replaced(SUCCESSOR))),
            (
                "replaced and expired, later",
                replaced(until(10)),
                &expiry(Some(NOW + 1)),
                None,
                Err(Replaced(SUCCESSOR)),
            ),
            ("expired", until(NOW), &name, None, Ok(Some(at(NOW)))),
            ("expired, other end", until(NOW), &expiry(Some(NOW - 1)), None, Ok(Some(at(NOW - 1)))),
            ("expired, back", until(NOW), &expiry(Some(NOW + 1)), Some(2), Ok(Some(at(NOW + 1)))),
            ("expired, back for ever", until(NOW), &expiry(None), Some(2), Ok(None)),
            ("expired, back at the limit", until(NOW), &expiry(Some(NOW + 1)), Some(3), Err(TooMany(MOST))),
        ] {
            assert_eq!(changed(&old, change, usable), expected, "{case}");
        }
    }

    #[test]
    fn a_change_changes_what_it_names_and_a_paused_key_that_comes_back_stays_paused() {
        let old = ApiKey { is_active: false, ..until(10) };
        let Ok(new) = change(&old, &expiry(None), at(NOW), &owner(), known(0));
        let new = new.unwrap();
        assert_eq!((new.is_active, new.expires_at), (false, None));
        assert_eq!((new.id, new.name, new.hint, new.rate_limit), (old.id, old.name, old.hint, old.rate_limit));
    }

    #[test]
    fn a_listing_shows_usable_keys_before_ended_ones_and_newer_ones_before_older_ones() {
        let ids: Vec<KeyId> = (0..6).map(|_| KeyId::new()).collect();
        // Of six keys, the newest first, those at 1, 3 and 5 are usable.
        let newest = |count: usize| -> Vec<(KeyId, bool)> { (0..count).map(|at| (ids[at], at % 2 == 1)).collect() };
        let places = |listed: Vec<KeyId>| -> Vec<usize> {
            listed.iter().map(|id| ids.iter().position(|known| known == id).unwrap()).collect()
        };
        let no_read = || -> Result<Vec<KeyId>, Infallible> { panic!("all keys are known") };
        let Ok(all) = listed(&newest(6), 7, no_read);
        assert_eq!(places(all), [1, 3, 5, 0, 2, 4]);
        for (limit, usable, expected) in [(6, 3, &[1, 3, 5, 0, 2, 4][..]), (4, 3, &[1, 3, 5, 0]), (2, 2, &[1, 3])] {
            let read = || -> Result<Vec<KeyId>, Infallible> { Ok([ids[1], ids[3], ids[5]][..usable].to_vec()) };
            let Ok(listed) = listed(&newest(limit), limit, read);
            assert_eq!(places(listed), expected, "{limit}");
        }
    }

    #[test]
    fn a_change_is_recorded_by_the_names_of_its_settings_and_an_empty_one_is_not() {
        let (key, by) = (key(), By::operator());
        let recorded = |change: &KeyChange| change_event(change, key.id, key.owner, &by, at(NOW));
        let event = recorded(&KeyChange { is_active: Some(true), ..expiry(None) }).unwrap();
        assert_eq!((event.kind, event.subject), (Kind::KeyChanged, Some(Subject::Key(key.id))));
        assert_eq!(event.details["settings"], json!(["isActive", "expiresAt"]));
        assert!(recorded(&KeyChange::default()).is_none());
    }

    /// When the old key ends, or why it is not rotated. `None` for `in_grace`: the rule must not count.
    fn rotated(old: &ApiKey, grace_end: u64, in_grace: Option<u64>) -> Result<Timestamp, KeyRefusal> {
        let Ok(outcome) = match in_grace {
            Some(count) => rotate(old, &draft(), at(grace_end), &owner(), known(count)),
            None => rotate(old, &draft(), at(grace_end), &owner(), not_needed),
        };
        outcome.map(|replacement| replacement.old_expires_at)
    }

    fn draft() -> KeyDraft {
        let hash = KeyHash::of(format!("sk_{}", "0f".repeat(32)).as_bytes()).unwrap();
        KeyDraft { id: KeyId::new(), hash, hint: "sk_0f0f…0f0f".to_string(), created_at: at(NOW) }
    }

    #[test]
    fn which_keys_are_rotated_and_when_the_old_one_ends() {
        use KeyRefusal::{Expired, Replaced, Revoked, TooMany};
        for (case, old, grace_end, in_grace, expected) in [
            ("for ever", key(), NOW + 60, Some(0), Ok(at(NOW + 60))),
            ("ends after the grace", until(NOW + 61), NOW + 60, Some(2), Ok(at(NOW + 60))),
            ("ends within the grace", until(NOW + 59), NOW + 60, Some(2), Ok(at(NOW + 59))),
            ("no grace", key(), NOW, None, Ok(at(NOW))),
            ("paused", ApiKey { is_active: false, ..key() }, NOW + 60, Some(0), Ok(at(NOW + 60))),
            ("too many in their grace", key(), NOW + 60, Some(3), Err(TooMany(MOST))),
            // In their order: the reason that is final comes first.
            ("expired", until(NOW), NOW + 60, None, Err(Expired)),
            ("replaced", replaced(until(NOW + 60)), NOW + 60, None, Err(Replaced(SUCCESSOR))),
            ("replaced and expired", replaced(until(NOW)), NOW + 60, None, Err(Replaced(SUCCESSOR))),
            ("revoked", revoked(key()), NOW + 60, None, Err(Revoked(None))),
            (
                "revoked, replaced and expired",
                revoked(replaced(until(NOW))),
                NOW + 60,
                None,
                Err(Revoked(Some(SUCCESSOR))),
            ),
        ] {
            assert_eq!(rotated(&old, grace_end, in_grace), expected, "{case}");
        }
    }

    #[test]
    fn a_rotated_key_is_a_new_one_with_the_settings_of_the_old_one() {
        let (old, draft) = (ApiKey { is_active: false, ..until(NOW + 90) }, draft());
        let Ok(replacement) = rotate(&old, &draft, at(NOW + 60), &owner(), known(0));
        let new = replacement.unwrap().key;
        assert_eq!((new.id, &new.hint, new.created_at, new.last_used_at), (draft.id, &draft.hint, at(NOW), None));
        assert_eq!((new.owner, new.name, new.is_active), (old.owner, old.name, old.is_active));
        assert_eq!((new.expires_at, new.rate_limit), (old.expires_at, old.rate_limit));
        assert_eq!((new.external_id, new.allowed_ips), (old.external_id, old.allowed_ips));
        assert_eq!(new.scopes.as_str(), old.scopes.as_str());
        assert_eq!((new.revoked_at, new.replaced_by), (None, None));
    }
}
