//! The AWS ports of the engine on the real services.
