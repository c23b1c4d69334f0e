//! The invariants, by enumeration of what the decision can see, and tables for what it says.

mod enumeration;
mod machine;
mod paths;
mod records;
mod survivors;
mod world;
