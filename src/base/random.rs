//! Random bytes from the system, for secrets.

use rand::TryRng;
use rand::rngs::SysRng;

use crate::base::error::Error;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| Error::Internal(format!("the system's random source: {error}")))?;
    Ok(bytes)
}
