//! The app room of the node.
