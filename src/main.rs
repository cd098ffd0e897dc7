fn main() -> std::process::ExitCode {
    keyward::cli::run(std::env::args_os().skip(1).collect())
}
