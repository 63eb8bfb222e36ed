//! The lifecycle room of the node.
