//! From the body of a message to a notice.
#![deny(missing_docs)]
