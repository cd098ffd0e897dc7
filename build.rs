//! Takes what the documentation page needs out of Swagger UI's release, and compresses what is large, so that the binary
//! holds it in the form that goes over the wire.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::ZipArchive;

/// Swagger UI's files, by the end of their path in its release. Its licence asks that it goes with them.
const LARGE: [&str; 3] = ["dist/swagger-ui.css", "dist/swagger-ui-bundle.js", "LICENSE"];
/// Compressed, they would hardly be smaller, or not at all.
const SMALL: [&str; 2] = ["dist/favicon-32x32.png", "NOTICE"];

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::var("OUT_DIR")?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=static/openapi.json");
    write_compressed(&out, "openapi.json", &fs::read("static/openapi.json")?)?;
    let mut release = ZipArchive::new(Cursor::new(utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED))?;
    for index in 0..release.len() {
        let mut file = release.by_index(index)?;
        let path = file.name()?.into_owned();
        // Everything is in one folder, named after the release.
        let inside = path.split_once('/').map_or("", |(_, inside)| inside);
        if !LARGE.contains(&inside) && !SMALL.contains(&inside) {
            continue;
        }
        let name = inside.trim_start_matches("dist/");
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        if LARGE.contains(&inside) {
            write_compressed(&out, name, &content)?;
        } else {
            fs::write(Path::new(&out).join(name), &content)?;
        }
    }
    Ok(())
}

fn write_compressed(out: &str, name: &str, content: &[u8]) -> Result<(), Box<dyn Error>> {
    let file = File::create(Path::new(out).join(format!("{name}.gz")))?;
    let mut encoder = GzEncoder::new(file, Compression::best());
    encoder.write_all(content)?;
    encoder.finish()?;
    Ok(())
}
