//! Figures of the whole installation: what there is now, and what was done hour by hour.

pub mod figures;
pub mod service;
pub mod store;
