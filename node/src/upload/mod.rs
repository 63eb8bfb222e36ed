//! The upload room: reads a file that an agent may show, and puts it on the control plane for whoever gets the link (PROTOCOL §6.8).
//!
//! A file is opened through a handle of the folder that the agent may show ([`roots`]), so that neither `..` nor a link leads out of it, and
//! whatever becomes of the path meanwhile, what was checked is what is read.

mod roots;
mod send;

pub use roots::{FileError, Roots};
pub use send::{Draft, UploadError, Uploaded, upload};
