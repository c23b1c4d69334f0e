//! AWS and Kubernetes in memory: one world behind ports in process and HTTP on loopback.
