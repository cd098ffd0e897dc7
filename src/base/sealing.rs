//! What is sealed in the store, when the data key changes: it is sealed anew by the current key, and the operator is told
//! of what no configured key opens.

use std::sync::{Arc, Mutex};

use log::{error, info, warn};
use uuid::Uuid;

use crate::base::data_key::{DataKey, Place};
use crate::base::error::{Error, StoreError};
use crate::base::sharded::lock;

/// How many are sealed anew at a time.
const PART: i64 = 100;

/// What is sealed for as long as it is kept. The previous secrets of webhooks are not: they are kept for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    SecondFactors,
    Webhooks,
}

impl Sealed {
    const ALL: [Sealed; 2] = [Sealed::SecondFactors, Sealed::Webhooks];

    pub(crate) fn place(self, row: Uuid) -> Place {
        let table = match self {
            Sealed::SecondFactors => "second_factors",
            Sealed::Webhooks => "webhooks",
        };
        Place { table, column: "secret", row }
    }
}

/// A stored value, and what takes its place.
pub struct Renewed {
    pub row: Uuid,
    pub old: Vec<u8>,
    pub new: Vec<u8>,
}

/// What this needs of a database. Any method returns `Unavailable` if it cannot be reached.
pub trait SealedStore: Send + Sync {
    /// The beginnings of the values, which name their keys, each once.
    fn heads(&self, of: Sealed) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Up to `limit` values with this beginning, in the order of their rows from the one after `after`.
    fn sealed_by(&self, of: Sealed, head: &[u8], after: Uuid, limit: i64) -> Result<Vec<(Uuid, Vec<u8>)>, StoreError>;

    /// Replaces the values that are still the old ones.
    fn replace_sealed(&self, of: Sealed, values: &[Renewed]) -> Result<(), StoreError>;
}

pub struct Sealing {
    store: Arc<dyn SealedStore>,
    key: Arc<DataKey>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// The last row of the table that is under way.
    after: Uuid,
    renewed: usize,
    /// The operator knows that there is something that no key opens.
    is_told: bool,
}

impl Sealing {
    pub(crate) fn new(store: Arc<dyn SealedStore>, key: Arc<DataKey>) -> Sealing {
        Sealing { store, key, progress: Mutex::default() }
    }

    /// Seals a part of what the previous key has sealed anew. False: there is no more.
    pub(crate) fn renew(&self) -> Result<bool, Error> {
        let mut progress = lock(&self.progress);
        let mut is_foreign = false;
        for of in Sealed::ALL {
            for head in self.store.heads(of)? {
                if !self.key.opens(&head) {
                    is_foreign = true;
                } else if self.key.is_outdated(&head) && self.renew_some(of, &head, &mut progress)? {
                    return Ok(true);
                }
            }
            progress.after = Uuid::nil();
        }
        if progress.renewed > 0 {
            info!("{} secrets that DATA_KEY_PREVIOUS had encrypted are now encrypted by DATA_KEY", progress.renewed);
        }
        if is_foreign && !progress.is_told {
            error!(
                "secrets of second factors or webhooks were encrypted by a DATA_KEY that is not set: set it as DATA_KEY, or \
                 beside another one as DATA_KEY_PREVIOUS; until then nobody can use them"
            );
        }
        *progress = Progress { is_told: is_foreign, ..Progress::default() };
        Ok(false)
    }

    /// False: there are no more of this beginning.
    fn renew_some(&self, of: Sealed, head: &[u8], progress: &mut Progress) -> Result<bool, Error> {
        let found = self.store.sealed_by(of, head, progress.after, PART)?;
        let Some((last, _)) = found.last() else { return Ok(false) };
        progress.after = *last;
        let mut values = Vec::new();
        for (row, old) in found {
            let place = of.place(row);
            match self.key.open(&place, &old).and_then(|plain| self.key.seal(&place, &plain)) {
                Ok(new) => values.push(Renewed { row, old, new }),
                Err(error) => warn!("a secret stays as it is: {error:?}"),
            }
        }
        self.store.replace_sealed(of, &values)?;
        progress.renewed += values.len();
        Ok(true)
    }
}
