//! What Keyward makes itself and keeps in files beside the SQLite file, among them the file of secrets: `NAME=secret`,
//! one a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use log::info;
use rand::TryRng;
use rand::rngs::SysRng;
use uuid::Uuid;

use crate::base::files;
use crate::base::secret::Secret;

pub(crate) const JWT_SECRET: &str = "JWT_SECRET";
pub(crate) const JWT_REFRESH_SECRET: &str = "JWT_REFRESH_SECRET";
pub(crate) const DATA_KEY: &str = "DATA_KEY";

/// The file of secrets, as it was read.
pub(crate) struct KeptSecrets {
    path: PathBuf,
    text: String,
}

impl KeptSecrets {
    /// `None`: there is no such file.
    pub(crate) fn read(database: &Path) -> Result<Option<KeptSecrets>, String> {
        let path = kept_at(database, "secrets");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(KeptSecrets { path, text })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_keep(&path, &error)),
        }
    }

    /// A file that does not exist is made, with all secrets. Of several servers that start at the same time, all read the
    /// same ones.
    pub(crate) fn read_or_make(database: &Path) -> Result<KeptSecrets, String> {
        if let Some(kept) = KeptSecrets::read(database)? {
            return Ok(kept);
        }
        let path = kept_at(database, "secrets");
        let make = || -> io::Result<String> {
            let mut text = String::new();
            for name in [JWT_SECRET, JWT_REFRESH_SECRET, DATA_KEY] {
                text.push_str(&line(name)?);
            }
            if place(&path, &text)? {
                info!("JWT secrets and a data key were generated; they are kept in {}", path.display());
            }
            fs::read_to_string(&path)
        };
        let text = make().map_err(|error| cannot_keep(&path, &error))?;
        Ok(KeptSecrets { path, text })
    }

    /// Adds a new secret if there is none of this name: the file may be of a version that did not have it.
    pub(crate) fn add(&mut self, name: &str) -> Result<(), String> {
        if self.has(name) {
            return Ok(());
        }
        self.add_line(name).map_err(|error| cannot_keep(&self.path, &error))
    }

    fn add_line(&mut self, name: &str) -> io::Result<()> {
        // Two servers that both added one would seal with different keys.
        let locked = File::open(&self.path)?;
        locked.lock()?;
        // The server that had the lock before has put another file in the place of the one that is locked.
        self.text = fs::read_to_string(&self.path)?;
        if self.has(name) {
            return Ok(());
        }
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str(&line(name)?);
        replace(&self.path, &self.text)?;
        info!("{name} was generated; it is kept in {}", self.path.display());
        Ok(())
    }

    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.values(name).next().map(|secret| Secret::new(secret.to_string()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

fn cannot_keep(path: &Path, error: &io::Error) -> String {
    let owner = files::foreign([path, folder_of(path)]);
    format!("the secrets cannot be kept in {}: {error}{owner}", path.display())
}

fn line(name: &str) -> io::Result<String> {
    Ok(format!("{name}={}\n", new_secret()?))
}

/// 256 random bits, in hexadecimal.
pub(crate) fn new_secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// The path of a file that is kept beside the database.
pub(crate) fn kept_at(database: &Path, what: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(format!(".{what}"));
    path.into()
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a file that only its owner can read. It appears whole or not at all. False: another server that started at the
/// same time made it first, and its file stays.
pub(crate) fn place(path: &Path, text: &str) -> io::Result<bool> {
    let (draft, _) = draft(path, text)?;
    let placed = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    let ours = match placed {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    File::open(folder_of(path))?.sync_all()?;
    Ok(ours)
}

/// Changes what a file holds, at once and not its owner or permissions. A link to it stays one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let old = fs::metadata(&path)?;
    let (draft, file) = draft(&path, text)?;
    let put = || {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
        fs::rename(&draft, &path)
    };
    put().inspect_err(|_| drop(fs::remove_file(&draft)))?;
    File::open(folder_of(&path))?.sync_all()
}

fn draft(path: &Path, text: &str) -> io::Result<(PathBuf, File)> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", Uuid::now_v7()));
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok((draft, file))
}
