//! The uploads room: files that whoever has the link can fetch for a day (PROTOCOL §6.8).
//!
//! A file's row is there before its bytes and outlives them, so that nothing is ever left in the store without a row that says when it is to
//! be deleted. The bytes are in an object store; this room alone names its library.

mod error;
mod fetch;
mod intake;
mod keeper;
mod name;
mod room;

pub use error::UploadError;
pub use fetch::{Fetched, Part};
pub use intake::{Intake, Uploaded};
pub use room::{Uploads, UploadsConfig};
