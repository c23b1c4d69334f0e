//! The invariants, by enumeration of what the decision can see, and tables for what it says.

mod enumeration;
mod paths;
mod records;
mod world;
