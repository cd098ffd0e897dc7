//! The settings of this room.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::tokens::algorithm::Algorithm;
use crate::tokens::service::Parties;

#[derive(Clone, Debug, Default)]
pub struct TokenSettings {
    /// Signs access tokens with HS256. `None`: generated with SQLite, an error with PostgreSQL.
    pub secret: Option<Secret>,
    /// Signs refresh tokens. `None`: as above.
    pub refresh_secret: Option<Secret>,
    /// The secrets before or after a change: they verify tokens, and sign nothing.
    pub previous_secret: Option<Secret>,
    pub previous_refresh_secret: Option<Secret>,
    /// How access tokens are signed.
    pub algorithm: Algorithm,
    /// Signs access tokens with another algorithm than HS256. `None`: as for the secrets.
    pub private_key_file: Option<PathBuf>,
    /// The keys before or after a change: they are published and verify tokens, and sign nothing.
    pub previous_key_files: Vec<PathBuf>,
    pub parties: Parties,
    pub access_lifetime: Duration,
    pub refresh_lifetime: Duration,
}
