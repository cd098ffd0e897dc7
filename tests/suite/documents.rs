//! README.md and `docs/` are run and compared: the curl tours, the lines for PostgreSQL, the tables, the links.
//!
//! `UPDATE_DOCS=1 cargo test --test suite -- documents` writes what is generated: the tables of settings and routes, and
//! `.env.example`.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use keyward::api::routes::ROUTES;
use keyward::audit::event::Kind;
use keyward::config;
use keyward::http::route::Route;
use keyward::keys::grants::Grants;
use keyward_harness::openapi::DOCUMENT;
use keyward_harness::postgres_cluster::{self, Database};
use keyward_harness::program::{self, finish};
use keyward_harness::service::{Backend, Service};
use keyward_harness::tools::{Tool, installed};
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text between a heading and the next one of its level.
#[track_caller]
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start =
        document.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("there is no section {heading:?}"));
    let rest = &document[start + 1..];
    let end = rest[3..].find("\n## ").map_or(rest.len(), |end| end + 3);
    &rest[..end]
}

/// The fenced blocks of a text: language and content.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((language, content.join("\n")));
        }
    }
    blocks
}

/// What stays the same from run to run: names and types, not values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => 0.into(),
        other => other.clone(),
    }
}

/// Runs the commands of a text one after the other, and compares each answer that is shown with the server's.
fn take_the_tour(text: &str, least: usize) {
    if !installed(&[Tool::Bash, Tool::Curl]) {
        return;
    }
    let service = Service::start_with(Backend::Sqlite, &[], |config| config.accounts.user_scopes = Grants::default());
    let here = format!("http://{}", service.address());
    let blocks = blocks(text);
    const END: &str = "--- end of a step ---";
    let script: String = blocks
        .iter()
        .filter(|(language, _)| *language == "sh")
        .map(|(_, commands)| format!("{}\necho; echo '{END}'\n", commands.replace("http://localhost:3000", &here)))
        .collect();
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", &script]).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let mut answers = output.split(END).map(str::trim);

    let mut compared = 0;
    let mut answer = "";
    for (language, content) in &blocks {
        match *language {
            "sh" => answer = answers.next().unwrap(),
            "json" => {
                let shown: Value = serde_json::from_str(content).unwrap();
                let real: Value = serde_json::from_str(answer).unwrap_or_else(|_| panic!("{answer:?} is not JSON"));
                assert_eq!(shape(&real), shape(&shown), "the document shows {shown}, the server says {real}");
                compared += 1;
            }
            other => panic!("the tour has a block of {other:?}"),
        }
    }
    assert!(compared >= least, "only {compared} answers are shown");
    // Nothing but what the document shows has failed.
    assert!(!output.contains("\"statusCode\":500"));
}

#[test]
fn the_readmes_five_calls_give_the_answers_it_shows() {
    take_the_tour(section(&read("README.md"), "Five calls"), 5);
}

#[test]
fn the_curl_tour_gives_the_answers_it_shows() {
    take_the_tour(&read("docs/tour.md"), 8);
}

/// On a cluster of the test's own, by its owner instead of by `sudo -u postgres`.
#[test]
fn the_readmes_lines_for_postgresql_give_a_database_that_only_their_writer_can_open() {
    if !installed(&[Tool::Bash, Tool::Openssl]) || !postgres_cluster::available() {
        return;
    }
    let binaries = postgres_cluster::BINARIES.as_ref().unwrap();
    let database = Database::apart();
    let folder = env::temp_dir().join(format!("keyward-readme-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let sudo = folder.join("sudo");
    fs::write(&sudo, "#!/bin/sh\nshift 2\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();

    let readme = read("README.md");
    let blocks = blocks(section(&readme, "PostgreSQL"));
    let [("sh", lines)] = &blocks[..] else { panic!("{blocks:?}") };
    let keyward = program::path();
    let lines = lines
        .replace("ROLE keyward ", "ROLE reader ")
        .replace("--owner=keyward keyward", "--owner=reader readers")
        .replace("//keyward:", "//reader:")
        .replace("@localhost/keyward", &format!("@{}:{}/readers", database.host(), database.port()))
        .replace("\nkeyward", &format!("\n{} migrate", keyward.display()));
    let path = format!("{}:{}:{}", folder.display(), binaries.display(), env::var("PATH").unwrap());
    let finished = finish(
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", &lines])
            .current_dir(&folder)
            .env("PATH", path)
            .env("PGHOST", database.host())
            .env("PGPORT", database.port().to_string())
            .env("PGUSER", database.user())
            .env("PGPASSWORD", database.password())
            .env("PGDATABASE", database.name()),
        "",
    );
    assert!(finished.succeeded().contains("applied: 0001_"));
    assert_eq!(fs::metadata(folder.join(".env")).unwrap().mode() & 0o777, 0o600);
    fs::remove_dir_all(&folder).unwrap();
}

const UPDATE: &str = "run `UPDATE_DOCS=1 cargo test --test suite -- documents`";

/// Compares the generated part of a document with `generated`, or writes it. It goes from `start` to the next heading of
/// level 2, or to the end.
#[track_caller]
fn assert_generated(path: &str, start: &str, generated: &str) {
    let document = read(path);
    let start = document.find(start).unwrap_or_else(|| panic!("{path} has no {start:?}")) + start.len();
    let end = document[start..].find("\n## ").map_or(document.len(), |length| start + length);
    if env::var_os("UPDATE_DOCS").is_some() {
        let updated = format!("{}{generated}{}", &document[..start], &document[end..]);
        fs::write(root().join(path), updated).unwrap();
        return;
    }
    assert_eq!(&document[start..end], generated, "{path} is out of date: {UPDATE}");
}

#[test]
fn the_table_of_settings_is_the_programs() {
    let header = "| name | default | meaning | accepted |\n| --- | --- | --- | --- |\n";
    assert_generated("docs/settings.md", header, &config::markdown_rows());
}

#[test]
fn the_readmes_settings_exist_and_have_these_defaults() {
    let all = config::markdown_rows();
    let readme = read("README.md");
    let rows = section(&readme, "Settings").lines().filter(|line| line.starts_with("| `"));
    let mut compared = 0;
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let names: Vec<&str> = cells[0].trim_start_matches("| ").split(", ").collect();
        let defaults: Vec<&str> = cells[1].split("`, `").collect();
        for (index, name) in names.iter().enumerate() {
            let known = all.lines().find(|known| known.starts_with(&format!("| {name} | ")));
            let known = known.unwrap_or_else(|| panic!("there is no setting {name}"));
            let default = known.split(" | ").nth(1).unwrap().trim_matches('`');
            // A default in words is an explanation.
            if cells[1].starts_with('`') {
                assert_eq!(defaults[index].trim_matches('`'), default, "{name}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 12, "only {compared} settings");
}

#[test]
fn the_example_file_of_settings_is_the_programs() {
    let example = config::env_example();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(".env.example"), example).unwrap();
        return;
    }
    assert_eq!(read(".env.example"), example, ".env.example is out of date: {UPDATE}");
}

/// In the examples for systemd, Compose and Kubernetes as well.
#[test]
fn every_file_and_credential_that_the_pages_name_is_read_as_a_setting() {
    let variables: BTreeSet<String> = config::settings()
        .flat_map(|setting| setting.file_variable().into_iter().chain([setting.name.to_string()]))
        .collect();
    let credentials: BTreeSet<String> = config::settings()
        .filter(|setting| setting.file_variable().is_some())
        .map(|setting| setting.name.to_lowercase())
        .collect();
    let (mut wrong, mut found) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        // The last is OpenSSL's.
        let others = ["_FILE", "NAME_FILE", "SSL_CERT_FILE"];
        for word in words.filter(|word| word.ends_with("_FILE") && !others.contains(word)) {
            found += 1;
            wrong.extend((!variables.contains(word)).then(|| word.to_string()));
        }
        for rest in text.split("LoadCredential=").skip(1) {
            found += 1;
            let (name, _) = rest.split_once(':').unwrap();
            let is_a_path = text.contains(&format!("=%d/{name}"));
            wrong.extend((!credentials.contains(name) && !is_a_path).then(|| name.to_string()));
        }
    }
    assert_eq!(wrong, [""; 0], "these are no settings");
    assert!(found > 15, "only {found} were found");
}

#[test]
fn the_table_of_events_has_every_type() {
    let page = read("docs/audit.md");
    for kind in Kind::ALL {
        assert!(section(&page, "Events").contains(&format!("`{}`", kind.as_str())), "{kind:?} is missing");
    }
}

/// What the OpenAPI document says about a route. Of the methods of a gateway's route, GET has the description.
fn operation(route: &Route) -> &'static Value {
    let path: Vec<String> = route
        .path
        .trim_end_matches("/*")
        .split('/')
        .map(|segment| segment.strip_prefix(':').map_or(segment.to_string(), |name| format!("{{{name}}}")))
        .collect();
    let method = route.method.as_ref().map_or("get".to_string(), |method| method.as_str().to_lowercase());
    &DOCUMENT["paths"][path.join("/")][method]
}

/// A route's row in its table.
fn row(route: &Route) -> String {
    let operation = operation(route);
    let security = operation["security"].as_array().unwrap();
    let takes = |scheme: &str| security.contains(&json!({ scheme: [] }));
    let credential = match (takes("jwt"), takes("apiKey")) {
        (false, false) => "none",
        (true, false) => "JWT",
        (false, true) => "API key",
        (true, true) => "JWT or API key",
    };
    let mut credential = credential.to_string();
    let scopes: Vec<String> = route.requirements.scopes.iter().map(|scope| format!("`{scope}`")).collect();
    if !scopes.is_empty() {
        credential = credential.replace(" or ", ", or ");
        credential += &format!(" with the scope {}", scopes.join(" "));
    }
    if takes("apiKey") && !route.requirements.derived {
        credential += ", no derived token";
    }
    let summary = operation["summary"].as_str().unwrap().trim_end_matches(" (any method)");
    format!("| `{} {}` | {credential} | {summary} |\n", route.verb(), route.path)
}

#[test]
fn the_tables_of_routes_are_the_programs() {
    let tables: Vec<String> = DOCUMENT["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| {
            let routes = ROUTES.iter().filter(|route| operation(route)["tags"][0] == tag["name"]);
            let rows: String = routes.map(row).collect();
            let [name, description] = ["name", "description"].map(|field| tag[field].as_str().unwrap());
            let header = "| route | credential | what it does |\n| --- | --- | --- |";
            format!("### {name}\n\n{description}\n\n{header}\n{rows}")
        })
        .collect();
    let tables = tables.join("\n");
    for route in ROUTES.iter() {
        assert!(tables.contains(&row(route)), "{} {} has no tag", route.verb(), route.path);
    }
    assert_generated("docs/routes.md", "\n## All routes\n\n", &tables);
}

#[test]
fn the_readme_has_at_most_150_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; what is more belongs into docs/");
}

/// Which tests the page for security says are in `tests/hostile`.
struct Hostile {
    sections: Vec<String>,
    files: Vec<String>,
    /// Files whose tests are in the suite although they are in these sections.
    exceptions: Vec<String>,
}

impl Hostile {
    fn of(page: &str) -> Hostile {
        let text = page.replace('\n', " ");
        let sentence =
            text.split("`cargo test --test hostile -- NAME` runs ").nth(1).and_then(|rest| rest.split('.').next());
        let (these, but) = sentence.unwrap().split_once(", except those of ").unwrap();
        let quoted =
            |text: &str, mark: char| text.split(mark).skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
        Hostile { sections: quoted(these, '"'), files: quoted(these, '`'), exceptions: quoted(but, '`') }
    }

    fn has(&self, section: &str, file: &str) -> bool {
        let is_in = |list: &[String], name: &str| list.iter().any(|one| one == name);
        is_in(&self.files, file) || (is_in(&self.sections, section) && !is_in(&self.exceptions, file))
    }
}

#[test]
fn every_test_that_the_security_page_names_is_where_the_page_says() {
    fn sources(folder: &Path) -> String {
        let text = |path: PathBuf| if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() };
        fs::read_dir(folder).unwrap().map(|entry| text(entry.unwrap().path())).collect()
    }
    let library = sources(&root().join("src"));
    let page = read("SECURITY.md");
    let hostile = Hostile::of(&page);
    let (mut missing, mut found, mut hostile_ones) = (Vec::new(), 0, 0);
    for section in page.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap();
        let shown_by =
            section.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.rsplit(" | ").next());
        for cell in shown_by {
            let mut parts = cell.split('`').skip(1);
            while let (Some(name), Some(after)) = (parts.next(), parts.next()) {
                let is_whole_file = after.starts_with(" (all of it)");
                let (file, test) = match name.rsplit_once("::") {
                    Some((file, test)) => (file, Some(test)),
                    None if is_whole_file => (name, None),
                    None => ("", Some(name)),
                };
                let is_there = |source: &str| test.is_none_or(|test| source.contains(&format!("fn {test}(")));
                let is_hostile = hostile.has(heading, file.split("::").next().unwrap());
                let exists = if file.is_empty() {
                    is_there(&library)
                } else {
                    let folder = root().join("tests").join(if is_hostile { "hostile" } else { "suite" });
                    let path = folder.join(file.replace("::", "/"));
                    [path.with_extension("rs"), path.join("mod.rs")]
                        .iter()
                        .any(|path| fs::read_to_string(path).is_ok_and(|source| is_there(&source)))
                };
                if !exists {
                    missing.push(format!("{heading}: {name}"));
                }
                found += 1;
                hostile_ones += usize::from(is_hostile);
            }
        }
    }
    assert_eq!(missing, [""; 0], "these tests are not where SECURITY.md says");
    assert!(found > 100 && hostile_ones > 20, "{hostile_ones} of {found}");
}

/// Every document that readers are led to.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for folder in ["", "docs", "fuzz"] {
        for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
            if entry.path().extension().is_some_and(|extension| extension == "md") {
                documents.push(entry.path());
            }
        }
    }
    documents
}

/// The text outside fenced blocks.
fn prose(document: &str) -> String {
    let mut fenced = false;
    let lines = document.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What leads to each heading of a document, as GitHub makes it.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = prose(document);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let (mut broken, mut followed) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in prose(&text).split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            followed += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let exists = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !exists {
                broken.push(format!("{} → {link}", document.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert_eq!(broken, [""; 0], "these links lead nowhere");
    assert!(followed > 40, "only {followed} links were found");
}
