//! The metrics room of the node.
