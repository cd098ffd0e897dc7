//! Certificates and keys for HTTPS, in one file: they are served, or refused in one line that names the setting.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use keyward::http::tls::Tls;
use keyward::http::tls::TlsFiles;
use libfuzzer_sys::fuzz_target;

static FILES: LazyLock<TlsFiles> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("keyward-fuzz-{}.pem", std::process::id()));
    TlsFiles { certificate: file.clone(), key: file, look_every: Duration::from_secs(3600) }
});
static DAMAGED: LazyLock<PathBuf> = LazyLock::new(|| FILES.certificate.with_extension("damaged"));

fuzz_target!(|data: &[u8]| {
    std::fs::write(&FILES.certificate, data).expect("a file in the temporary folder");
    match Tls::start(&FILES) {
        Ok(tls) => drop(tls),
        Err(error) => {
            let names_setting = error.starts_with("TLS_CERT: ") || error.starts_with("TLS_KEY: ");
            let names_file = error.contains(FILES.key.to_str().unwrap_or_default());
            assert!(names_setting && names_file && !error.contains(['\n', '\r']), "{error:?}");
            assert!(error.len() < 1000, "{error:?}");
        }
    }
    // A key that stands where the certificate is wanted is not shown.
    let key: Vec<u8> = data.iter().copied().filter(|b| *b != b'-').collect();
    std::fs::write(&*DAMAGED, &key).expect("a file in the temporary folder");
    let files = TlsFiles { certificate: DAMAGED.clone(), ..FILES.clone() };
    let error = Tls::start(&files).err().expect("nothing that is PEM");
    let shown = String::from_utf8_lossy(&key);
    let line = shown.lines().find(|line| line.len() > 40).unwrap_or("nothing so long");
    assert!(!error.contains(line), "{error:?}");
});
