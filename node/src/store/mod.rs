//! The store room of the node.
