//! Mail to users: by which server, from whom, and in whose words.

use super::read::path;
use crate::config::setting::{ALWAYS, Counts, Setting};
use crate::mail::addresses::Sender;
use crate::mail::smtp_url::SmtpUrl;

const WITH_A_SERVER: Counts = |config| if config.mail.is_on() { Ok(()) } else { Err("SMTP_URL is not set") };

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "SMTP_URL",
        default: None,
        accepts: "smtps://USER:PASSWORD@HOST, or smtp://HOST?tls=required (the default), opportunistic or none; a port may follow HOST, and %40 stands for an @ in USER",
        meaning: "The server that takes mail to users; without it there is none",
        secret: true,
        counts: ALWAYS,
        read: |config, value| {
            config.mail.smtp = Some(SmtpUrl::parse(value)?);
            Ok(())
        },
    },
    Setting {
        name: "MAIL_FROM",
        default: None,
        accepts: "an address, also with a name, such as Example <auth@example.com>",
        meaning: "From whom mail is, and what it calls your service; required with SMTP_URL",
        secret: false,
        counts: WITH_A_SERVER,
        read: |config, value| {
            config.mail.from = Some(Sender::parse(value)?);
            Ok(())
        },
    },
    Setting {
        name: "MAIL_TEMPLATES",
        default: None,
        accepts: "the path of a folder",
        meaning: "Your own texts of mails in place of ours; docs/mail.md says how to write them",
        secret: false,
        counts: WITH_A_SERVER,
        read: |config, value| path(&mut config.mail.templates, value),
    },
];
