//! The directory room of the node.
