//! The program of the library beside it.

fn main() -> std::process::ExitCode {
    bourdon_bench::main()
}
