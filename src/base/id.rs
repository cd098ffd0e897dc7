//! Ids of the things that are stored: UUIDs (RFC 9562, version 7, so that they sort by time), one type a noun.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            pub fn new() -> $name {
                $name(uuid::Uuid::now_v7())
            }

            /// Reads the hyphenated form; `None` for anything else.
            pub fn parse(text: &str) -> Option<$name> {
                // The parser also accepts other forms (braces, URN, no hyphens); the API has one.
                (text.len() == 36).then(|| uuid::Uuid::try_parse(text).ok().map($name)).flatten()
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $name::new()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A user's id.
    UserId
);
id!(
    /// A session's id.
    SessionId
);
id!(
    /// An API key's id; not the key.
    KeyId
);
id!(
    /// An event's id.
    EventId
);
id!(
    /// The id of an endpoint that events are sent to.
    WebhookId
);
id!(
    /// The id of something that is delivered to one receiver.
    DeliveryId
);
