//! The identity room of the node.
