//! The bus room of the node.
