//! The post room of the node.
