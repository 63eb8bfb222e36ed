//! The session room of the node.
