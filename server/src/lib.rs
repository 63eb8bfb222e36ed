//! The control plane's rooms.

pub mod broker;
