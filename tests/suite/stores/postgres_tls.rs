//! TLS between Keyward and PostgreSQL: each mode of `DB_SSLMODE`.

use std::process::Command;

use keyward_harness::http_client::PATIENCE;
use keyward_harness::postgres_cluster::{self, Database};
use keyward_harness::program::{Home, finish};
use keyward_harness::service::{Backend, within};
use keyward_harness::tools::{Tool, installed};

/// The home of a database with these settings in place of a URL.
fn home_with(database: Database, settings: &[(&str, &str)]) -> Home {
    let parts = [
        ("DB_HOST", database.host().to_string()),
        ("DB_PORT", database.port().to_string()),
        ("DB_USERNAME", database.user().to_string()),
        ("DB_PASSWORD", database.password().to_string()),
        ("DB_NAME", database.name().to_string()),
    ];
    let mut home = Home::with_database(database);
    home.unset("DATABASE_URL");
    for (name, value) in parts {
        home.set(name, &value);
    }
    for (name, value) in settings {
        home.set(name, value);
    }
    home
}

#[track_caller]
fn refused(home: &Home, settings: &[(&str, &str)]) -> String {
    let finished = finish(home.command(&["migrate"]).envs(settings.iter().copied()), "");
    assert_eq!(finished.stdout, "");
    finished.failed(1).to_string()
}

#[track_caller]
fn accepted(home: &Home, settings: &[(&str, &str)]) {
    finish(home.command(&["migrate"]).envs(settings.iter().copied()), "").succeeded();
}

#[test]
fn a_server_without_tls_is_enough_for_prefer_and_disable_and_for_nothing_else() {
    if !postgres_cluster::available() {
        return;
    }
    let home = home_with(Database::fresh(), &[]);
    let certificate = home.path("ca.crt");
    accepted(&home, &[]);
    accepted(&home, &[("DB_SSLMODE", "prefer")]);
    accepted(&home, &[("DB_SSLMODE", "disable")]);
    let line = refused(&home, &[("DB_SSLMODE", "require")]);
    assert!(line.contains("server does not support TLS"), "{line}");
    let line = refused(&home, &[("DB_SSLMODE", "verify-full")]);
    assert!(line.contains("DB_SSLROOTCERT is not set"), "{line}");

    let verify = [("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", certificate.to_str().unwrap())];
    let line = refused(&home, &verify);
    assert!(line.contains("DB_SSLROOTCERT") && line.contains("No such file"), "{line}");
    std::fs::write(&certificate, "-----BEGIN PRIVATE KEY-----hunter2").unwrap();
    let line = refused(&home, &verify);
    let numbers = "104, 117, 110, 116, 101, 114";
    assert!(line.ends_with("ca.crt: is not PEM") && !line.contains("hunter2") && !line.contains(numbers), "{line}");
    std::fs::write(&certificate, "no certificate").unwrap();
    let line = refused(&home, &verify);
    assert!(line.contains("DB_SSLROOTCERT") && line.contains("no certificate"), "{line}");
    if let Some(certificates) = Certificates::make() {
        std::fs::write(&certificate, certificates.read("ca.crt")).unwrap();
        let line = refused(&home, &verify);
        assert!(line.contains("server does not support TLS"), "{line}");
    }
}

/// Two authorities; the first has signed for a server named localhost, which has a self-signed certificate too.
struct Certificates(Home);

impl Certificates {
    /// `None` where there is no openssl to make them with.
    fn make() -> Option<Certificates> {
        let folder = Home::fresh(Backend::Sqlite);
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(folder.path("."));
            let finished = finish(&mut command, "");
            assert_eq!(finished.code, Some(0), "openssl {arguments}: {finished:?}");
        };
        if !installed(&[Tool::Openssl]) {
            return None;
        }
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for name in ["ca", "other-ca"] {
            openssl(&format!("req -x509 {new} -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt"));
        }
        openssl(&format!("req {new} -subj /CN=localhost -keyout server.key -out server.csr"));
        std::fs::write(folder.path("names"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
        );
        openssl(
            "req -x509 -key server.key -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -out self.crt",
        );
        Some(Certificates(folder))
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name).to_str().unwrap().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path(name)).unwrap()
    }
}

/// Lets the cluster of this database speak TLS with this certificate. The server writes the files itself: they
/// have to belong to the user it runs as.
fn enable_tls(database: &Database, key: &str, certificate: &str) {
    let mut client = database.client();
    for (text, file) in [(key, "server.key"), (certificate, "server.crt")] {
        let lines = format!("unnest(string_to_array('{}', E'\\n'))", text.trim_end());
        let write = format!("COPY (SELECT {lines}) TO PROGRAM 'umask 077 && cat > {file}'");
        client.batch_execute(&write).unwrap();
    }
    // Not in one batch: it would be one transaction, and ALTER SYSTEM goes without.
    client.batch_execute("ALTER SYSTEM SET ssl = on").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    within(PATIENCE, "the server has read its settings", || {
        let served: String = database.client().query_one("SHOW ssl", &[]).unwrap().get(0);
        served == "on"
    });
}

#[test]
fn each_mode_checks_of_a_server_with_tls_what_libpq_would_check() {
    if !postgres_cluster::available() {
        return;
    }
    let Some(certificates) = Certificates::make() else { return };
    let database = Database::apart();
    enable_tls(&database, &certificates.read("server.key"), &certificates.read("server.crt"));
    let home = home_with(database, &[]);
    let (ca, other_ca) = (certificates.path("ca.crt"), certificates.path("other-ca.crt"));
    let named = ("DB_HOST", "localhost");
    let numbered = ("DB_HOST", "127.0.0.1");

    // Any certificate, as long as nobody says which.
    for mode in ["disable", "prefer", "require"] {
        accepted(&home, &[named, ("DB_SSLMODE", mode)]);
        accepted(&home, &[numbered, ("DB_SSLMODE", mode)]);
    }
    // With an authority: its chain, but not the name.
    accepted(&home, &[named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &ca)]);
    accepted(&home, &[numbered, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &ca)]);
    let line = refused(&home, &[named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &other_ca)]);
    assert!(line.contains("certificate"), "{line}");
    // In full: chain and name.
    accepted(&home, &[named, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &ca)]);
    let line = refused(&home, &[named, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &other_ca)]);
    assert!(line.contains("certificate"), "{line}");
    let line = refused(&home, &[numbered, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &ca)]);
    assert!(line.contains("certificate"), "{line}");

    // The same in a URL; and it is TLS indeed, also where it is only preferred.
    let database = home.database().unwrap();
    let url = |mode: &str| {
        let url = database.url().replace("@127.0.0.1:", "@localhost:");
        format!("{url}?sslmode={mode}&sslrootcert={ca}")
    };
    for (settings, uses_tls) in [
        (("DATABASE_URL", url("verify-full")), true),
        (("DB_SSLMODE", "require".to_string()), true),
        (("DB_SSLMODE", "prefer".to_string()), true),
        (("DB_SSLMODE", "disable".to_string()), false),
    ] {
        let server = home.start(&[(settings.0, &settings.1)]);
        assert_eq!(server.client().get("/health").send().status, 200);
        let select = "SELECT bool_and(ssl), bool_or(ssl) FROM pg_stat_ssl \
                      JOIN pg_stat_activity USING (pid) WHERE application_name = 'keyward'";
        let row = database.client().query_one(select, &[]).unwrap();
        assert_eq!([row.get::<_, bool>(0), row.get(1)], [uses_tls; 2], "{settings:?}");
        server.stop();
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keyward'";
        let mut client = database.client();
        within(PATIENCE, "its connections are closed", || client.query_one(count, &[]).unwrap().get::<_, i64>(0) == 0);
    }

    // A server's own certificate as the authority, as PostgreSQL's manual shows it.
    enable_tls(database, &certificates.read("server.key"), &certificates.read("self.crt"));
    let own = certificates.path("self.crt");
    within(PATIENCE, "the server has another certificate", || {
        let settings = [named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &ca)];
        finish(home.command(&["migrate"]).envs(settings), "").code == Some(1)
    });
    accepted(&home, &[named, ("DB_SSLMODE", "require")]);
    accepted(&home, &[named, ("DB_SSLMODE", "require"), ("DB_SSLROOTCERT", &own)]);
    accepted(&home, &[named, ("DB_SSLMODE", "verify-full"), ("DB_SSLROOTCERT", &own)]);
}
