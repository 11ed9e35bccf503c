//! `hull-testnode`: a KVM-capable machine in a box, on the command line.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
