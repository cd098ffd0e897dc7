//! Mail: what Keyward writes to users, and how it is sent.

pub mod addresses;
pub mod channel;
pub mod kinds;
mod letter;
pub mod mailer;
pub mod notices;
pub mod settings;
pub mod smtp;
pub mod smtp_url;
mod template;
pub mod texts;
