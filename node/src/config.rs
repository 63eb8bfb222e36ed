//! The config room of the node.
