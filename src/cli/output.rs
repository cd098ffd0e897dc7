//! What commands print: tables for people, JSON for programs.
//!
//! In a table, the column that can be long comes last. Text that a user chose is escaped, because control characters in
//! it could change what the terminal shows.

use std::io::{self, Write};

use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::cli::failure::Failure;

/// Rows that a list reads from the store at once.
pub(crate) const PAGE: usize = 1000;

/// A list, printed row by row: a table, or a JSON array.
pub(crate) struct Rows {
    output: io::BufWriter<io::Stdout>,
    json: bool,
    any: bool,
}

impl Rows {
    pub(crate) fn start(json: bool, header: &str) -> Result<Rows, Failure> {
        let mut output = io::BufWriter::new(io::stdout());
        if json {
            write!(output, "[")?
        } else {
            writeln!(output, "{header}")?
        }
        Ok(Rows { output, json, any: false })
    }

    pub(crate) fn write(&mut self, line: &str, object: &Value) -> Result<(), Failure> {
        if self.json {
            write!(self.output, "{}\n  {object}", if self.any { "," } else { "" })?;
        } else {
            writeln!(self.output, "{line}")?;
        }
        self.any = true;
        Ok(())
    }

    pub(crate) fn end(mut self) -> Result<(), Failure> {
        if self.json {
            writeln!(self.output, "{}]", if self.any { "\n" } else { "" })?;
        }
        Ok(self.output.flush()?)
    }
}

/// One result: lines for people, or a JSON object.
pub(crate) fn print(json: bool, lines: &str, object: &Value) -> Result<(), Failure> {
    let outcome = if json { writeln!(io::stdout(), "{object}") } else { writeln!(io::stdout(), "{lines}") };
    Ok(outcome?)
}

pub(crate) fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

pub(crate) fn time_or_dash(time: Option<Timestamp>) -> String {
    text_or_dash(time.map(|time| time.to_string()))
}

pub(crate) fn text_or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_string())
}
