//! Explains missing permissions on files to the operator, for instance when root created files that the service's user
//! cannot open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The absolute path, which is valid from any working directory.
pub(crate) fn full(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// If this process may not read and write one of these files: who owns it and what to do, as the end of a message.
/// Otherwise empty.
pub(crate) fn foreign<'a>(paths: impl IntoIterator<Item = &'a Path>) -> String {
    paths.into_iter().find_map(|path| barred(path, Access::READ_OK | Access::WRITE_OK)).unwrap_or_default()
}

/// The same for a file that is only read.
pub(crate) fn unreadable(path: &Path) -> String {
    barred(path, Access::READ_OK).unwrap_or_default()
}

fn barred(path: &Path, wanted: Access) -> Option<String> {
    let file = fs::metadata(path).ok()?;
    access(path, wanted).err()?;
    let (owner, me) = (name(file.uid()), name(rustix::process::geteuid().as_raw()));
    let done = if owner == me { "chmod it".to_string() } else { format!("chown it, or run this as {owner}") };
    let (path, mode) = (full(path), file.mode() & 0o7777);
    Some(format!("; {} belongs to {owner} (mode {mode:04o}), and this runs as {me}: {done}", path.display()))
}

/// The name of a user, from `/etc/passwd`.
fn name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (rest.split(':').nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    });
    named.unwrap_or_else(|| format!("user {uid}"))
}
