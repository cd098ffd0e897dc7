//! README.md and `docs/` are run and compared: the curl tours, the lines for PostgreSQL, the tables.
//!
//! The tables of settings and routes are made from the program: `UPDATE_DOCS=1 cargo test --test suite -- documents` writes
//! them anew.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use keyward::api::routes::ROUTES;
use keyward::config;
use keyward::http::route::Route;
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
    let service = Service::start(Backend::Sqlite);
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

/// Compares the rows of a document's one generated table with `rows`, or writes them.
#[track_caller]
fn assert_table(path: &str, header: &str, rows: &str) {
    let document = read(path);
    let start = document.find(header).unwrap_or_else(|| panic!("{path} has no {header:?}")) + header.len();
    let end = start + document[start..].find("\n\n").map_or(document.len() - start, |end| end + 1);
    // An empty table ends before its first row.
    let end = if document[start..].starts_with('\n') { start } else { end };
    if env::var_os("UPDATE_DOCS").is_some() {
        let updated = format!("{}{rows}{}", &document[..start], &document[end..]);
        fs::write(root().join(path), updated).unwrap();
        return;
    }
    assert_eq!(
        &document[start..end],
        rows,
        "{path} is out of date: run `UPDATE_DOCS=1 cargo test --test suite -- documents`"
    );
}

#[test]
fn the_table_of_settings_is_the_programs() {
    let header = "| name | default | meaning | accepted |\n| --- | --- | --- | --- |\n";
    assert_table("docs/settings.md", header, &config::markdown_rows());
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
    assert_eq!(read(".env.example"), example, ".env.example should be:\n{example}");
}

/// A route's row in the table: its credential and summary are those of the OpenAPI document.
fn row(route: &Route) -> String {
    let path: Vec<String> = route
        .path
        .trim_end_matches("/*")
        .split('/')
        .map(|segment| segment.strip_prefix(':').map_or(segment.to_string(), |name| format!("{{{name}}}")))
        .collect();
    let method = route.method.as_ref().map_or("get".to_string(), |method| method.as_str().to_lowercase());
    let operation = &DOCUMENT["paths"][path.join("/")][method];
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
fn the_table_of_routes_is_the_programs() {
    let rows: String = ROUTES.iter().map(row).collect();
    let header = "| route | credential | what it does |\n| --- | --- | --- |\n";
    assert_table("docs/routes.md", header, &rows);
}

#[test]
fn the_readme_has_at_most_150_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; what is more belongs into docs/");
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    // The sources of this suite and of the library, with their unit tests.
    fn gather(folder: &Path, sources: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.is_dir() => gather(&path, sources),
                path => sources.push_str(&std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        gather(&root().join(folder), &mut sources);
    }
    let page = read("SECURITY.md");
    let shown_by = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.rsplit(" | ").next());
    let names: Vec<&str> = shown_by
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(|name| name.rsplit("::").next().unwrap_or(name))
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let exists = sources.contains(&format!("fn {name}(")) || sources.contains(&format!("mod {name};"));
        assert!(exists, "there is no test {name}");
    }
}
