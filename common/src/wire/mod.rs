//! The messages of the HTTP protocol, by version. `docs/PROTOCOL.md` tells the story that they make up.

pub mod v1;
