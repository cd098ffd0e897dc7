//! What a verified request costs, beside the least that it could cost: `cargo bench`, nothing else needed.
//!
//! Every server is a process of its own; this one makes the load and does the sums. What is compared alternates within
//! one run, and ratios are medians of rounds: machines drift. `cargo bench -- cached logins` runs only these sections.
//! With `BASELINE=path/of/another/keyward` these two also measure that program, and say how this one compares.

mod bare;
mod data;
mod deliveries;
mod lists;
mod load;
mod neighbour;
mod process;
mod report;
mod resets;
mod sections;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == bare::ARGUMENT) {
        return bare::serve();
    }
    // Cargo adds an option of its own.
    let wanted: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| !name.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|name| !sections::ALL.iter().any(|(known, _)| known == *name)) {
        let known: Vec<&str> = sections::ALL.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no section {unknown:?}; there are: {}", known.join(", ")).into());
    }
    raise_descriptor_limit();
    for (name, section) in sections::ALL {
        if wanted.is_empty() || wanted.contains(name) {
            section()?;
        }
    }
    Ok(())
}

/// Ten thousand connections are as many descriptors.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
