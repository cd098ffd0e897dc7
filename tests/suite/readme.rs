//! The README is run and compared: its curl tour, its tables, and `.env.example`.

use std::process::Command;

use keyward::api::routes::ROUTES;
use keyward::audit::event::Kind;
use keyward::config;
use keyward_harness::service::{Backend, Service};
use keyward_harness::tools::{Tool, installed};
use serde_json::Value;

const README: &str = include_str!("../../README.md");

/// The text between a heading and the next one of its level.
fn section(heading: &str) -> &'static str {
    let start = README.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("there is no section {heading:?}"));
    let rest = &README[start + 1..];
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

#[test]
fn the_curl_tour_gives_the_answers_it_shows() {
    if !installed(&[Tool::Bash, Tool::Curl]) {
        return;
    }
    let service = Service::start(Backend::Sqlite);
    let here = format!("http://{}", service.address());
    let blocks = blocks(section("A tour with curl"));
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
                assert_eq!(shape(&real), shape(&shown), "the README shows {shown}, the server says {real}");
                compared += 1;
            }
            other => panic!("the tour has a block of {other:?}"),
        }
    }
    assert!(compared >= 8, "only {compared} answers are shown");
    // Nothing but what the README shows has failed.
    assert!(!output.contains("\"statusCode\":500"));
}

#[test]
fn the_table_of_settings_is_the_programs() {
    let rows = config::markdown_rows();
    assert!(section("Settings").contains(&rows), "the README's table of settings should be:\n{rows}");
}

#[test]
fn the_example_file_of_settings_is_the_programs() {
    let example = config::env_example();
    assert_eq!(include_str!("../../.env.example"), example, ".env.example should be:\n{example}");
}

#[test]
fn the_audit_section_has_every_type_of_event() {
    for kind in Kind::ALL {
        assert!(section("Audit").contains(&format!("`{}`", kind.as_str())), "{kind:?} is missing");
    }
}

#[test]
fn the_table_of_routes_has_every_route() {
    for route in ROUTES.iter().filter(|route| !route.path.starts_with("/api/docs/")) {
        let row = format!("| `{} {}` |", route.verb(), route.path);
        assert!(section("Routes").contains(&row), "the README's table of routes lacks {row}");
    }
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    // The sources of this suite and of the library, with their unit tests.
    fn gather(folder: &std::path::Path, sources: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.is_dir() => gather(&path, sources),
                path => sources.push_str(&std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        gather(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut sources);
    }
    let page = include_str!("../../SECURITY.md");
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
