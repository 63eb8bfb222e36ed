//! The clock room of the node.
