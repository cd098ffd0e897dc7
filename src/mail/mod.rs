//! Mail: what Keyward writes to users, and how it is sent.
