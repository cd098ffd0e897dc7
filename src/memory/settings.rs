//! The settings of this room.

#[derive(Clone, Copy, Debug, Default)]
pub struct MemorySettings {
    /// The most API keys that are remembered; as many sessions, and as many verified access tokens.
    pub cache_entries: usize,
}
