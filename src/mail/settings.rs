//! The settings of this room.

use std::path::PathBuf;

use crate::mail::addresses::Sender;
use crate::mail::smtp_url::SmtpUrl;

#[derive(Clone, Debug, Default)]
pub struct MailSettings {
    /// The server that takes mail. `None`: there is no mail.
    pub smtp: Option<SmtpUrl>,
    /// From whom mail is. With a server, it is there.
    pub from: Option<Sender>,
    /// The folder of the operator's own texts.
    pub templates: Option<PathBuf>,
}

impl MailSettings {
    /// Whether there is mail.
    pub fn is_on(&self) -> bool {
        self.smtp.is_some()
    }
}
