//! The tests that run the engine in worlds of the sandbox: `tests/scenarios.rs` has scripted ones, `tests/simulation.rs` makes
//! them at random. They are a package of their own because they need neither the adapters nor the program, whose
//! dependencies take most of the time to build: a hundred thousand worlds want an optimised build (`make simulation`).
