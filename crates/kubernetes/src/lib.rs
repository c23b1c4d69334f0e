//! The Kubernetes port of the engine: watches, isolation, evictions.
