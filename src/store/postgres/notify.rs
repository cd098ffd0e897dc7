//! NOTIFY and LISTEN: how instances tell each other of changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use log::{info, warn};
use uuid::Uuid;

use super::connection::{Connection, SIGN_OF_LIFE};
use super::connector::Connector;
use crate::base::error::StoreError;
use crate::memory::changes::{Change, Changes};
use crate::outbox::outlet::{CALL, Outlet};
use crate::store::driver::Value;

/// The channel of NOTIFY on which instances tell each other of changes. The payload is the id of what changed, or [`CALL`].
///
/// Channels belong to the whole database, so each schema has its own. That of `public` is the one of earlier versions.
fn channel(schema: &str) -> String {
    const CHANNEL: &str = "keyward_changes";
    match schema {
        "public" => CHANNEL.to_string(),
        // A name of a channel has at most 63 bytes, as a schema's has.
        _ => {
            let digest = digest::digest(&digest::SHA256, schema.as_bytes());
            format!("{CHANNEL}_{}", hex::encode(&digest.as_ref()[..16]))
        }
    }
}

/// How often the connection that listens is checked.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often an instance behind a pooler proves that notifications arrive.
const PROOF: Duration = Duration::from_secs(10);

/// Tells the other instances of a change when the transaction commits.
pub(super) fn notify(connection: &mut Connection, change: Uuid) -> Result<(), StoreError> {
    let parameters = [Value::Text(channel(connection.schema())), Value::Text(change.to_string())];
    connection.execute("SELECT pg_notify($1, $2)", &parameters, None)?;
    Ok(())
}

/// The connection on which an instance listens for changes.
pub struct Listener {
    connection: Connection,
    /// A channel of its own. The instance notifies itself on it to prove that notifications arrive.
    channel: String,
    /// When it last notified itself, and when such a notification last arrived.
    notified: Option<Instant>,
    heard: Option<Instant>,
}

impl Listener {
    /// `direct`: to PostgreSQL itself, if there is a way around the pooler.
    pub(super) fn start(direct: &Connector, changes: &Changes) -> Result<Listener, StoreError> {
        let mut connection = direct.connect()?;
        let own = format!("keyward_listener_{}", Uuid::now_v7().simple());
        connection.set_deadline(Some(Instant::now() + SIGN_OF_LIFE));
        connection.script(&format!("LISTEN {}; LISTEN {own}", channel(connection.schema())))?;
        // Earlier notifications were missed.
        changes.note(Change::Everything);
        Ok(Listener { connection, channel: own, notified: None, heard: None })
    }

    /// Whether the server did not answer in time.
    pub(super) fn was_silent(&self) -> bool {
        self.connection.was_silent()
    }

    /// Listens for [`HEARTBEAT`] and notes what changed. `elsewhere` runs a script on another connection; `deaf` is whether
    /// the log says that the pooler passes no notifications on.
    pub(super) fn listen(
        &mut self,
        elsewhere: impl FnOnce(&str) -> Result<(), StoreError>,
        deaf: &AtomicBool,
        changes: &Changes,
        outlet: &Outlet,
    ) -> Result<(), StoreError> {
        let (started, end) = (Instant::now(), Instant::now() + HEARTBEAT);
        // Listening alone does not tell a dead server from one that has nothing to say.
        self.connection.set_deadline(Some(started + SIGN_OF_LIFE));
        self.connection.check()?;
        if self.notified.is_none_or(|at| self.connection.is_pooled() && at.elapsed() >= PROOF) {
            self.notify_itself(elsewhere)?;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.connection.notifications(left)? {
                None => {
                    changes.note(Change::Everything);
                    outlet.wake();
                }
                Some(notifications) => {
                    for notification in notifications {
                        if notification.channel() == self.channel {
                            self.heard = Some(Instant::now());
                        } else {
                            // A later version may send other payloads than ids.
                            let id = Uuid::try_parse(notification.payload());
                            if id == Ok(CALL) {
                                outlet.wake();
                                continue;
                            }
                            changes.note(id.map_or(Change::Everything, Change::Of));
                        }
                    }
                }
            }
            if left.is_zero() {
                break;
            }
        }
        self.judge(deaf, changes)
    }

    /// A direct connection that has received one notification goes on receiving them. Through a pooler it may have been
    /// by chance.
    fn notify_itself(&mut self, elsewhere: impl FnOnce(&str) -> Result<(), StoreError>) -> Result<(), StoreError> {
        // It need not be on a disk, nor wait for a standby.
        let notify = format!("SET LOCAL synchronous_commit = off; NOTIFY {}", self.channel);
        if !self.connection.is_pooled() {
            self.connection.script(&notify)?;
            self.notified = Some(Instant::now());
            return Ok(());
        }
        // On another connection: on its own, the pooler may assign the very server process that listens.
        if elsewhere(&notify).is_ok() {
            self.notified = Some(Instant::now());
        }
        Ok(())
    }

    fn judge(&self, deaf: &AtomicBool, changes: &Changes) -> Result<(), StoreError> {
        let Some(notified) = self.notified else { return Ok(()) };
        if self.heard.is_some_and(|heard| heard >= notified) {
            if deaf.swap(false, Ordering::Relaxed) {
                changes.note(Change::Everything);
                info!("the pooler before PostgreSQL passes notifications on");
            }
            return Ok(());
        }
        if notified.elapsed() < SIGN_OF_LIFE {
            return Ok(());
        }
        if !self.connection.is_pooled() {
            return Err(StoreError::Unavailable("PostgreSQL: a notification did not arrive".to_string()));
        }
        if !deaf.swap(true, Ordering::Relaxed) {
            warn!(
                "changes made elsewhere take up to 5 s to be seen: the pooler before PostgreSQL passes no notifications \
                 on; set DATABASE_URL_DIRECT to the address of PostgreSQL itself"
            );
        }
        Ok(())
    }
}
