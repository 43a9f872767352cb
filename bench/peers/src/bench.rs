//! The bench itself, built beside `bourdon-peers`, so that the adapters' tests measure through it.

fn main() -> std::process::ExitCode {
    bourdon_bench::main()
}
