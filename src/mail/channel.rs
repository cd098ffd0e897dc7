//! The way of deliveries that are mails. A delivery names its kind and the account alone: whom it goes to, what it says and
//! the token in it are found when its turn comes.

use std::sync::Arc;
use std::time::Duration;

use log::warn;

use crate::accounts::mailed_links::MailedLinks;
use crate::accounts::purposes::Purpose;
use crate::accounts::store::UserStore;
use crate::accounts::user::{User, UserKind};
use crate::audit::event::{Actor, Event, Filter, RESTS_UNTIL, Subject};
use crate::audit::store::EventStore;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Error;
use crate::base::id::{KeyId, UserId};
use crate::keys::store::KeyStore;
use crate::mail::kinds::MailKind;
use crate::mail::mailer::{Mailer, Sent};
use crate::mail::notices::{Notice, TOLD};
use crate::mail::smtp::Fault;
use crate::mail::template::Value;
use crate::mail::texts::Written;
use crate::outbox::delivery::{Answer, Channel, Delivery, Outcome};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long what has happened is worth telling.
const NEWS: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// How many notices are in one mail. It says if there are more.
const NOTICES: usize = 20;
/// How many events of a kind are read at once, and how often at most.
const PAGE: i64 = 100;
const PAGES: usize = 10;
/// In characters; of a name.
const LONGEST_NAME: usize = 100;

/// What mails are made of.
pub struct Sources {
    pub users: Arc<dyn UserStore>,
    pub events: Arc<dyn EventStore>,
    pub keys: Arc<dyn KeyStore>,
    pub links: Arc<MailedLinks>,
}

pub struct MailChannel {
    mailer: Mailer,
    sources: Sources,
    clock: Clock,
}

/// A mail, and where it goes.
struct Ready {
    address: String,
    written: Written,
}

impl MailChannel {
    pub fn new(mailer: Mailer, sources: Sources, clock: Clock) -> MailChannel {
        MailChannel { mailer, sources, clock }
    }

    /// `None`: there is nobody to whom it could be sent, or nothing to be said any more.
    fn write(&self, kind: MailKind, delivery: &Delivery) -> Result<Option<Ready>, Error> {
        let id = UserId(delivery.receiver);
        let user = self.sources.users.user(id)?.filter(|user| user.is_active && user.kind == UserKind::User);
        let Some(user) = user else { return Ok(None) };
        let now = self.clock.now();
        let lifetime = purpose(kind).map_or(NEWS, |purpose| self.sources.links.lifetime(purpose));
        if delivery.created_at.plus(lifetime) <= now {
            return Ok(None);
        }
        match kind {
            MailKind::Verification | MailKind::Reset | MailKind::Invitation | MailKind::AddressChange => {
                let link = purpose(kind).map(|purpose| self.sources.links.make(id, purpose)).transpose()?.flatten();
                let Some(link) = link else { return Ok(None) };
                let (name, lifetime) = (self.name(&user, &link.address), self.span(link.lifetime));
                let values = [
                    ("name", Value::Text(&name)),
                    ("link", Value::Link(&link.url)),
                    ("lifetime", Value::Text(&lifetime)),
                ];
                let written = self.mailer.write(Some(kind), &values);
                Ok(Some(Ready { address: link.address, written }))
            }
            MailKind::AddressChangeNotice | MailKind::AddressChanged => {
                let news = self.sources.links.address_news(id)?;
                let address = match kind {
                    MailKind::AddressChanged => news.former,
                    // If it has been changed since, that is told instead, by the other mail.
                    _ => news.is_wanted.then(|| user.email.clone()),
                };
                let Some(address) = address else { return Ok(None) };
                let name = self.name(&user, &address);
                let written = self.mailer.write(Some(kind), &[("name", Value::Text(&name))]);
                Ok(Some(Ready { address, written }))
            }
            MailKind::Notices | MailKind::CodesRest | MailKind::SessionReused => {
                let notices = self.notices(&user, kind, delivery.created_at)?;
                if notices.is_empty() {
                    return Ok(None);
                }
                let name = self.name(&user, &user.email);
                let values = [("name", Value::Text(&name)), ("notices", Value::List(&notices))];
                let written = self.mailer.write(Some(kind), &values);
                Ok(Some(Ready { address: user.email, written }))
            }
        }
    }

    /// Whom the mail greets. A name is a client's text: it goes only to an address that is known to be the user's own.
    fn name(&self, user: &User, address: &str) -> String {
        let name = user.name.as_deref().filter(|_| user.email_verified && address == user.email);
        name.map(on_one_line).filter(|name| !name.is_empty()).unwrap_or_else(|| self.mailer.sentence("nobody", &[]))
    }

    /// What mails of this kind tell of the account from then on, oldest first.
    fn notices(&self, user: &User, mail: MailKind, since: Timestamp) -> Result<Vec<String>, Error> {
        let mut told: Vec<(Event, Notice)> = Vec::new();
        for kind in TOLD {
            let filter = Filter { user: Some(user.id), kind: Some(kind), since: Some(since) };
            told.extend(self.events_to_tell(&filter, mail)?);
        }
        told.sort_unstable_by_key(|(event, _)| (event.at, event.id));
        let more = told.len() > NOTICES;
        told.truncate(NOTICES);
        let lines = told.iter().map(|(event, notice)| self.line(user, event, *notice));
        let mut lines = lines.collect::<Result<Vec<String>, Error>>()?;
        if more {
            lines.push(self.mailer.sentence("more", &[]));
        }
        Ok(lines)
    }

    /// One more than a mail has, at most.
    fn events_to_tell(&self, filter: &Filter, mail: MailKind) -> Result<Vec<(Event, Notice)>, Error> {
        let (mut told, mut after) = (Vec::new(), None);
        for _ in 0..PAGES {
            let events = self.sources.events.events(filter, after, PAGE)?;
            after = events.last().map(|event| (event.at, event.id));
            let is_last = i64::try_from(events.len()).is_ok_and(|count| count < PAGE);
            let found = events.into_iter().filter_map(|event| Notice::of(&event).map(|notice| (event, notice)));
            told.extend(found.filter(|(_, notice)| notice.mail() == mail));
            if is_last || told.len() > NOTICES {
                break;
            }
        }
        told.truncate(NOTICES + 1);
        Ok(told)
    }

    /// `2026-11-27 19:30 UTC, from 192.0.2.1: Your password was changed.`
    fn line(&self, user: &User, event: &Event, notice: Notice) -> Result<String, Error> {
        let detail = |name: &str| event.details.get(name).and_then(|value| value.as_str()).and_then(Timestamp::parse);
        let until = detail(RESTS_UNTIL).or_else(|| detail("expiresAt")).map(time).unwrap_or_default();
        let (key, webhook) = match event.subject {
            Some(Subject::Key(id)) => (self.key(user, id)?, String::new()),
            Some(Subject::Webhook(id)) => (String::new(), id.0.to_string()),
            _ => (String::new(), String::new()),
        };
        let values = [("time", Value::Text(&until)), ("key", Value::Text(&key)), ("webhook", Value::Text(&webhook))];
        let sentence = self.mailer.sentence(notice.as_str(), &values);
        let from = match (event.actor, event.ip) {
            (Actor::Operator | Actor::UserAsOperator { .. }, _) => self.mailer.sentence("by-operator", &[]),
            (Actor::System, _) => self.mailer.sentence("by-itself", &[]),
            (_, Some(ip)) => self.mailer.sentence("from-address", &[("address", Value::Text(&ip.to_string()))]),
            (_, None) => String::new(),
        };
        let comma = if from.is_empty() { "" } else { ", " };
        Ok(format!("{}{comma}{from}: {sentence}", time(event.at)))
    }

    /// The key's name, which is a client's text, or its id.
    fn key(&self, user: &User, id: KeyId) -> Result<String, Error> {
        let key = match user.email_verified {
            true => self.sources.keys.key_of(user.id, id, Timestamp::LAST)?,
            false => None,
        };
        Ok(match key {
            Some((key, _)) => format!("{} ({})", on_one_line(&key.name), id.0),
            None => id.0.to_string(),
        })
    }

    /// `1 hour`, `90 minutes`, `7 days`.
    fn span(&self, span: Duration) -> String {
        let seconds = span.as_secs();
        let (count, one, many) = match seconds {
            _ if seconds >= DAY.as_secs() && seconds.is_multiple_of(DAY.as_secs()) => {
                (seconds / DAY.as_secs(), "day", "days")
            }
            _ if seconds >= 3600 && seconds.is_multiple_of(3600) => (seconds / 3600, "hour", "hours"),
            _ => ((seconds / 60).max(1), "minute", "minutes"),
        };
        let name = if count == 1 { one } else { many };
        self.mailer.sentence(name, &[("count", Value::Text(&count.to_string()))])
    }
}

fn purpose(kind: MailKind) -> Option<Purpose> {
    match kind {
        MailKind::Verification => Some(Purpose::Verification),
        MailKind::Reset => Some(Purpose::Reset),
        MailKind::Invitation => Some(Purpose::Invitation),
        MailKind::AddressChange => Some(Purpose::AddressChange),
        MailKind::AddressChangeNotice
        | MailKind::AddressChanged
        | MailKind::Notices
        | MailKind::CodesRest
        | MailKind::SessionReused => None,
    }
}

fn on_one_line(text: &str) -> String {
    let text: String = text.chars().take(LONGEST_NAME).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_string()
}

fn time(at: Timestamp) -> String {
    at.to_datetime().format("%Y-%m-%d %H:%M UTC").to_string()
}

impl Channel for MailChannel {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        let Some(kind) = MailKind::parse(&delivery.kind) else { return Outcome::Dropped };
        let failed = |error: Error| {
            warn!("a mail ({}) cannot be written: {error:?}", kind.as_str());
            Outcome::Failed { answer: Answer::default(), reason: "it cannot be written".to_string(), timed_out: false }
        };
        let ready = match self.write(kind, delivery) {
            Ok(Some(ready)) => ready,
            Ok(None) => return Outcome::Dropped,
            Err(error) => return failed(error),
        };
        let sent = self.mailer.send(&ready.address, &ready.written, delivery.id.0, self.clock.now());
        let is_over = match &sent {
            Err(_) => false,
            Ok(Sent::Refused(fault)) => fault.is_final,
            Ok(Sent::Taken(_) | Sent::NoAddress) => true,
        };
        if is_over
            && kind == MailKind::AddressChanged
            && let Err(error) = self.sources.links.note_told(UserId(delivery.receiver), &ready.address)
        {
            warn!("that a former address was told of a change cannot be noted: {error:?}");
        }
        match sent {
            Err(error) => failed(error),
            Ok(Sent::NoAddress) => Outcome::Dropped,
            Ok(Sent::Taken(answer)) => {
                // What a server says often repeats the address, which is kept and logged nowhere but with its account.
                Outcome::Delivered(Answer { text: None, ..answer })
            }
            Ok(Sent::Refused(Fault { status, reason, timed_out, is_final, .. })) => {
                warn!("a mail ({}) was not taken by {}: {reason}", kind.as_str(), self.mailer.place());
                let answer = Answer { status, text: None };
                if is_final { Outcome::Gone(answer) } else { Outcome::Failed { answer, reason, timed_out } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_of_bounded_length() {
        assert_eq!(on_one_line(" Ann\r\nBcc: b@example.com "), "Ann  Bcc: b@example.com");
        assert_eq!(on_one_line(&"ä".repeat(300)), "ä".repeat(100));
    }

    #[test]
    fn times_are_to_the_minute() {
        assert_eq!(time(Timestamp::parse("2026-11-27T19:30:59Z").unwrap()), "2026-11-27 19:30 UTC");
    }
}
