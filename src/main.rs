//! The process: arguments, exit codes.

fn main() {}
