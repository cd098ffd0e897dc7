//! The settings of the operator: the table reads each straight into the settings of the room that uses it.
//!
//! They are read once, at the start; nothing reads the environment afterwards.

mod checks;
mod documents;
mod dotenv;
mod kubernetes;
mod load;
mod setting;
mod settings;
mod sources;
mod table;

pub use self::documents::{env_example, help, markdown_rows};
pub use self::setting::Setting;
pub use self::settings::{Config, ConfigError};
pub use self::table::settings;
