//! A disk that is full or read-only beneath SQLite: what only reads goes on, what writes is told to come back and has left
//! nothing half done, and all is well when there is room again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use keyward_harness::http_client::{Answer, Client};
use keyward_harness::program::{Home, Server};
use keyward_harness::service::{Account, Backend, PASSWORD, account};
use keyward_harness::tools::skip;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::load::SOON;
use crate::target::{GRANT, NO_LIMITS, Witness, create_key, has_no_faults, text, unavailable};

/// Everything that writes, with its answer when it can. Each can be asked once.
struct Writes {
    owner: Account,
    /// Another session of the same user.
    other: Account,
    /// One more, that is refreshed.
    refreshed: Account,
    to_revoke: String,
}

impl Writes {
    fn prepare(client: &Client, owner: &Account) -> Writes {
        let log_in = || {
            let form = json!({ "email": owner.email, "password": PASSWORD });
            account(&client.post("/auth/login").json(form).send().json())
        };
        create_key(client, owner);
        let keys = client.get("/keys").bearer(&owner.access).send();
        let to_revoke = keys.json()[0]["id"].as_str().unwrap().to_string();
        Writes { owner: log_in(), other: log_in(), refreshed: log_in(), to_revoke }
    }

    fn each(&self, client: &Client, mut take: impl FnMut(&str, u16, &dyn Fn() -> Answer)) {
        let access = &self.owner.access;
        let form = |email: &str| json!({ "email": email, "password": PASSWORD });
        let key = format!("/keys/{}", self.to_revoke);
        take("sign up", 201, &|| client.post("/auth/signup").json(form("bob@example.com")).send());
        take("log in", 200, &|| client.post("/auth/login").json(form(&self.owner.email)).send());
        let refresh = json!({ "refreshToken": self.refreshed.refresh });
        take("refresh", 200, &|| client.post("/auth/refresh").json(refresh.clone()).send());
        take("log out", 200, &|| client.post("/auth/logout").bearer(&self.other.access).send());
        let name = json!({ "name": "new" });
        take("create a key", 201, &|| client.post("/keys/create").bearer(access).json(name.clone()).send());
        take("rename a key", 200, &|| client.method("PATCH", &key).bearer(access).json(name.clone()).send());
        take("revoke a key", 200, &|| client.delete(&key).bearer(access).send());
    }
}

/// From `fill` to `free` nothing can be written.
fn story(server: Server<'_>, fill: impl FnOnce(&Server<'_>), free: impl FnOnce(&Server<'_>)) {
    let witness = Witness::of(&server);
    story_of(witness, server, fill, free);
}

fn story_of(witness: Witness, server: Server<'_>, fill: impl FnOnce(&Server<'_>), free: impl FnOnce(&Server<'_>)) {
    let client = Client::unobserved(server.address());
    let writes = Writes::prepare(&client, &witness.account);
    let read = |target: &str| client.get(target).bearer(&writes.owner.access).send();
    // Without what is known of their use, which is in memory for a while.
    let keys = || -> Vec<Value> {
        let keys = read("/keys").json();
        let fields = |key: &Value| json!([key["id"], key["name"], key["isActive"], key["revokedAt"]]);
        keys.as_array().unwrap().iter().map(fields).collect()
    };
    let sessions = || read("/auth/sessions").json().as_array().unwrap().len();
    let (keys_before, sessions_before) = (keys(), sessions());

    fill(&server);
    writes.each(&client, |name, _, ask| {
        let asked = Instant::now();
        let answer = ask();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{name}: {answer:?}");
        assert_eq!(answer.json(), unavailable(), "{name}");
        assert!(asked.elapsed() < Duration::from_secs(6), "{name}: {:?}", asked.elapsed());
    });
    witness.is_served();
    // Nothing of it has been done, and nothing of it is believed.
    assert_eq!((keys(), sessions()), (keys_before.clone(), sessions_before));
    assert_eq!(read("/protected/user-only").status, 200);
    assert_eq!(client.get("/protected/user-only").bearer(&writes.other.access).send().status, 200);
    let wrong = json!({ "email": writes.owner.email, "password": "not this one" });
    // It cannot be counted, so nobody learns that it is wrong.
    assert_eq!(client.post("/auth/login").json(wrong).send().status, 503);

    free(&server);
    let back = Instant::now();
    writes.each(&client, |name, expected, ask| {
        let answer = loop {
            let answer = ask();
            if answer.status != 503 {
                break answer;
            }
            assert!(back.elapsed() < SOON, "{name}: {:?} after there was room", back.elapsed());
        };
        assert_eq!(answer.status, expected, "{name}: {answer:?}");
        if name == "sign up" {
            assert_eq!(text(&answer, "accessToken").split('.').count(), 3);
        }
    });
    assert_eq!(keys().len(), keys_before.len() + 1);
    assert_eq!(client.get("/protected/user-only").bearer(&writes.other.access).send().status, 401);
    witness.testify();
    let said = server.stop();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    has_no_faults(&said.stderr);
}

/// The system's limit on the size of files, which is met by every write like the end of a disk; anyone may lower it.
fn limit_files(server: &Server<'_>, most: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: most, maximum }).unwrap();
}

#[test]
fn when_files_may_not_grow_writes_are_told_to_come_back_and_reads_go_on() {
    let home = Home::fresh(Backend::Sqlite);
    story(home.start(&NO_LIMITS), |server| limit_files(server, Some(0)), |server| limit_files(server, None));
}

/// In the middle of a page of the log: a part of what is written gets through.
#[test]
fn when_a_write_stops_half_way_nothing_of_it_is_there() {
    let home = Home::fresh(Backend::Sqlite);
    let half_a_page_more = |server: &Server<'_>| {
        let size = home.path("keyward.db-wal").metadata().unwrap().len();
        limit_files(server, Some(size + 2000));
    };
    story(home.start(&NO_LIMITS), half_a_page_more, |server| limit_files(server, None));
}

/// Whether this system lets a test have a file system of its own, and how.
fn unshare() -> Option<&'static str> {
    let user = if rustix::process::getuid().is_root() { "-m" } else { "-rm" };
    let mut command = Command::new("unshare");
    command.args([user, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]);
    command.output().is_ok_and(|output| output.status.success()).then_some(user)
}

#[test]
fn when_the_disk_is_full_writes_are_told_to_come_back_and_reads_go_on() {
    let Some(user) = unshare() else {
        skip("mounting a file system");
        return;
    };
    let mut home = Home::fresh(Backend::Sqlite);
    fs::create_dir(home.path("disk")).unwrap();
    home.set("KEYWARD_DB", "disk/keyward.db");
    let mount = "mount -t tmpfs -o size=4m tmpfs disk && exec \"$0\"";
    let server = home.start_after(&format!("exec unshare {user} sh -c '{mount}' \"$0\""), &NO_LIMITS);
    // Only the server sees it where it is; through it, everyone does.
    let ballast = |server: &Server<'_>| {
        let folder = home.path("disk").canonicalize().unwrap();
        PathBuf::from(format!("/proc/{}/root{}/ballast", server.pid(), folder.display()))
    };
    let fill = |server: &Server<'_>| {
        let mut file = File::create(ballast(server)).unwrap();
        // To the last byte.
        for piece in [65536, 4096, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    };
    let usual = home.command(&GRANT);
    let mut grant = Command::new("nsenter");
    grant.args(["-t", &server.pid().to_string(), "-m", "--wd"]);
    if user == "-rm" {
        grant.args(["-U", "--preserve-credentials"]);
    }
    grant.arg(usual.get_program()).args(GRANT).env_clear();
    grant.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let witness = Witness::granted_by(&server, grant);
    story_of(witness, server, fill, |server| fs::remove_file(ballast(server)).unwrap());
}

/// Files that nobody may write, not even who has them open. They are as they were when this is dropped.
struct Immutable(Vec<(File, IFlags)>);

impl Immutable {
    fn make(files: &[PathBuf]) -> io::Result<Immutable> {
        let mut immutable = Immutable(Vec::new());
        for path in files {
            let file = File::open(path)?;
            let before = ioctl_getflags(&file)?;
            ioctl_setflags(&file, before | IFlags::IMMUTABLE)?;
            immutable.0.push((file, before));
        }
        Ok(immutable)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        for (file, before) in &self.0 {
            let _ = ioctl_setflags(file, *before);
        }
    }
}

#[test]
fn when_the_file_becomes_read_only_writes_are_told_to_come_back_and_reads_go_on() {
    let home = Home::fresh(Backend::Sqlite);
    let trial = home.path("trial");
    let mut open = OpenOptions::new().create_new(true).append(true).open(&trial).unwrap();
    let refuses = Immutable::make(&[trial]).map(|_immutable| open.write_all(b"x").is_err());
    if !refuses.unwrap_or(false) {
        skip("making files immutable");
        return;
    }
    let files = [home.path("keyward.db"), home.path("keyward.db-wal")];
    let immutable = std::cell::RefCell::new(None);
    let server = home.start(&NO_LIMITS);
    story(server, |_| drop(immutable.replace(Some(Immutable::make(&files).unwrap()))), |_| drop(immutable.take()));
}
