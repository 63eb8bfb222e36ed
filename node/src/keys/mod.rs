//! The keys room of the node.
