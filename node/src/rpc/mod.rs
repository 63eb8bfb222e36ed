//! The rpc room of the node.
