//! What writes and sends mail: the texts, the sender and the server.

use std::sync::Arc;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::error::Error;
use crate::mail::addresses::{Sender, address_of};
use crate::mail::kinds::MailKind;
use crate::mail::letter::letter;
use crate::mail::settings::MailSettings;
use crate::mail::smtp::{Envelope, Fault, Smtp};
use crate::mail::template::{Value, Values};
use crate::mail::texts::{Texts, Written};
use crate::outbox::delivery::Answer;

pub struct Mailer {
    smtp: Arc<Smtp>,
    from: Sender,
    texts: Texts,
}

/// What became of a mail.
pub enum Sent {
    Taken(Answer),
    Refused(Fault),
    /// No mail can go to this address.
    NoAddress,
}

impl Mailer {
    /// Reads and checks the texts; the server is not asked yet. `None`: there is no mail. The error is one line for the
    /// operator.
    pub fn open(settings: &MailSettings) -> Result<Option<Mailer>, String> {
        let MailSettings { smtp, from, templates } = settings;
        let Some((smtp, from)) = smtp.clone().zip(from.clone()) else { return Ok(None) };
        Ok(Some(Mailer { smtp: Smtp::new(smtp), from, texts: Texts::load(templates.as_deref())? }))
    }

    /// The server, for messages.
    pub fn place(&self) -> String {
        self.smtp.place()
    }

    /// Sends the mail that says that mail works.
    pub fn send_test(&self, to: &str, at: Timestamp) -> Result<Sent, Error> {
        let nobody = self.sentence("nobody", &[]);
        let written = self.write(None, &[("name", Value::Text(&nobody))]);
        self.send(to, &written, Uuid::now_v7(), at)
    }

    pub(crate) fn write(&self, kind: Option<MailKind>, values: &Values<'_>) -> Written {
        self.texts.write(kind, &self.with_service(values))
    }

    pub(crate) fn sentence(&self, name: &str, values: &Values<'_>) -> String {
        self.texts.sentence(name, &self.with_service(values))
    }

    fn with_service<'a>(&'a self, values: &Values<'a>) -> Vec<(&'static str, Value<'a>)> {
        values.iter().copied().chain([("service", Value::Text(self.from.service()))]).collect()
    }

    /// `to`: an address as it is stored. `id`: the mail's, the same at each try.
    pub(crate) fn send(&self, to: &str, written: &Written, id: Uuid, at: Timestamp) -> Result<Sent, Error> {
        let Some(to) = address_of(to) else { return Ok(Sent::NoAddress) };
        let letter = letter(&self.from, &to, written, id, at)?;
        let from = self.from.mailbox().email.clone();
        Ok(self.smtp.send(Envelope { from, to, letter }).map_or_else(Sent::Refused, Sent::Taken))
    }
}
